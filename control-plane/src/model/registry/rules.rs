//! Taking rules in.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ChangeSet, Input, Registry, place, replace};
use crate::model::{
    DestinationPolicy, Grant, HttpRoute, HttpRules, Name, PeerAuthn, RequestMatch, RouteKey, ServiceEntry,
    Source, TrafficPolicy, VirtualService,
};

impl Registry {
    pub(super) fn set_route(&mut self, key: &RouteKey, new: Option<Arc<HttpRoute>>, changes: &mut ChangeSet) {
        let parents = |route: &HttpRoute| route.parents.iter().map(|parent| parent.service.clone()).collect();
        let (_, services) = self.routes.replace(key, new, parents);
        changes.inputs.extend(services.into_iter().map(Input::RoutesOf));
        changes.inputs.insert(Input::Route(key.clone()));
    }

    pub(super) fn set_grant(&mut self, name: &Name, new: Option<Arc<Grant>>, changes: &mut ChangeSet) {
        replace(&mut self.grants, name, new);
        changes.inputs.insert(Input::Grants(name.namespace.clone()));
    }

    pub(super) fn set_virtual_service(
        &mut self,
        name: &Name,
        new: Option<Arc<VirtualService>>,
        changes: &mut ChangeSet,
    ) {
        let old = replace(&mut self.virtual_services, name, new.clone());
        let sources = |service: &Option<Arc<VirtualService>>| -> BTreeSet<(String, String)> {
            let sources = service.iter().flat_map(|service| sources_of(service));
            sources.flat_map(|source| source.labels.clone()).collect()
        };
        self.count_source_labels(sources(&old), sources(&new), changes);
        if [&old, &new].into_iter().flatten().any(|service| service.rules_connections()) {
            changes.inputs.insert(Input::ConnectionRules);
        }
        changes.inputs.insert(Input::VirtualServices);
        changes.inputs.insert(Input::VirtualService(name.clone()));
    }

    pub(super) fn set_service_entry(
        &mut self,
        name: &Name,
        new: Option<Arc<ServiceEntry>>,
        changes: &mut ChangeSet,
    ) {
        let hosts =
            |entry: &ServiceEntry| entry.services.iter().map(|service| service.name.name.clone()).collect();
        let (_, touched) = self.service_entries.replace(name, new, hosts);
        for host in touched {
            let first = self.service_entries.of(&host).min_by_key(|entry| (&entry.created, &entry.name));
            let found =
                first.and_then(|entry| entry.services.iter().find(|found| found.name.name == host)).cloned();
            let now = found.as_ref().map(|found| found.name.clone());
            let before = match &now {
                Some(name) => self.by_host.insert(host.clone(), name.clone()),
                None => self.by_host.remove(&host),
            };
            if before != now {
                changes.inputs.insert(Input::Hosts);
            }
            if let Some(before) = before.filter(|before| now.as_ref() != Some(before)) {
                self.set_service(&before, None, changes);
            }
            if let Some(now) = now {
                self.set_service(&now, found, changes);
            }
            changes.inputs.insert(Input::Host(host));
        }
        changes.inputs.insert(Input::ServiceEntry(name.clone()));
    }

    pub(super) fn set_policy(
        &mut self,
        name: &Name,
        new: Option<Arc<DestinationPolicy>>,
        changes: &mut ChangeSet,
    ) {
        let (old, services) = self.policies.replace(name, new.clone(), |policy| vec![policy.key()]);
        self.count_place_labels(
            old.iter().flat_map(|old| place::of_policy(old)),
            new.iter().flat_map(|new| place::of_policy(new)),
            changes,
        );
        let selector = |policy: &Option<Arc<DestinationPolicy>>| {
            policy.as_ref().map(|policy| policy.selector.clone()).unwrap_or_default()
        };
        self.count_source_labels(selector(&old), selector(&new), changes);
        if [&old, &new].into_iter().flatten().any(|policy| !self.is_for_all(policy)) {
            changes.inputs.insert(Input::OwnPolicies);
        }
        changes.inputs.extend(services.into_iter().map(Input::PoliciesOf));
        changes.inputs.insert(Input::Policy(name.clone()));
    }

    pub(super) fn set_traffic_policy(
        &mut self,
        name: &Name,
        new: Option<Arc<TrafficPolicy>>,
        changes: &mut ChangeSet,
    ) {
        let targets =
            |policy: &TrafficPolicy| policy.targets.iter().map(|target| target.object.clone()).collect();
        let (_, touched) = self.traffic_policies.replace(name, new, targets);
        changes.inputs.extend(touched.into_iter().map(Input::TrafficPoliciesOf));
        changes.inputs.insert(Input::TrafficPolicy(name.clone()));
    }

    pub(super) fn set_peer_authn(
        &mut self,
        name: &Name,
        new: Option<Arc<PeerAuthn>>,
        changes: &mut ChangeSet,
    ) {
        replace(&mut self.peer_authn, name, new);
        changes.inputs.insert(Input::PeerAuthn(name.namespace.clone()));
    }
}

/// All conditions on callers.
fn sources_of(service: &VirtualService) -> impl Iterator<Item = &Source> {
    let http = service.http.iter().flat_map(|rules| -> &[RequestMatch] {
        match rules {
            HttpRules::Rule(rule) => &rule.matches,
            HttpRules::Delegate(rule) => &rule.matches,
        }
    });
    let connections = service.tls.iter().chain(&service.tcp).flat_map(|rule| &rule.matches);
    http.map(|request| &request.source).chain(connections.map(|connection| &connection.source))
}
