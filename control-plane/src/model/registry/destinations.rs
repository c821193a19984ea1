//! Which destination policies a client of a Service follows.
//!
//! Those of the client's own namespace, else those of the Service's, else those of the root namespace, each as far as they are for the
//! client. (A client in the root namespace follows that namespace's last: they are meant for all.) One that selects the client
//! stands alone. (Istio, except that there a client follows nobody's where its namespace has policies but selects others.)

use std::sync::Arc;

use super::Registry;
use crate::model::{
    Client, DestinationPolicies, DestinationPolicy, DestinationSettings, Name, Service, ServiceRef,
    TargetKey, TrafficPolicy, Visibility,
};

impl Registry {
    /// The destination policies that a client of this Service follows, the oldest first. `None`: what those follow that nothing is
    /// said of.
    pub fn policies_of(&self, service: &Service, client: Option<&Client>) -> Vec<Arc<DestinationPolicy>> {
        let root = self.settings().root_namespace.as_str();
        let of_client = client.map(|client| client.namespace.as_str()).filter(|namespace| *namespace != root);
        let namespaces = of_client.into_iter().chain([service.name.namespace.as_str(), root]);
        let key = service.policy_key();
        for namespace in namespaces {
            let mut followed: Vec<_> = self
                .policies
                .of(&key)
                .filter(|policy| policy.name.namespace == namespace && policy.is_for(client))
                .cloned()
                .collect();
            followed.sort_by_key(|policy| (policy.created.clone(), policy.name.clone()));
            if let Some(selects) = followed.iter().find(|policy| !policy.selector.is_empty()) {
                return vec![selects.clone()];
            }
            if !followed.is_empty() {
                return followed;
            }
        }
        Vec::new()
    }

    /// All that policies say of a Service to a client: destination policies, and traffic policies, which come first.
    pub fn destination_of(&self, service: &Service, client: Option<&Client>) -> DestinationPolicies {
        let mut together = self.ruled_of(service, client);
        let target = TargetKey::service(&service.name);
        let policies = self.traffic_policies_of(&target);
        if policies.is_empty() {
            return together;
        }
        let subsets = together.subsets.iter_mut().map(|(subset, _)| &mut subset.settings);
        for settings in std::iter::once(&mut together.settings).chain(subsets) {
            for port in &service.ports {
                let change = |settings: &mut DestinationSettings| {
                    TrafficPolicy::shape(&policies, &target, &port.name, settings);
                };
                settings.change(port.number, change);
            }
        }
        together
    }

    /// What destination policies say: the settings of the first, and the parts that any of them names (Istio).
    fn ruled_of(&self, service: &Service, client: Option<&Client>) -> DestinationPolicies {
        let policies = self.policies_of(service, client);
        let Some(first) = policies.first() else { return DestinationPolicies::default() };
        let mut together = DestinationPolicies {
            settings: first.settings.clone(),
            made_by: Some(first.origin.clone()),
            subsets: Vec::new(),
        };
        for policy in &policies {
            for subset in &policy.subsets {
                if together.subsets.iter().all(|(other, _)| other.name != subset.name) {
                    together.subsets.push((subset.clone(), policy.origin.clone()));
                }
            }
        }
        together
    }

    /// Whether a client follows other policies than those that nothing is said of.
    pub fn follows_its_own(&self, service: &Service, client: &Client) -> bool {
        if self.policies.of(&service.policy_key()).all(|policy| self.is_for_all(policy)) {
            return false;
        }
        let names = |client: Option<&Client>| -> Vec<Name> {
            self.policies_of(service, client).iter().map(|policy| policy.name.clone()).collect()
        };
        names(Some(client)) != names(None)
    }

    /// Whether all clients may follow a policy. Of a ServiceEntry's host it is not known whose namespace it is.
    pub(super) fn is_for_all(&self, policy: &DestinationPolicy) -> bool {
        let is_where_all_look = policy.name.namespace == self.settings().root_namespace
            || matches!(&policy.service, ServiceRef::Name(name) if name.namespace == policy.name.namespace);
        is_where_all_look && policy.selector.is_empty() && policy.visibility == Visibility::Mesh
    }

    /// Whether clients of a Service may follow different policies.
    pub fn has_own_policies(&self, service: &Service) -> bool {
        self.policies.of(&service.policy_key()).any(|policy| !self.is_for_all(policy))
    }

    /// The names of the Services whose clients may follow different policies, there or not.
    pub fn services_with_own_policies(&self) -> impl Iterator<Item = &Name> {
        let own = self.policies.objects.values().filter(|policy| !self.is_for_all(policy));
        own.filter_map(|policy| match &policy.service {
            ServiceRef::Name(name) => Some(name),
            ServiceRef::Host(host) | ServiceRef::OtherKind(host) => self.by_host.get(host),
        })
    }

    /// Whether endpoints of a Service are not the same for callers at all places.
    pub fn depends_on_place(&self, service: &Service) -> bool {
        let said = self.destination_of(service, None);
        said.all().any(|settings| settings.locality_balancing(service).is_some())
    }
}
