//! What a client has of one type, as far as the server knows: what it accepted and rejected, what it waits for, and
//! the response that it has not answered yet.

use std::collections::{BTreeMap, BTreeSet};

use super::subscription::{Change, Subscription, Target};
use super::version::VersionOf;
use crate::ResourceType;
use crate::resource::pack;
use crate::session::{ClientFeatures, Resource, Verdict, nack, ttl};
use crate::wire::discovery::v3::{self as discovery, DiscoveryRequest, DiscoveryResponse};
use crate::wire::protobuf::Any;
use crate::wire::rpc;

#[derive(Debug)]
pub(super) struct Holdings {
    resource_type: ResourceType,
    features: ClientFeatures,
    /// A response is due even when nothing is new in it.
    must_answer: bool,
    /// The version that the client came with, until it is compared with what it should have.
    resumed: Option<String>,
    /// The version of the response that it accepted last.
    accepted_version: String,
    known: BTreeMap<String, Known>,
    outstanding: Option<Outstanding>,
    last_nonce: u64,
}

/// What the client has of one name.
#[derive(Debug, Default)]
struct Known {
    /// The version that it accepted last.
    accepted: Option<String>,
    /// The version that it rejected last, if it accepted none since. It may hold that or the accepted one: a NACK does
    /// not say which resources of a response were good.
    rejected: Option<String>,
    /// It asked for it, or asked again: send whatever it has.
    resend: bool,
}

#[derive(Debug)]
struct Outstanding {
    nonce: String,
    version: String,
    sent: BTreeMap<String, Sent>,
    /// Whether what was not sent is removed.
    is_complete: bool,
}

#[derive(Debug)]
struct Sent {
    version: String,
    /// Whether the client needed it, so that a NACK may be about it.
    is_new: bool,
}

impl Holdings {
    pub(super) fn new(resource_type: ResourceType, features: ClientFeatures) -> Holdings {
        Holdings {
            resource_type,
            features,
            must_answer: false,
            resumed: None,
            accepted_version: String::new(),
            known: BTreeMap::new(),
            outstanding: None,
            last_nonce: 0,
        }
    }

    /// Name and version of what the client accepted.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known.iter().filter_map(|(name, known)| Some((name.as_str(), known.accepted.as_deref()?)))
    }

    /// Name and version of what the client rejected and has not been replaced since.
    pub(super) fn rejected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known.iter().filter_map(|(name, known)| Some((name.as_str(), known.rejected.as_deref()?)))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    pub(super) fn may_hold(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(Known::may_be_held)
    }

    /// Whether the client is kept alive by heartbeats.
    pub(super) fn keeps_ttl(&self) -> bool {
        self.features.resource_ttl && self.features.resource_in_sotw
    }

    /// Takes in what a request says about a response.
    pub(super) fn settle(&mut self, request: &DiscoveryRequest) -> Verdict {
        let nonce = &request.response_nonce;
        let Some(outstanding) = self.outstanding.take_if(|outstanding| outstanding.nonce == *nonce) else {
            let is_current =
                nonce.is_empty() || (!self.is_waiting() && *nonce == self.last_nonce.to_string());
            return if is_current { Verdict::None } else { Verdict::Stale { nonce: nonce.clone() } };
        };
        if outstanding.is_complete {
            for (name, known) in &mut self.known {
                if !outstanding.sent.contains_key(name) {
                    *known = Known { resend: known.resend, ..Known::default() };
                }
            }
        }
        let rejected = match &request.error_detail {
            Some(status) => self.rejected_by(status, &outstanding.sent),
            None => BTreeSet::new(),
        };
        for (name, Sent { version, is_new }) in outstanding.sent {
            let is_rejected = rejected.contains(&name);
            let known = self.known.entry(name).or_default();
            if is_rejected {
                known.rejected = Some(version);
            } else if request.error_detail.is_none() || is_new {
                known.accepted = Some(version);
                known.rejected = None;
            }
        }
        self.known.retain(|_, known| known.resend || known.may_be_held());
        match &request.error_detail {
            None => {
                self.accepted_version = outstanding.version;
                Verdict::Ack
            }
            Some(status) => Verdict::Nack {
                nonce: nonce.clone(),
                message: status.message.clone(),
                names: rejected.into_iter().collect(),
            },
        }
    }

    /// The names of a response that a NACK is about: those in its details, or all that were new when these name none of them.
    fn rejected_by(&self, status: &rpc::Status, sent: &BTreeMap<String, Sent>) -> BTreeSet<String> {
        let named =
            nack::refused(self.resource_type, &status.details).into_iter().map(|refused| refused.name);
        let named: BTreeSet<String> = named.filter(|name| sent.contains_key(name)).collect();
        if !named.is_empty() {
            return named;
        }
        sent.iter().filter(|(_, sent)| sent.is_new).map(|(name, _)| name.clone()).collect()
    }

    /// Takes in what a request that `is_answer` or not says about the subscription, which is `subscription` now. Returns
    /// whether it asked for something, or no longer.
    pub(super) fn follow(
        &mut self,
        change: &Change,
        subscription: &Subscription,
        request: &DiscoveryRequest,
        is_answer: bool,
    ) -> bool {
        let presented = change.is_first && !request.version_info.is_empty();
        self.resumed = presented.then(|| request.version_info.clone());
        // A wildcard is answered even when there is nothing, so that the client knows that it has everything; and names
        // are where absence tells that they do not exist.
        let is_complete = self.resource_type.has_complete_responses();
        self.must_answer |= change.wildcard_added || (is_complete && !change.added.is_empty());
        self.must_answer &= !subscription.is_empty();
        for name in &change.added {
            self.known.entry(name.clone()).or_default().resend = true;
        }
        if !change.removed.is_empty() || change.wildcard_removed {
            self.known.retain(|name, _| subscription.covers(name));
            if let Some(outstanding) = &mut self.outstanding {
                outstanding.sent.retain(|name, _| subscription.covers(name));
            }
        }
        // The client may have dropped what the wildcard still covers.
        for name in change.removed.iter().filter(|name| subscription.covers(name)) {
            self.known.entry(name.clone()).or_default().resend = true;
        }
        let asks_again = change.is_none() && !is_answer;
        if asks_again {
            self.must_answer |= subscription.is_wildcard();
            for name in subscription.named() {
                self.known.entry(name.to_owned()).or_default();
            }
            self.known.values_mut().for_each(|known| known.resend = true);
        }
        asks_again || !change.is_none()
    }

    /// Believes the version that the client came with, when it is that of all that it should have.
    pub(super) fn resume(&mut self, target: &Target<'_>) {
        let Some(resumed) = self.resumed.take() else { return };
        let mut version = VersionOf::new();
        target.iter().for_each(|(name, resource)| version.add(name, resource.version, false));
        if version.finish() != resumed {
            return;
        }
        self.must_answer = false;
        self.accepted_version = resumed;
        for (name, resource) in target {
            let accepted = Some(resource.version.to_owned());
            self.known.insert((*name).to_owned(), Known { accepted, ..Known::default() });
        }
    }

    /// Whether the client has to be sent something of the target.
    pub(super) fn needs(&self, target: &Target<'_>) -> bool {
        self.must_answer || target.iter().any(|(name, resource)| self.needs_one(name, resource))
    }

    /// Whether the client may hold something that is not in the target, and can be told so.
    pub(super) fn has_more_than(&self, target: &Target<'_>) -> bool {
        self.resource_type.has_complete_responses()
            && self
                .known
                .iter()
                .any(|(name, known)| known.may_be_held() && !target.contains_key(name.as_str()))
    }

    fn needs_one(&self, name: &str, resource: &Resource<'_>) -> bool {
        self.known.get(name).is_none_or(|known| known.needs(resource.version))
    }

    /// The response that brings the client to the target.
    pub(super) fn respond(&mut self, target: &Target<'_>) -> DiscoveryResponse {
        let is_complete = self.resource_type.has_complete_responses();
        let (mut version, mut resources, mut sent) = (VersionOf::new(), Vec::new(), BTreeMap::new());
        for (name, resource) in target {
            let is_new = self.needs_one(name, resource);
            let is_sent = is_complete || is_new;
            let mut is_rejected = false;
            if let Some(known) = self.known.get_mut(*name) {
                is_rejected = known.rejected.is_some();
                known.resend = false;
            }
            version.add(name, resource.version, is_rejected && !is_sent);
            if is_sent {
                resources.push(self.encode(name, resource));
                sent.insert((*name).to_owned(), Sent { version: resource.version.to_owned(), is_new });
            }
        }
        self.must_answer = false;
        self.response(resources, version.finish(), sent)
    }

    /// The heartbeats of all that the client holds of the target and that has a TTL, if there is anything like it.
    pub(super) fn heartbeat(&mut self, target: &Target<'_>) -> Option<DiscoveryResponse> {
        let alive = target.iter().filter(|(name, resource)| !self.needs_one(name, resource));
        let resources: Vec<Any> = alive
            .filter_map(|(name, resource)| {
                let ttl = Some(ttl::encode(resource.ttl?));
                let (name, version) = ((*name).to_owned(), resource.version.to_owned());
                Some(pack(&discovery::Resource { name, version, ttl, ..Default::default() }))
            })
            .collect();
        let version = self.accepted_version.clone();
        (!resources.is_empty()).then(|| self.response(resources, version, BTreeMap::new()))
    }

    fn encode(&self, name: &str, resource: &Resource<'_>) -> Any {
        let content = resource.content.clone();
        match resource.ttl {
            Some(ttl) if self.keeps_ttl() => pack(&discovery::Resource {
                name: name.to_owned(),
                version: resource.version.to_owned(),
                resource: Some(content),
                ttl: Some(ttl::encode(ttl)),
                ..Default::default()
            }),
            _ => content,
        }
    }

    /// A response that waits for its answer from now on.
    fn response(
        &mut self,
        resources: Vec<Any>,
        version: String,
        sent: BTreeMap<String, Sent>,
    ) -> DiscoveryResponse {
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        let is_complete = self.resource_type.has_complete_responses();
        self.outstanding =
            Some(Outstanding { nonce: nonce.clone(), version: version.clone(), sent, is_complete });
        DiscoveryResponse {
            version_info: version,
            resources,
            type_url: self.resource_type.type_url().to_owned(),
            nonce,
            ..Default::default()
        }
    }
}

impl Known {
    /// Whether the client needs `version`.
    fn needs(&self, version: &str) -> bool {
        if self.resend {
            return true;
        }
        match &self.rejected {
            // It may have applied the rejected version in part, so also the accepted one is sent again.
            Some(rejected) => rejected != version,
            None => self.accepted.as_deref() != Some(version),
        }
    }

    fn may_be_held(&self) -> bool {
        self.accepted.is_some() || self.rejected.is_some()
    }
}
