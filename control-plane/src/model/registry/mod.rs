//! All model nodes, kept up to date by events.
//!
//! Invariants: every object is in force by its last good version; an object that cannot be decoded leaves a rejection
//! and nothing else. [`Registry::apply`] names exactly the [`Input`]s whose value may have changed: translation reads
//! the model only through these, so a change that is not named here is a stale resource (the property test in
//! `snapshot::engine` guards it).

mod attached;
mod client;
mod destinations;
mod endpoints;
mod input;
mod place;
mod read;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use crate::api::{self, Decoded};
use crate::model::{
    Concern, DestinationPolicy, EndpointSlice, Finding, Grant, HttpRoute, MeshSettings, Name, Node,
    PeerAuthn, RouteKey, RouteKind, Service, ServiceEntry, TargetKey, TrafficPolicy, VirtualService,
    Workload, WorkloadEntry, WorkloadGroup,
};
use crate::source::{Event, Object, ObjectKey};
use attached::Attached;
pub use client::Client;
pub use input::{ChangeSet, Input};

/// What a rejection is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    File(Arc<str>),
    Object(ObjectKey),
}

/// The model of the mesh.
#[derive(Debug, Default)]
pub struct Registry {
    settings: Arc<MeshSettings>,
    services: BTreeMap<Name, Arc<Service>>,
    by_cluster_ip: BTreeMap<IpAddr, BTreeSet<Name>>,
    /// ServiceEntries, by the host names that they have.
    service_entries: Attached<ServiceEntry, Name, String>,
    /// The Service of each such host name.
    by_host: BTreeMap<String, Name>,
    /// Pods and what WorkloadEntries stand for. Of one name the Pod counts.
    workloads: BTreeMap<Name, Arc<Workload>>,
    workload_entries: BTreeMap<Name, Arc<WorkloadEntry>>,
    workload_groups: BTreeMap<Name, Arc<WorkloadGroup>>,
    /// How many of them have gRPC clients that speak xDS themselves.
    proxyless: usize,
    slices: Attached<EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    routes: Attached<HttpRoute, RouteKey>,
    grants: BTreeMap<Name, Arc<Grant>>,
    virtual_services: BTreeMap<Name, Arc<VirtualService>>,
    /// Labels with values that some VirtualService or policy asks of callers, and how many do.
    source_labels: BTreeMap<(String, String), usize>,
    policies: Attached<DestinationPolicy>,
    /// Labels that some policy or Service tells places of callers apart by, and how many do.
    place_labels: BTreeMap<String, usize>,
    traffic_policies: Attached<TrafficPolicy, Name, TargetKey>,
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
                let concern = if self.holds(object.key()) { Concern::FellBack } else { Concern::Other };
                let finding = finding.about(concern);
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
                self.set_pod(&name, Some(Arc::new(workload)), changes);
            }
            Some(Decoded::WorkloadEntry(entry)) => {
                let name = entry.name.clone();
                self.set_workload_entry(&name, Some(Arc::new(entry)), changes);
            }
            Some(Decoded::WorkloadGroup(group)) => {
                let name = group.name.clone();
                self.set_workload_group(&name, Some(Arc::new(group)), changes);
            }
            Some(Decoded::HttpRoute(route)) => {
                let key = route.key.clone();
                self.set_route(&key, Some(Arc::new(route)), changes);
            }
            Some(Decoded::Grant(grant)) => {
                let name = grant.name.clone();
                self.set_grant(&name, Some(Arc::new(grant)), changes);
            }
            Some(Decoded::VirtualService(service)) => {
                let name = service.name.clone();
                self.set_virtual_service(&name, Some(Arc::new(service)), changes);
            }
            Some(Decoded::ServiceEntry(entry)) => {
                let name = entry.name.clone();
                self.set_service_entry(&name, Some(Arc::new(entry)), changes);
            }
            Some(Decoded::DestinationPolicy(policy)) => {
                let name = policy.name.clone();
                self.set_policy(&name, Some(Arc::from(policy)), changes);
            }
            Some(Decoded::TrafficPolicy(policy)) => {
                let name = policy.name.clone();
                self.set_traffic_policy(&name, Some(Arc::from(policy)), changes);
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

    /// Whether a version of this object is in force.
    fn holds(&self, key: &ObjectKey) -> bool {
        let name = Name::new(&key.namespace, &key.name);
        match (key.group.as_str(), key.kind.as_str()) {
            ("", "Service") => self.services.contains_key(&name),
            ("", "Pod") => self.pod(&name).is_some(),
            ("", "Node") => self.nodes.contains_key(&key.name),
            ("discovery.k8s.io", "EndpointSlice") => self.slices.objects.contains_key(&name),
            ("gateway.networking.k8s.io", "ReferenceGrant") => self.grants.contains_key(&name),
            ("gateway.networking.k8s.io", kind) => RouteKind::of(kind)
                .is_some_and(|kind| self.routes.objects.contains_key(&RouteKey { kind, name })),
            ("networking.istio.io", "VirtualService") => self.virtual_services.contains_key(&name),
            ("networking.istio.io", "ServiceEntry") => self.service_entries.objects.contains_key(&name),
            ("networking.istio.io", "WorkloadEntry") => self.workload_entries.contains_key(&name),
            ("networking.istio.io", "WorkloadGroup") => self.workload_groups.contains_key(&name),
            ("networking.istio.io", "DestinationRule") => self.policies.objects.contains_key(&name),
            ("security.istio.io", "PeerAuthentication") => self.peer_authn.contains_key(&name),
            ("outrigger.dev", "TrafficPolicy") => self.traffic_policies.objects.contains_key(&name),
            _ => false,
        }
    }

    fn remove(&mut self, key: &ObjectKey, changes: &mut ChangeSet) {
        let name = Name::new(&key.namespace, &key.name);
        match (key.group.as_str(), key.kind.as_str()) {
            // Names with a dot are those of ServiceEntries' hosts.
            ("", "Service") if key.name.contains('.') => {}
            ("", "Service") => self.set_service(&name, None, changes),
            ("", "Pod") => self.set_pod(&name, None, changes),
            ("", "Node") => self.set_node(&key.name, None, changes),
            ("discovery.k8s.io", "EndpointSlice") => self.set_slice(&name, None, changes),
            ("gateway.networking.k8s.io", "ReferenceGrant") => self.set_grant(&name, None, changes),
            ("gateway.networking.k8s.io", kind) => {
                if let Some(kind) = RouteKind::of(kind) {
                    self.set_route(&RouteKey { kind, name }, None, changes);
                }
            }
            ("networking.istio.io", "VirtualService") => self.set_virtual_service(&name, None, changes),
            ("networking.istio.io", "ServiceEntry") => self.set_service_entry(&name, None, changes),
            ("networking.istio.io", "WorkloadEntry") => self.set_workload_entry(&name, None, changes),
            ("networking.istio.io", "WorkloadGroup") => self.set_workload_group(&name, None, changes),
            ("networking.istio.io", "DestinationRule") => self.set_policy(&name, None, changes),
            ("security.istio.io", "PeerAuthentication") => self.set_peer_authn(&name, None, changes),
            ("outrigger.dev", "TrafficPolicy") => self.set_traffic_policy(&name, None, changes),
            _ => {}
        }
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
