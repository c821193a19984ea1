//! The incremental engine: which resources a change makes new.
//!
//! Each *node* is one call of a translator, with the inputs that it read and the resources that it made. A change of
//! inputs recomputes the nodes that read them and no other. Invariant, held by a property test: after any sequence of
//! events the snapshot equals the one computed from scratch.

mod node;
mod scopes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use outrigger_xds_api::ResourceType;

use crate::model::{
    Audience, ChangeSet, Finding, Findings, Input, MeshSettings, Name, Origins, Registry, Workload,
};
use crate::scope::ScopeKey;
use crate::snapshot::by_audience::change;
use crate::snapshot::callers::Callers;
use crate::snapshot::{ProxyScope, Resource, ResourceMap, Snapshot};
use crate::source::Event;
use crate::translate::{self, Family, InputView, Output};
use node::Node;

/// What a node read and made.
#[derive(Debug, Default)]
struct Computed {
    read: BTreeSet<Input>,
    made: BTreeSet<(ResourceType, Arc<str>)>,
    problems: Vec<Finding>,
}

/// A resource of a node that is made anew, or gone.
#[derive(Debug)]
struct Edit {
    node: Node,
    of: ResourceType,
    name: Arc<str>,
    resource: Option<Arc<Resource>>,
}

/// The model, the nodes over it, and the next snapshot.
#[derive(Debug)]
pub struct Engine {
    registry: Registry,
    nodes: BTreeMap<Node, Computed>,
    readers: HashMap<Input, BTreeSet<Node>>,
    changes: ChangeSet,
    callers: Callers,
    /// Of the next snapshot.
    origins: Arc<Origins>,
    snapshot: Snapshot,
}

impl Engine {
    /// An empty mesh.
    pub fn new(settings: MeshSettings) -> Self {
        let mut snapshot = Snapshot::default();
        for (_, resource) in translate::black_hole().resources {
            let name = resource.name.clone();
            snapshot.clusters.change(&Audience::All, &name, Some(Arc::new(resource)));
        }
        for (of, resource) in translate::proxyless_black_hole().resources {
            let proxyless = &mut snapshot.proxyless;
            let map = match of {
                ResourceType::Cluster => &mut proxyless.clusters,
                _ => &mut proxyless.endpoints,
            };
            Arc::make_mut(map).insert(resource.name.clone(), Arc::new(resource));
        }
        Self {
            registry: Registry::new(settings),
            nodes: BTreeMap::new(),
            readers: HashMap::new(),
            changes: ChangeSet::default(),
            callers: Callers::default(),
            origins: Arc::default(),
            snapshot,
        }
    }

    /// Takes events in. Nothing is computed before [`Engine::publish`].
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.note_origin(&event);
            self.changes.merge(self.registry.apply(event));
        }
    }

    /// Computes what the events since the last call changed. `None` when the result is the same as before, except that the
    /// first call always gives a snapshot.
    pub fn publish(&mut self) -> Option<Arc<Snapshot>> {
        let before = self.snapshot.clone();
        let changes = std::mem::take(&mut self.changes);
        let mut dirty: BTreeSet<Node> = BTreeSet::new();
        for input in &changes.inputs {
            dirty.extend(self.readers.get(input).into_iter().flatten().cloned());
            dirty.extend(self.roots(input));
        }
        let callers_before = self.callers.clone();
        for workload in self.touched_scopes(&changes.inputs) {
            self.update_scope(&workload);
        }
        dirty.extend(self.audience_nodes(&changes.inputs, &callers_before));
        let recomputed = !dirty.is_empty();
        let mut edits = Vec::new();
        for node in dirty {
            edits.extend(self.recompute(node));
        }
        // What goes, goes first: a name may pass from one node to another.
        edits.sort_by_key(|edit| edit.resource.is_some());
        for edit in edits {
            self.edit(edit);
        }
        if recomputed || changes.rejections {
            self.collect_findings();
        }
        self.snapshot.origins = self.origins.clone();
        let same = before.clusters.same_as(&self.snapshot.clusters)
            && before.endpoints.same_as(&self.snapshot.endpoints)
            && Arc::ptr_eq(&before.routes, &self.snapshot.routes)
            && Arc::ptr_eq(&before.proxies, &self.snapshot.proxies)
            && Arc::ptr_eq(&before.captured_listeners.both, &self.snapshot.captured_listeners.both)
            && before.proxyless.same_as(&self.snapshot.proxyless)
            && before.findings == self.snapshot.findings
            && Arc::ptr_eq(&before.origins, &self.snapshot.origins);
        if same && before.generation > 0 {
            return None;
        }
        self.snapshot.generation += 1;
        Some(Arc::new(self.snapshot.clone()))
    }

    /// Keeps the list of origins in step with the source.
    fn note_origin(&mut self, event: &Event) {
        match event {
            Event::Upsert(object)
                if Origins::has_kind_of(object.key())
                    && self.origins.get(object.key()) != Some(&object.origin) =>
            {
                Arc::make_mut(&mut self.origins).insert(object.origin.clone());
            }
            Event::Delete(key) if self.origins.get(key).is_some() => {
                Arc::make_mut(&mut self.origins).remove(key);
            }
            _ => {}
        }
    }

    /// Nodes that exist because of an object. They also hear of its changes through what they read; this is how they come
    /// to be.
    fn roots(&self, input: &Input) -> Vec<Node> {
        match input {
            Input::Service(name) => {
                let listeners = Family::ALL.map(|family| Node::ServiceListeners(name.clone(), family));
                let mut nodes = vec![
                    Node::Clusters(name.clone(), Audience::All),
                    Node::Endpoints(name.clone(), Audience::All),
                    Node::ProxylessClusters(name.clone()),
                    Node::ProxylessEndpoints(name.clone()),
                ];
                nodes.extend(listeners);
                nodes
            }
            Input::Proxyless => {
                let names = self.registry.services().map(|service| service.name.clone());
                names
                    .flat_map(|name| [Node::ProxylessClusters(name.clone()), Node::ProxylessEndpoints(name)])
                    .collect()
            }
            Input::Captured => Family::ALL.map(Node::OutboundVirtual).into(),
            Input::Workload(name) => {
                let mut nodes = vec![
                    Node::ProxylessRoutes(name.namespace.clone()),
                    Node::Listeners(name.clone()),
                    Node::InboundClusters(name.clone()),
                ];
                nodes.extend(self.routes_of(name));
                nodes
            }
            Input::SourceLabels => {
                let workloads = self.snapshot.proxies.keys();
                let workloads = workloads.map(|key| Name::new(&key.namespace, &key.pod));
                workloads.flat_map(|name| self.routes_of(&name)).collect()
            }
            Input::Route(key) => vec![Node::RouteCheck(key.clone())],
            Input::VirtualService(name) => vec![Node::VirtualServiceCheck(name.clone())],
            Input::ServiceEntry(name) => vec![Node::ServiceEntryCheck(name.clone())],
            Input::WorkloadEntry(name) => vec![Node::WorkloadEntryCheck(name.clone())],
            Input::WorkloadGroup(name) => vec![Node::WorkloadGroupCheck(name.clone())],
            Input::Policy(name) => vec![Node::PolicyCheck(name.clone())],
            Input::TrafficPolicy(name) => vec![Node::TrafficPolicyCheck(name.clone())],
            Input::PeerAuthn(namespace) => vec![Node::PeerAuthnCheck(namespace.clone())],
            _ => Vec::new(),
        }
    }

    /// The route configurations that come to be with a workload, or go with the client that it was.
    fn routes_of(&self, workload: &Name) -> Vec<Node> {
        let before = self.snapshot.proxies.get(&scope_key(workload)).map(|scope| scope.client.clone());
        let now = self.registry.workload(workload).map(|workload| self.registry.client_of(workload));
        let nodes = before.into_iter().chain(now).map(Node::Routes);
        nodes.filter(|node| self.is_wanted(node) != self.nodes.contains_key(node)).collect()
    }

    /// Whether what the node is for exists.
    fn is_wanted(&self, node: &Node) -> bool {
        match node {
            Node::Clusters(name, audience) => {
                self.registry.service(name).is_some_and(|service| self.differs(service, audience, true))
            }
            Node::Endpoints(name, audience) => {
                self.registry.service(name).is_some_and(|service| self.differs(service, audience, false))
            }
            Node::ServiceListeners(name, family) => self
                .registry
                .service(name)
                .is_some_and(|service| service.cluster_ips.iter().any(|ip| family.has(ip))),
            Node::OutboundVirtual(_) => self.registry.captured().next().is_some(),
            Node::Routes(client) => {
                let mut workloads = self.registry.workloads_in(&client.namespace);
                workloads.any(|workload| {
                    is_in_mesh(workload) && workload.sidecar && self.registry.client_of(workload) == *client
                })
            }
            Node::ProxylessClusters(name) | Node::ProxylessEndpoints(name) => {
                self.registry.has_proxyless() && self.registry.service(name).is_some()
            }
            Node::ProxylessRoutes(namespace) => self
                .registry
                .workloads_in(namespace)
                .any(|workload| is_in_mesh(workload) && workload.proxyless),
            Node::Listeners(name) | Node::InboundClusters(name) => {
                self.registry.workload(name).is_some_and(|workload| is_in_mesh(workload))
            }
            Node::RouteCheck(key) => self.registry.route(key).is_some(),
            Node::VirtualServiceCheck(name) => self.registry.virtual_service(name).is_some(),
            Node::ServiceEntryCheck(name) => self.registry.service_entry(name).is_some(),
            Node::WorkloadEntryCheck(name) => self.registry.workload_entry(name).is_some(),
            Node::WorkloadGroupCheck(name) => self.registry.workload_group(name).is_some(),
            Node::PolicyCheck(name) => self.registry.policy(name).is_some(),
            Node::TrafficPolicyCheck(name) => self.registry.traffic_policy(name).is_some(),
            Node::PeerAuthnCheck(namespace) => !self.registry.peer_authn_in(namespace).is_empty(),
        }
    }

    /// Runs a node again; what it no longer makes and what it makes now is left to be edited.
    fn recompute(&mut self, node: Node) -> Vec<Edit> {
        let wanted = self.is_wanted(&node);
        let view = match node.client(&self.registry) {
            Some(client) => InputView::of_client(&self.registry, client),
            None => InputView::new(&self.registry),
        };
        let output = if wanted { node.translate(&view) } else { Output::default() };
        let read = view.into_read();
        let before = self.nodes.remove(&node).unwrap_or_default();
        for input in before.read.difference(&read) {
            if let Some(readers) = self.readers.get_mut(input) {
                readers.remove(&node);
                if readers.is_empty() {
                    self.readers.remove(input);
                }
            }
        }
        for input in read.difference(&before.read) {
            self.readers.entry(input.clone()).or_default().insert(node.clone());
        }
        if !wanted {
            self.forget(&node);
        }
        let mut made = BTreeSet::new();
        let mut edits = Vec::new();
        for (of, resource) in output.resources {
            made.insert((of, resource.name.clone()));
            let name = resource.name.clone();
            edits.push(Edit { node: node.clone(), of, name, resource: Some(Arc::new(resource)) });
        }
        let gone = before.made.difference(&made).cloned();
        edits.extend(gone.map(|(of, name)| Edit { node: node.clone(), of, name, resource: None }));
        if wanted {
            self.nodes.insert(node, Computed { read, made, problems: output.problems });
        }
        edits
    }

    /// Takes the maps away that a node alone fills.
    fn forget(&mut self, node: &Node) {
        match node {
            Node::Routes(client) if self.snapshot.routes.contains_key(client) => {
                Arc::make_mut(&mut self.snapshot.routes).remove(client);
            }
            Node::ProxylessRoutes(namespace) if self.snapshot.proxyless.routes.contains_key(namespace) => {
                let proxyless = &mut self.snapshot.proxyless;
                Arc::make_mut(&mut proxyless.routes).remove(namespace);
                Arc::make_mut(&mut proxyless.listeners).remove(namespace);
            }
            _ => {}
        }
    }

    /// Edits the maps that a node's resources of a type are in. A map that is left as it was keeps its `Arc`, and so does
    /// all that holds it.
    fn edit(&mut self, Edit { node, of, name, resource }: Edit) {
        let change = |map: &mut Arc<ResourceMap>| change(map, &name, resource.clone());
        let snapshot = &mut self.snapshot;
        match &node {
            Node::Clusters(_, audience) => snapshot.clusters.change(audience, &name, resource),
            Node::OutboundVirtual(_) if of == ResourceType::Cluster => {
                snapshot.clusters.change(&Audience::All, &name, resource);
            }
            Node::ServiceListeners(_, family) | Node::OutboundVirtual(family) => {
                change(&mut snapshot.captured_listeners.both);
                if *family == Family::V4 {
                    change(&mut snapshot.captured_listeners.v4);
                }
            }
            Node::Endpoints(_, audience) => snapshot.endpoints.change(audience, &name, resource),
            Node::ProxylessClusters(_) => change(&mut snapshot.proxyless.clusters),
            Node::ProxylessEndpoints(_) => change(&mut snapshot.proxyless.endpoints),
            Node::ProxylessRoutes(namespace) => {
                let all = match of {
                    ResourceType::Listener => &mut snapshot.proxyless.listeners,
                    _ => &mut snapshot.proxyless.routes,
                };
                let before = all.get(namespace).cloned().unwrap_or_default();
                let mut after = before.clone();
                change(&mut after);
                if !Arc::ptr_eq(&before, &after) {
                    Arc::make_mut(all).insert(namespace.clone(), after);
                }
            }
            Node::Routes(client) => {
                let before = snapshot.routes.get(client).cloned().unwrap_or_default();
                let mut after = before.clone();
                change(&mut after);
                if !Arc::ptr_eq(&before, &after) {
                    Arc::make_mut(&mut snapshot.routes).insert(client.clone(), after);
                }
            }
            Node::Listeners(name) | Node::InboundClusters(name) => {
                let key = scope_key(name);
                // Gone with the workload, and its resources with it.
                let Some(before) = snapshot.proxies.get(&key) else { return };
                let mut after = ProxyScope::clone(before);
                let map = match node {
                    Node::Listeners(_) => &mut after.listeners,
                    _ => &mut after.clusters,
                };
                let map_before = map.clone();
                change(map);
                if !Arc::ptr_eq(&map_before, map) {
                    Arc::make_mut(&mut snapshot.proxies).insert(key, Arc::new(after));
                }
            }
            Node::RouteCheck(_)
            | Node::VirtualServiceCheck(_)
            | Node::ServiceEntryCheck(_)
            | Node::WorkloadEntryCheck(_)
            | Node::WorkloadGroupCheck(_)
            | Node::PolicyCheck(_)
            | Node::TrafficPolicyCheck(_)
            | Node::PeerAuthnCheck(_) => {}
        }
    }

    fn collect_findings(&mut self) {
        let problems: BTreeSet<&Finding> = self.nodes.values().flat_map(|node| &node.problems).collect();
        let findings = Findings {
            rejections: self.registry.rejections(),
            problems: problems.into_iter().cloned().collect(),
        };
        if *self.snapshot.findings != findings {
            self.snapshot.findings = Arc::new(findings);
        }
    }
}

/// Whether a workload gets a configuration: it has an address, and a sidecar or clients that need none.
fn is_in_mesh(workload: &Workload) -> bool {
    (workload.sidecar || workload.proxyless) && !workload.ips.is_empty()
}

fn scope_key(workload: &Name) -> ScopeKey {
    ScopeKey { namespace: workload.namespace.clone(), pod: workload.name.clone() }
}

#[cfg(test)]
mod tests;
