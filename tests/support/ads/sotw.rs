//! The state-of-the-world variant of the fake: what one stream is told.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::wire::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use outrigger_xds_api::wire::protobuf::Any;

use super::{Conduct, State, Variant, Verdict};
use crate::resources::{CLUSTER, LISTENER};

/// One stream.
#[derive(Default)]
pub(super) struct Sotw {
    next_nonce: u64,
    types: BTreeMap<String, Subscription>,
}

#[derive(Default)]
struct Subscription {
    /// `None`: all of them.
    names: Option<BTreeSet<String>>,
    /// The nonce that the proxy has yet to answer.
    open: Option<String>,
    last_nonce: String,
    /// What was sent last: name → version.
    sent: BTreeMap<String, String>,
    answered: bool,
}

impl Variant for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn take(&mut self, request: DiscoveryRequest, state: &mut State) {
        let subscription = self.types.entry(request.type_url.clone()).or_default();
        let nonce = request.response_nonce;
        if !nonce.is_empty() {
            state.verdicts.push(Verdict {
                type_url: request.type_url.clone(),
                nonce: nonce.clone(),
                error: request.error_detail.map(|detail| detail.message),
            });
            // Older than what was sent last: the proxy will say it again.
            if nonce != subscription.last_nonce {
                return;
            }
            subscription.open = None;
        }
        let is_wildcard = [LISTENER, CLUSTER].contains(&request.type_url.as_str());
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        let all = is_wildcard && (names.is_empty() || names.contains("*"));
        if !all {
            // What is wanted again later has to be sent again.
            subscription.sent.retain(|name, _| names.contains(name));
        }
        subscription.names = (!all).then_some(names);
    }

    fn next_answer(&mut self, state: &State) -> Option<DiscoveryResponse> {
        let nothing = BTreeMap::new();
        for (type_url, subscription) in &mut self.types {
            let of_type = state.resources.get(type_url).unwrap_or(&nothing);
            let wanted = |name: &str| subscription.names.as_ref().is_none_or(|names| names.contains(name));
            let wanted: Vec<_> = of_type.iter().filter(|(name, _)| wanted(name)).collect();
            let target: BTreeMap<String, String> =
                wanted.iter().map(|(name, (version, _))| ((*name).clone(), version.clone())).collect();
            // All of them is owed an answer even when there is nothing.
            let is_owed = subscription.names.is_none() && !subscription.answered;
            if subscription.open.is_some() || (target == subscription.sent && !is_owed) {
                continue;
            }
            self.next_nonce += 1;
            let nonce = format!("nonce-{}-{}", state.generation, self.next_nonce);
            subscription.open = Some(nonce.clone());
            subscription.last_nonce.clone_from(&nonce);
            subscription.sent = target;
            subscription.answered = true;
            let content = |resource: &Any| match state.conduct {
                Conduct::Garbage => Any { type_url: type_url.clone(), value: vec![0xff; 64] },
                _ => resource.clone(),
            };
            return Some(DiscoveryResponse {
                version_info: state.next_version.to_string(),
                resources: wanted.iter().map(|(_, (_, resource))| content(resource)).collect(),
                type_url: type_url.clone(),
                nonce,
                ..Default::default()
            });
        }
        None
    }
}
