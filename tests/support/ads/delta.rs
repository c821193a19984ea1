//! The incremental variant of the fake: what one stream is told.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use outrigger_xds_api::wire::protobuf::Any;

use super::{Conduct, State, Variant, Verdict};

/// One stream.
#[derive(Default)]
pub(super) struct Delta {
    next_nonce: u64,
    types: BTreeMap<String, Subscription>,
}

#[derive(Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Names whose state the proxy has yet to be told, even when nothing changed.
    owed: BTreeSet<String>,
    /// What the proxy has: name → version.
    known: BTreeMap<String, String>,
    answered: bool,
}

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn take(&mut self, request: DeltaDiscoveryRequest, state: &mut State) {
        let first = !self.types.contains_key(&request.type_url);
        if first {
            state.first_requests.push(request.clone());
        }
        if !request.response_nonce.is_empty() {
            state.verdicts.push(Verdict {
                type_url: request.type_url.clone(),
                nonce: request.response_nonce.clone(),
                error: request.error_detail.as_ref().map(|detail| detail.message.clone()),
            });
        }
        let subscription = self.types.entry(request.type_url).or_default();
        if first {
            subscription.wildcard = request.resource_names_subscribe.is_empty();
            subscription.known.extend(request.initial_resource_versions);
        }
        for name in request.resource_names_subscribe {
            if name == "*" {
                subscription.wildcard = true;
            } else {
                subscription.owed.insert(name.clone());
                subscription.names.insert(name);
            }
        }
        for name in request.resource_names_unsubscribe {
            if name == "*" {
                subscription.wildcard = false;
            }
            subscription.names.remove(&name);
            subscription.owed.remove(&name);
            subscription.known.remove(&name);
        }
    }

    fn next_answer(&mut self, state: &State) -> Option<DeltaDiscoveryResponse> {
        let nothing = BTreeMap::new();
        let due = self.types.iter_mut().find_map(|(type_url, subscription)| {
            let resources = state.resources.get(type_url).unwrap_or(&nothing);
            subscription.due(resources).map(|(changed, removed)| (type_url.clone(), changed, removed))
        });
        let (type_url, mut changed, removed_resources) = due?;
        if state.conduct == Conduct::Garbage {
            for resource in &mut changed {
                resource.resource = Some(Any { type_url: type_url.clone(), value: vec![0xff; 64] });
            }
        }
        self.next_nonce += 1;
        Some(DeltaDiscoveryResponse {
            system_version_info: state.next_version.to_string(),
            resources: changed,
            nonce: format!("nonce-{}-{}", state.generation, self.next_nonce),
            type_url,
            removed_resources,
            ..Default::default()
        })
    }
}

impl Subscription {
    /// What the proxy has to be told, and from then on it counts as told.
    fn due(&mut self, resources: &BTreeMap<String, (String, Any)>) -> Option<(Vec<Resource>, Vec<String>)> {
        let wanted = |name: &str| self.wildcard || self.names.contains(name);
        let changed: Vec<Resource> = resources
            .iter()
            .filter(|(name, (version, _))| {
                wanted(name) && (self.owed.contains(*name) || self.known.get(*name) != Some(version))
            })
            .map(|(name, (version, resource))| Resource {
                name: name.clone(),
                version: version.clone(),
                resource: Some(resource.clone()),
                ..Default::default()
            })
            .collect();
        let mut removed: Vec<String> =
            self.known.keys().filter(|name| !resources.contains_key(*name)).cloned().collect();
        removed.extend(self.owed.iter().filter(|name| !resources.contains_key(*name)).cloned());
        removed.sort();
        removed.dedup();
        // A wildcard subscription is owed one answer even when there is nothing.
        let first_of_wildcard = self.wildcard && !self.answered;
        if changed.is_empty() && removed.is_empty() && !first_of_wildcard {
            return None;
        }
        self.answered = true;
        self.owed.clear();
        self.known.extend(changed.iter().map(|resource| (resource.name.clone(), resource.version.clone())));
        self.known.retain(|name, _| !removed.contains(name));
        Some((changed, removed))
    }
}
