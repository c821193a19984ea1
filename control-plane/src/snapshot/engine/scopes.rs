//! The list of proxies, kept in step with their workloads, and the nodes that are for some of them only.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::node::Node;
use super::{Engine, is_in_mesh, scope_key};
use crate::model::{Audience, Input, Name, Service, TargetKey, TargetKind};
use crate::snapshot::ProxyScope;
use crate::snapshot::callers::Callers;

impl Engine {
    /// The workloads whose proxies may have to be described anew.
    pub(super) fn touched_scopes(&self, inputs: &BTreeSet<Input>) -> BTreeSet<Name> {
        let all = inputs.contains(&Input::SourceLabels) || inputs.contains(&Input::PlaceLabels);
        let known = self.snapshot.proxies.keys().filter(|_| all);
        let known = known.map(|key| Name::new(&key.namespace, &key.pod));
        let touched = inputs.iter().filter_map(|input| match input {
            Input::Workload(name) | Input::Place(name) => Some(name.clone()),
            _ => None,
        });
        known.chain(touched).collect()
    }

    /// Brings what is known of a workload's proxy up to date.
    pub(super) fn update_scope(&mut self, name: &Name) {
        let key = scope_key(name);
        let current = self.snapshot.proxies.get(&key).cloned();
        let workload = self.registry.workload(name).filter(|workload| is_in_mesh(workload));
        let Some(workload) = workload else {
            if let Some(current) = current {
                self.callers.remove(&current.client, &current.place);
                Arc::make_mut(&mut self.snapshot.proxies).remove(&key);
            }
            return;
        };
        let description = workload.description(&self.registry.settings().cluster_name);
        let client = self.registry.client_of(workload);
        let place = self.registry.place_of(workload);
        if let Some(scope) = &current
            && scope.service_account == workload.service_account
            && *scope.description == description
            && scope.client == client
            && scope.place == place
            && scope.ips == workload.ips
            && scope.captured == workload.is_captured()
            && scope.proxyless == workload.proxyless
        {
            return;
        }
        let scope = ProxyScope {
            service_account: workload.service_account.clone(),
            description: description.into(),
            client,
            place,
            ips: workload.ips.clone(),
            captured: workload.is_captured(),
            proxyless: workload.proxyless,
            clusters: current.as_ref().map(|scope| scope.clusters.clone()).unwrap_or_default(),
            listeners: current.as_ref().map(|scope| scope.listeners.clone()).unwrap_or_default(),
        };
        self.callers.add(&scope.client, &scope.place);
        if let Some(current) = current {
            self.callers.remove(&current.client, &current.place);
        }
        Arc::make_mut(&mut self.snapshot.proxies).insert(key, Arc::new(scope));
    }

    /// The nodes that come to be, or go, for some callers of a Service: with what is said of it in `inputs`, and with the callers,
    /// of which there were others `before`.
    pub(super) fn audience_nodes(&self, inputs: &BTreeSet<Input>, before: &Callers) -> Vec<Node> {
        let mut nodes = Vec::new();
        for service in inputs.iter().filter_map(|input| self.service_said_of(input)) {
            nodes.extend(self.nodes_for(service, self.callers.audiences()));
        }
        let gone = before.without(&self.callers);
        let of_gone = |node: &&Node| match node {
            Node::Clusters(_, audience) | Node::Endpoints(_, audience) => gone.contains(audience),
            _ => false,
        };
        if !gone.is_empty() {
            nodes.extend(self.nodes.keys().filter(of_gone).cloned());
        }
        let new = self.callers.without(before);
        if !new.is_empty() {
            for service in self.registry.services() {
                nodes.extend(self.nodes_for(service, new.iter().cloned()));
            }
        }
        nodes
    }

    /// The nodes of a Service for those of the audiences that get something else than all.
    fn nodes_for(&self, service: &Service, audiences: impl Iterator<Item = Audience>) -> Vec<Node> {
        let by_place = self.registry.depends_on_place(service);
        let by_client = self.registry.has_own_policies(service);
        let may_differ = |audience: &Audience| match audience {
            Audience::All => false,
            Audience::At(_) => by_place,
            Audience::Of(client, _) => by_client && self.registry.follows_its_own(service, client),
        };
        let nodes = |audience: Audience| {
            [
                Node::Clusters(service.name.clone(), audience.clone()),
                Node::Endpoints(service.name.clone(), audience),
            ]
        };
        audiences.filter(may_differ).flat_map(nodes).collect()
    }

    /// The Service that an input is about, if it may make its callers differ.
    fn service_said_of(&self, input: &Input) -> Option<&Arc<Service>> {
        match input {
            Input::Service(name) => self.registry.service(name),
            // The key of a host that a ServiceEntry has; see `Service::policy_key`.
            Input::PoliciesOf(key) if key.namespace.is_empty() => self.registry.service_at_host(&key.name),
            Input::PoliciesOf(key) => self.registry.service(key),
            Input::TrafficPoliciesOf(TargetKey { kind: TargetKind::Service, name }) => {
                self.registry.service(name)
            }
            _ => None,
        }
    }

    /// Whether what a Service comes to is something else for this audience than for larger ones. Endpoints that have names stand in
    /// the cluster.
    pub(super) fn differs(&self, service: &Service, audience: &Audience, is_named: bool) -> bool {
        match audience {
            Audience::All => true,
            Audience::At(_) => {
                self.callers.has(audience)
                    && service.named.is_some() == is_named
                    && self.registry.depends_on_place(service)
            }
            Audience::Of(client, _) => {
                self.callers.has(audience) && self.registry.follows_its_own(service, client)
            }
        }
    }
}
