//! All model nodes, kept up to date by events.
//!
//! Invariants: every object is in force by its last good version; an object that cannot be decoded leaves a rejection
//! and nothing else. [`Registry::apply`] names exactly the [`Input`]s whose value may have changed: translation reads
//! the model only through these, so a change that is not named here is a stale resource (the property test in
//! `snapshot::engine` guards it).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use crate::api::{self, Decoded};
use crate::model::{
    EndpointSlice, Finding, HttpRoute, MeshSettings, Name, Node, PeerAuthn, Protocol, Service, TrafficPolicy,
    Workload,
};
use crate::source::{Event, Object, ObjectKey};

/// A part of the model that translation can depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Which Services exist.
    ServiceList,
    /// The Service of this name, or that there is none.
    Service(Name),
    /// Which ports of which Services may be TCP.
    TcpPorts,
    /// The endpoints of the Service of this name, with their workloads.
    Endpoints(Name),
    /// The route of this name, or that there is none.
    Route(Name),
    /// The routes whose parent is the Service of this name.
    RoutesOf(Name),
    /// The traffic policy of this name, or that there is none.
    Policy(Name),
    /// The traffic policies for the Service of this name.
    PoliciesOf(Name),
    /// The workload of this name, or that there is none.
    Workload(Name),
    /// Which Services lead to the workload of this name, by which ports.
    InboundPorts(Name),
    /// The PeerAuthentications of this namespace.
    PeerAuthn(String),
    /// Which Services have this cluster IP.
    ClusterIp(IpAddr),
    /// The workloads whose connections are captured: which there are, their addresses, labels and identities.
    Captured,
    /// Whether a workload has gRPC clients that speak xDS themselves.
    Proxyless,
}

/// The inputs that a batch of events changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Their names. Naming one that did not change costs work, never correctness.
    pub inputs: BTreeSet<Input>,
    /// Whether the list of rejections changed.
    pub rejections: bool,
}

impl ChangeSet {
    /// Adds the changes of another event.
    pub fn merge(&mut self, other: Self) {
        self.inputs.extend(other.inputs);
        self.rejections |= other.rejections;
    }
}

/// What a rejection is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    File(Arc<str>),
    Object(ObjectKey),
}

/// Objects by name, and which of them belong to a Service.
#[derive(Debug)]
struct Attached<T> {
    objects: BTreeMap<Name, Arc<T>>,
    by_service: BTreeMap<Name, BTreeSet<Name>>,
}

impl<T> Default for Attached<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), by_service: BTreeMap::new() }
    }
}

impl<T> Attached<T> {
    /// Puts `new` in the place of what has its name and returns what was there; `services` tells where one belongs.
    fn replace<'a>(
        &mut self,
        name: &Name,
        new: Option<Arc<T>>,
        services: impl Fn(&T) -> Vec<Name> + 'a,
    ) -> (Option<Arc<T>>, BTreeSet<Name>) {
        let mut touched = BTreeSet::new();
        let old = match new {
            Some(ref new) => self.objects.insert(name.clone(), new.clone()),
            None => self.objects.remove(name),
        };
        for service in old.iter().flat_map(|old| services(old)) {
            if let Some(names) = self.by_service.get_mut(&service) {
                names.remove(name);
                if names.is_empty() {
                    self.by_service.remove(&service);
                }
            }
            touched.insert(service);
        }
        for service in new.iter().flat_map(|new| services(new)) {
            self.by_service.entry(service.clone()).or_default().insert(name.clone());
            touched.insert(service);
        }
        (old, touched)
    }

    fn of(&self, service: &Name) -> impl Iterator<Item = &Arc<T>> {
        self.by_service.get(service).into_iter().flatten().filter_map(|name| self.objects.get(name))
    }
}

/// The model of the mesh.
#[derive(Debug, Default)]
pub struct Registry {
    settings: Arc<MeshSettings>,
    services: BTreeMap<Name, Arc<Service>>,
    by_cluster_ip: BTreeMap<IpAddr, BTreeSet<Name>>,
    workloads: BTreeMap<Name, Arc<Workload>>,
    /// How many of them have gRPC clients that speak xDS themselves.
    proxyless: usize,
    slices: Attached<EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    routes: Attached<HttpRoute>,
    policies: Attached<TrafficPolicy>,
    peer_authn: BTreeMap<Name, Arc<PeerAuthn>>,
    rejections: BTreeMap<Subject, Finding>,
}

impl Registry {
    /// An empty mesh.
    pub fn new(settings: MeshSettings) -> Self {
        Self { settings: Arc::new(settings), ..Self::default() }
    }

    /// Takes one event in and says what it changed.
    pub fn apply(&mut self, event: Event) -> ChangeSet {
        let mut changes = ChangeSet::default();
        match event {
            Event::Upsert(object) => self.upsert(&object, &mut changes),
            Event::Delete(key) => {
                changes.rejections |= self.rejections.remove(&Subject::Object(key.clone())).is_some();
                self.remove(&key, &mut changes);
            }
            Event::Unreadable(found) => {
                self.rejections.insert(Subject::File(found.file.clone()), found.into());
                changes.rejections = true;
            }
            Event::Readable { file } => {
                changes.rejections |= self.rejections.remove(&Subject::File(file)).is_some();
            }
            Event::Synced => {}
        }
        changes
    }

    fn upsert(&mut self, object: &Object, changes: &mut ChangeSet) {
        let subject = Subject::Object(object.key().clone());
        let decoded = match api::decode(object, &self.settings) {
            Ok(decoded) => decoded,
            Err(refusal) => {
                let finding = Finding::at(&object.origin, refusal.field, refusal.reason);
                self.rejections.insert(subject, finding);
                changes.rejections = true;
                return;
            }
        };
        changes.rejections |= self.rejections.remove(&subject).is_some();
        match decoded {
            Some(Decoded::Service(service)) => {
                let name = service.name.clone();
                self.set_service(&name, Some(Arc::new(service)), changes);
            }
            Some(Decoded::EndpointSlice(slice)) => {
                let name = slice.name.clone();
                self.set_slice(&name, Some(Arc::new(slice)), changes);
            }
            Some(Decoded::Workload(workload)) => {
                let name = workload.name.clone();
                self.set_workload(&name, Some(Arc::new(workload)), changes);
            }
            Some(Decoded::HttpRoute(route)) => {
                let name = route.name.clone();
                self.set_route(&name, Some(Arc::new(route)), changes);
            }
            Some(Decoded::TrafficPolicy(policy)) => {
                let name = policy.name.clone();
                self.set_policy(&name, Some(Arc::new(policy)), changes);
            }
            Some(Decoded::PeerAuthn(policy)) => {
                let name = policy.name.clone();
                self.set_peer_authn(&name, Some(Arc::new(policy)), changes);
            }
            Some(Decoded::Node(node)) => {
                let name = node.name.clone();
                self.set_node(&name, Some(node), changes);
            }
            // It has no meaning for the mesh (any more: a Service may become an ExternalName).
            None => self.remove(object.key(), changes),
        }
    }

    fn remove(&mut self, key: &ObjectKey, changes: &mut ChangeSet) {
        let name = Name::new(&key.namespace, &key.name);
        match (key.group.as_str(), key.kind.as_str()) {
            ("", "Service") => self.set_service(&name, None, changes),
            ("", "Pod") => self.set_workload(&name, None, changes),
            ("", "Node") => self.set_node(&key.name, None, changes),
            ("discovery.k8s.io", "EndpointSlice") => self.set_slice(&name, None, changes),
            ("gateway.networking.k8s.io", "HTTPRoute") => self.set_route(&name, None, changes),
            ("networking.istio.io", "DestinationRule") => self.set_policy(&name, None, changes),
            ("security.istio.io", "PeerAuthentication") => self.set_peer_authn(&name, None, changes),
            _ => {}
        }
    }

    fn set_service(&mut self, name: &Name, new: Option<Arc<Service>>, changes: &mut ChangeSet) {
        let old = replace(&mut self.services, name, new.clone());
        if old.is_some() != new.is_some() {
            changes.inputs.insert(Input::ServiceList);
        }
        if tcp_ports(old.as_deref()) != tcp_ports(new.as_deref()) {
            changes.inputs.insert(Input::TcpPorts);
        }
        let either = [old, new];
        self.index_cluster_ips(&either, changes);
        for workload in in_namespace(&self.workloads, &name.namespace) {
            if either.iter().flatten().any(|service| service.selects(&workload.labels)) {
                changes.inputs.insert(Input::InboundPorts(workload.name.clone()));
            }
        }
        for slice in self.slices.of(name) {
            self.slice_workloads(slice, changes);
        }
        changes.inputs.insert(Input::Service(name.clone()));
        changes.inputs.insert(Input::Endpoints(name.clone()));
    }

    /// Takes the addresses of the first, old Service out and those of the second, new one in.
    fn index_cluster_ips(&mut self, [old, new]: &[Option<Arc<Service>>; 2], changes: &mut ChangeSet) {
        let ips = |service: &Option<Arc<Service>>| -> BTreeSet<IpAddr> {
            service.iter().flat_map(|service| service.cluster_ips.iter().copied()).collect()
        };
        let (before, after) = (ips(old), ips(new));
        for ip in before.difference(&after) {
            if let (Some(names), Some(old)) = (self.by_cluster_ip.get_mut(ip), old) {
                names.remove(&old.name);
                if names.is_empty() {
                    self.by_cluster_ip.remove(ip);
                }
            }
        }
        for ip in after.difference(&before) {
            if let Some(new) = new {
                self.by_cluster_ip.entry(*ip).or_default().insert(new.name.clone());
            }
        }
        changes.inputs.extend(before.symmetric_difference(&after).copied().map(Input::ClusterIp));
    }

    fn set_workload(&mut self, name: &Name, new: Option<Arc<Workload>>, changes: &mut ChangeSet) {
        let old = replace(&mut self.workloads, name, new.clone());
        if captured(old.as_deref()) != captured(new.as_deref()) {
            changes.inputs.insert(Input::Captured);
        }
        let count = |workload: &Option<Arc<Workload>>| {
            usize::from(workload.as_ref().is_some_and(|workload| workload.proxyless))
        };
        if count(&old) != count(&new) {
            self.proxyless = self.proxyless - count(&old) + count(&new);
            changes.inputs.insert(Input::Proxyless);
        }
        let either = [old, new];
        for service in in_namespace(&self.services, &name.namespace) {
            if either.iter().flatten().any(|workload| service.selects(&workload.labels)) {
                changes.inputs.insert(Input::Endpoints(service.name.clone()));
            }
        }
        for slice in in_namespace(&self.slices.objects, &name.namespace) {
            for endpoint in &slice.endpoints {
                match &endpoint.pod {
                    Some(pod) if *pod == name.name => {}
                    None if either.iter().flatten().any(|pod| pod.ips.contains(&endpoint.address)) => {
                        // Pods may share an address (the node's): then another one may be found by it now.
                        let sharers = in_namespace(&self.workloads, &name.namespace)
                            .filter(|workload| workload.ips.contains(&endpoint.address));
                        changes
                            .inputs
                            .extend(sharers.map(|workload| Input::InboundPorts(workload.name.clone())));
                    }
                    _ => continue,
                }
                changes.inputs.insert(Input::Endpoints(slice.service.clone()));
            }
        }
        changes.inputs.insert(Input::Workload(name.clone()));
        changes.inputs.insert(Input::InboundPorts(name.clone()));
    }

    fn set_slice(&mut self, name: &Name, new: Option<Arc<EndpointSlice>>, changes: &mut ChangeSet) {
        let (old, services) = self.slices.replace(name, new.clone(), |slice| vec![slice.service.clone()]);
        for slice in [old, new].iter().flatten() {
            self.slice_workloads(slice, changes);
        }
        for service in services {
            // With its first slice a Service stops to select Pods, after its last it begins again.
            if let Some(service) = self.services.get(&service) {
                for workload in in_namespace(&self.workloads, &service.name.namespace) {
                    if service.selects(&workload.labels) {
                        changes.inputs.insert(Input::InboundPorts(workload.name.clone()));
                    }
                }
            }
            changes.inputs.insert(Input::Endpoints(service));
        }
    }

    /// A Node that moves takes the endpoints on it along.
    fn set_node(&mut self, name: &str, new: Option<Node>, changes: &mut ChangeSet) {
        let locality = new.as_ref().map(|node| node.locality.clone()).unwrap_or_default();
        let old = match new {
            Some(node) => self.nodes.insert(name.to_owned(), node),
            None => self.nodes.remove(name),
        };
        if old.map(|node| node.locality).unwrap_or_default() == locality {
            return;
        }
        let is_here = |workload: &Workload| workload.node.as_deref() == Some(name);
        for slice in self.slices.objects.values() {
            let has_endpoint_here = slice.endpoints.iter().any(|endpoint| match &endpoint.node {
                Some(node) => node == name,
                None => self.workload_of(slice, endpoint).is_some_and(|workload| is_here(workload)),
            });
            if has_endpoint_here {
                changes.inputs.insert(Input::Endpoints(slice.service.clone()));
            }
        }
        for workload in self.workloads.values().filter(|workload| is_here(workload)) {
            for service in in_namespace(&self.services, &workload.name.namespace) {
                if service.selects(&workload.labels) {
                    changes.inputs.insert(Input::Endpoints(service.name.clone()));
                }
            }
        }
    }

    /// The workloads that a slice leads to get or lose inbound ports with it.
    fn slice_workloads(&self, slice: &EndpointSlice, changes: &mut ChangeSet) {
        for endpoint in &slice.endpoints {
            if let Some(workload) = self.workload_of(slice, endpoint) {
                changes.inputs.insert(Input::InboundPorts(workload.name.clone()));
            }
        }
    }

    fn set_route(&mut self, name: &Name, new: Option<Arc<HttpRoute>>, changes: &mut ChangeSet) {
        let parents = |route: &HttpRoute| route.parents.iter().map(|parent| parent.service.clone()).collect();
        let (_, services) = self.routes.replace(name, new, parents);
        changes.inputs.extend(services.into_iter().map(Input::RoutesOf));
        changes.inputs.insert(Input::Route(name.clone()));
    }

    fn set_policy(&mut self, name: &Name, new: Option<Arc<TrafficPolicy>>, changes: &mut ChangeSet) {
        let (_, services) = self.policies.replace(name, new, |policy| vec![policy.service.clone()]);
        changes.inputs.extend(services.into_iter().map(Input::PoliciesOf));
        changes.inputs.insert(Input::Policy(name.clone()));
    }

    fn set_peer_authn(&mut self, name: &Name, new: Option<Arc<PeerAuthn>>, changes: &mut ChangeSet) {
        replace(&mut self.peer_authn, name, new);
        changes.inputs.insert(Input::PeerAuthn(name.namespace.clone()));
    }
}

/// Reading. Translation does so only through [`InputView`](crate::translate::InputView).
impl Registry {
    /// Settings of the mesh.
    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// All Services in the order of names.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The Service of this name.
    pub fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The Service that has this cluster IP. A cluster gives each only once; of several in files the first by name has it.
    pub fn service_at(&self, ip: IpAddr) -> Option<&Name> {
        self.by_cluster_ip.get(&ip)?.first()
    }

    /// The workload of this name.
    pub fn workload(&self, name: &Name) -> Option<&Arc<Workload>> {
        self.workloads.get(name)
    }

    /// All workloads of a namespace.
    pub fn workloads_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Workload>> {
        in_namespace(&self.workloads, namespace)
    }

    /// All workloads whose connections are captured, in the order of names.
    pub fn captured(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values().filter(|workload| workload.is_captured())
    }

    /// Whether a workload has gRPC clients that speak xDS themselves.
    pub fn has_proxyless(&self) -> bool {
        self.proxyless > 0
    }

    /// The Node of this name.
    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The slices of a Service.
    pub(super) fn slices_of(&self, service: &Name) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.of(service)
    }

    /// The slices of all Services of a namespace.
    pub(super) fn slices_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
        in_namespace(&self.slices.objects, namespace)
    }

    /// The Services of a namespace.
    pub(super) fn services_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Service>> {
        in_namespace(&self.services, namespace)
    }

    /// The route of this name.
    pub fn route(&self, name: &Name) -> Option<&Arc<HttpRoute>> {
        self.routes.objects.get(name)
    }

    /// The traffic policy of this name.
    pub fn policy(&self, name: &Name) -> Option<&Arc<TrafficPolicy>> {
        self.policies.objects.get(name)
    }

    /// The routes whose parent is this Service, oldest first.
    pub fn routes_of(&self, service: &Name) -> Vec<Arc<HttpRoute>> {
        let mut routes: Vec<_> = self.routes.of(service).cloned().collect();
        routes.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        routes
    }

    /// The traffic policies for this Service, the one in force first: those of the Service's own namespace before those
    /// of the root namespace, then the older.
    pub fn policies_of(&self, service: &Name) -> Vec<Arc<TrafficPolicy>> {
        let mut policies: Vec<_> = self.policies.of(service).cloned().collect();
        policies.sort_by_key(|policy| {
            (policy.name.namespace != service.namespace, policy.created.clone(), policy.name.clone())
        });
        policies
    }

    /// The PeerAuthentications of a namespace, oldest first.
    pub fn peer_authn_in(&self, namespace: &str) -> Vec<Arc<PeerAuthn>> {
        let mut policies: Vec<_> = in_namespace(&self.peer_authn, namespace).cloned().collect();
        policies.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        policies
    }

    /// All rejections, sorted.
    pub fn rejections(&self) -> Vec<Finding> {
        let mut rejections: Vec<_> = self.rejections.values().cloned().collect();
        rejections.sort();
        rejections
    }
}

fn replace<T>(map: &mut BTreeMap<Name, Arc<T>>, name: &Name, new: Option<Arc<T>>) -> Option<Arc<T>> {
    match new {
        Some(new) => map.insert(name.clone(), new),
        None => map.remove(name),
    }
}

fn in_namespace<'a, T>(map: &'a BTreeMap<Name, Arc<T>>, namespace: &str) -> impl Iterator<Item = &'a Arc<T>> {
    let first = Name::new(namespace, "");
    map.range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(name, _)| name.namespace == namespace)
        .map(|(_, value)| value)
}

/// What other workloads depend on in one whose connections are captured.
fn captured(workload: Option<&Workload>) -> Option<impl PartialEq + '_> {
    let workload = workload.filter(|workload| workload.is_captured())?;
    Some((&workload.ips, &workload.service_account, &workload.controller, &workload.labels))
}

fn tcp_ports(service: Option<&Service>) -> Vec<(u16, Protocol)> {
    let ports = service.map_or(&[][..], |service| &service.ports);
    ports.iter().filter(|port| port.protocol.may_be_tcp()).map(|port| (port.number, port.protocol)).collect()
}
