//! The server's end of a delta session: what the client subscribed to, what it holds, and the next difference.
//!
//! One [`Server`] lives as long as its stream. At most one response is outstanding: changes that come in between
//! merge into the next one. A version that the client rejected is not sent again until it changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::ResourceType;
use crate::session::{
    ClientFeatures, InvalidRequest, Outcome, Part, Resource, Verdict, View, WILDCARD, nack, ttl,
};
use crate::wire::discovery::v3::{self as discovery, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::wire::rpc;

/// One stream's state for one resource type.
#[derive(Debug)]
pub struct Server {
    resource_type: ResourceType,
    features: ClientFeatures,
    requested: bool,
    /// Names subscribed to one by one.
    named: BTreeSet<String>,
    wildcard: bool,
    /// A wildcard subscription is answered even when there is nothing, so that the client knows it has everything.
    wildcard_unanswered: bool,
    /// What the client is known to hold or to have been told, by name.
    known: BTreeMap<String, Known>,
    outstanding: Option<Outstanding>,
    last_nonce: u64,
}

/// What the client has of one name.
#[derive(Debug, Default)]
struct Known {
    /// The version that it accepted last.
    accepted: Option<String>,
    /// The version that it rejected last, if it accepted none since. It may hold that or the accepted one: a NACK
    /// without details does not say which resources of a response were good.
    rejected: Option<String>,
    /// It was told that the name does not exist.
    told_missing: bool,
    /// It asked again, or needs it again: send whatever there is.
    resend: bool,
}

#[derive(Debug)]
struct Outstanding {
    nonce: String,
    /// Name to the version sent; `None` is a removal.
    sent: BTreeMap<String, Option<String>>,
}

impl Server {
    /// The state of a stream, of a client with `features`, on which nothing of this type was requested yet.
    pub fn new(resource_type: ResourceType, features: ClientFeatures) -> Server {
        Server {
            resource_type,
            features,
            requested: false,
            named: BTreeSet::new(),
            wildcard: false,
            wildcard_unanswered: false,
            known: BTreeMap::new(),
            outstanding: None,
            last_nonce: 0,
        }
    }

    /// The resource type of this session.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// Whether the client is subscribed to `name`, by name or by wildcard.
    pub fn is_subscribed(&self, name: &str) -> bool {
        self.wildcard || self.named.contains(name)
    }

    /// Whether the client is subscribed to everything.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names that the client subscribed to one by one.
    pub fn subscribed_names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(String::as_str)
    }

    /// Name and version of what the client accepted.
    pub fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known
            .iter()
            .filter_map(|(name, known)| known.accepted.as_deref().map(|version| (name.as_str(), version)))
    }

    /// Name and version of what the client rejected and has not been replaced since.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known
            .iter()
            .filter_map(|(name, known)| known.rejected.as_deref().map(|version| (name.as_str(), version)))
    }

    /// Whether a response waits for its ACK or NACK; until then nothing else is sent.
    pub fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Whether the client holds something that it should no longer.
    pub fn has_removals(&self, view: &impl View) -> bool {
        let mut removed = BTreeSet::new();
        self.collect_removals(view, &mut removed);
        !removed.is_empty()
    }

    /// Takes in a request. Ask for [`Server::next_response`] afterwards.
    pub fn on_request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Outcome, InvalidRequest> {
        let expected = self.resource_type.type_url();
        if request.type_url != expected {
            return Err(InvalidRequest::Type { expected, actual: request.type_url.clone() });
        }
        if !request.resource_locators_subscribe.is_empty() {
            return Err(InvalidRequest::Locator { field: "resource_locators_subscribe" });
        }
        if !request.resource_locators_unsubscribe.is_empty() {
            return Err(InvalidRequest::Locator { field: "resource_locators_unsubscribe" });
        }
        let verdict = self.verdict(request);
        let subscription_changed = self.change_subscription(request);
        Ok(Outcome { verdict, subscription_changed })
    }

    /// Forgets that the client was told of `name`, so that it is told again, whatever version it holds: for clients that need
    /// again what they have and do not ask. Whether there was something to forget.
    pub fn resend(&mut self, name: &str) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        known.resend = true;
        true
    }

    /// The difference between what the client holds and the view, or `None` when there is none to send now: nothing
    /// changed, or a response is outstanding.
    pub fn next_response(&mut self, view: &impl View, part: Part) -> Option<DeltaDiscoveryResponse> {
        if self.outstanding.is_some() {
            return None;
        }
        let mut resources = Vec::new();
        let mut removed = BTreeSet::new();
        if part != Part::Removals {
            self.collect_updates(view, &mut resources, &mut removed);
        }
        if part != Part::Updates {
            self.collect_removals(view, &mut removed);
        }
        let answers_wildcard = self.wildcard_unanswered && part != Part::Removals;
        if resources.is_empty() && removed.is_empty() && !answers_wildcard {
            return None;
        }
        self.wildcard_unanswered &= !answers_wildcard;

        let sent_versions = resources
            .iter()
            .map(|resource: &discovery::Resource| (resource.name.clone(), Some(resource.version.clone())));
        let sent: BTreeMap<String, Option<String>> =
            sent_versions.chain(removed.iter().map(|name| (name.clone(), None))).collect();
        for name in sent.keys() {
            self.known.entry(name.clone()).or_default().resend = false;
        }
        let removed_resources = removed.into_iter().collect();
        Some(DeltaDiscoveryResponse { resources, removed_resources, ..self.response(sent) })
    }

    /// A sign of life for everything that the client holds with a TTL, or `None` when there is nothing like it, the
    /// client does not keep TTLs, or a response is outstanding. The owner has the clock, and sends one well before the
    /// shortest TTL of its view is over.
    pub fn heartbeat(&mut self, view: &impl View) -> Option<DeltaDiscoveryResponse> {
        if self.outstanding.is_some() || !self.features.resource_ttl {
            return None;
        }
        let resources: Vec<discovery::Resource> = self
            .known
            .iter()
            .filter_map(|(name, known)| {
                let Resource { version, ttl, .. } = view.get(name)?;
                let ttl = ttl.filter(|_| !known.needs(version)).map(ttl::encode)?;
                let (name, version) = (name.clone(), version.to_owned());
                Some(discovery::Resource { name, version, ttl: Some(ttl), ..Default::default() })
            })
            .collect();
        (!resources.is_empty())
            .then(|| DeltaDiscoveryResponse { resources, ..self.response(BTreeMap::new()) })
    }

    /// A response that waits for its answer from now on.
    fn response(&mut self, sent: BTreeMap<String, Option<String>>) -> DeltaDiscoveryResponse {
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        self.outstanding = Some(Outstanding { nonce: nonce.clone(), sent });
        DeltaDiscoveryResponse {
            type_url: self.resource_type.type_url().to_owned(),
            nonce,
            ..Default::default()
        }
    }

    fn verdict(&mut self, request: &DeltaDiscoveryRequest) -> Verdict {
        if request.response_nonce.is_empty() {
            return Verdict::None;
        }
        let is_current = |outstanding: &mut Outstanding| outstanding.nonce == request.response_nonce;
        let Some(outstanding) = self.outstanding.take_if(is_current) else {
            return Verdict::Stale { nonce: request.response_nonce.clone() };
        };
        let rejected = match &request.error_detail {
            Some(status) => self.rejected_by(status, &outstanding.sent),
            None => BTreeSet::new(),
        };
        for (name, version) in outstanding.sent {
            // Unsubscribed in the meantime: there is nothing to remember.
            if !self.is_subscribed(&name) {
                continue;
            }
            let rejects = rejected.contains(&name);
            let known = self.known.entry(name).or_default();
            match version {
                None => {
                    *known = Known { told_missing: true, resend: known.resend, ..Known::default() };
                }
                Some(version) if rejects => {
                    known.told_missing = false;
                    known.rejected = Some(version);
                }
                Some(version) => {
                    known.told_missing = false;
                    known.rejected = None;
                    known.accepted = Some(version);
                }
            }
        }
        self.forget_unneeded();
        match &request.error_detail {
            None => Verdict::Ack,
            Some(status) => Verdict::Nack {
                nonce: request.response_nonce.clone(),
                message: status.message.clone(),
                names: rejected.into_iter().collect(),
            },
        }
    }

    /// The names of a response that a NACK is about: those in its details, or all when these name none of them.
    fn rejected_by(&self, status: &rpc::Status, sent: &BTreeMap<String, Option<String>>) -> BTreeSet<String> {
        let named =
            nack::refused(self.resource_type, &status.details).into_iter().map(|refused| refused.name);
        let named: BTreeSet<String> = named.filter(|name| sent.contains_key(name)).collect();
        if named.is_empty() { sent.keys().cloned().collect() } else { named }
    }

    fn change_subscription(&mut self, request: &DeltaDiscoveryRequest) -> bool {
        let is_first = !self.requested;
        self.requested = true;
        let subscribe = &request.resource_names_subscribe;
        let unsubscribe = &request.resource_names_unsubscribe;
        let implicit_wildcard =
            is_first && subscribe.is_empty() && self.resource_type.has_implicit_wildcard();
        if implicit_wildcard {
            self.wildcard = true;
            self.wildcard_unanswered = true;
        }
        for name in subscribe {
            if name == WILDCARD {
                self.wildcard_unanswered = true;
                self.wildcard = true;
                continue;
            }
            // A subscription to a name that the server thinks the client has means that it has dropped it.
            self.known.entry(name.clone()).or_default().resend = true;
            self.named.insert(name.clone());
        }
        if is_first {
            for (name, version) in &request.initial_resource_versions {
                if self.is_subscribed(name) {
                    let known = self.known.entry(name.clone()).or_default();
                    *known = Known { accepted: Some(version.clone()), ..Known::default() };
                }
            }
        }
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                self.wildcard_unanswered = false;
            } else if self.named.remove(name) && self.wildcard {
                // The client may have dropped what the wildcard still covers.
                self.known.entry(name.clone()).or_default().resend = true;
            }
        }
        let (named, wildcard) = (&self.named, self.wildcard);
        self.known.retain(|name, _| wildcard || named.contains(name));
        implicit_wildcard || !subscribe.is_empty() || !unsubscribe.is_empty()
    }

    /// Drops what only says "told that it is missing" of a name that was not asked for by name.
    fn forget_unneeded(&mut self) {
        let named = &self.named;
        self.known.retain(|name, known| {
            named.contains(name) || known.resend || known.accepted.is_some() || known.rejected.is_some()
        });
    }

    fn collect_updates(
        &self,
        view: &impl View,
        resources: &mut Vec<discovery::Resource>,
        missing: &mut BTreeSet<String>,
    ) {
        let wildcard_names = view.names().filter(|name| self.wildcard && !self.named.contains(*name));
        for name in wildcard_names.chain(self.named.iter().map(String::as_str)) {
            let known = self.known.get(name);
            match view.get(name) {
                Some(resource) if known.is_none_or(|known| known.needs(resource.version)) => {
                    resources.push(discovery::Resource {
                        name: name.to_owned(),
                        version: resource.version.to_owned(),
                        resource: Some(resource.content.clone()),
                        ttl: resource.ttl.filter(|_| self.features.resource_ttl).map(ttl::encode),
                        ..Default::default()
                    });
                }
                Some(_) => {}
                None if known.is_none_or(Known::has_not_heard) => {
                    missing.insert(name.to_owned());
                }
                None => {}
            }
        }
    }

    fn collect_removals(&self, view: &impl View, removed: &mut BTreeSet<String>) {
        for (name, known) in &self.known {
            let is_there = match self.named.contains(name) {
                true => view.get(name).is_some(),
                false => self.wildcard && view.is_in_wildcard(name),
            };
            if !is_there && (known.may_be_held() || known.resend) {
                removed.insert(name.clone());
            }
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

    /// Whether nothing was ever said about a name that does not exist.
    fn has_not_heard(&self) -> bool {
        self.resend || (!self.may_be_held() && !self.told_missing)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
