//! The client's end of a delta session: what it wants, what it has told the server, and what it holds.
//!
//! A [`Client`] outlives its streams: after [`Client::on_stream_closed`] the next request resumes on a new stream.

use std::collections::{BTreeMap, BTreeSet};

use crate::ResourceType;
use crate::session::received::{self, MalformedResponse, Received};
use crate::session::{WILDCARD, rejection};
use crate::wire::core::v3::Node;
use crate::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

/// The subscriptions and accepted versions of one resource type.
///
/// The owner calls [`Client::next_request`] after every change of the subscription and after opening a stream, and
/// answers every response with exactly one of [`Client::ack`], [`Client::nack`] and [`Client::nack_all`].
#[derive(Debug)]
pub struct Client {
    resource_type: ResourceType,
    /// What the owner wants; may contain [`WILDCARD`].
    desired: BTreeSet<String>,
    /// What the server was told on this stream; `None` until the stream's first request of this type.
    announced: Option<BTreeSet<String>>,
    /// Names that were subscribed to since the last request, so that a request costs what changed.
    unannounced: BTreeSet<String>,
    /// Announced names that were unsubscribed from since the last request. What was held of them is dropped, so the
    /// server has to hear of it also when they are wanted again in the meantime.
    withdrawn: BTreeSet<String>,
    /// Name to version of every resource that was accepted and is still wanted.
    held: BTreeMap<String, String>,
    /// Responses of this stream that have no answer yet, oldest first.
    unanswered: Vec<Unanswered>,
}

/// A response between its arrival and its answer.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    versions: BTreeMap<String, String>,
    removed: Vec<String>,
}

impl Client {
    /// A session that wants nothing yet, and so sends nothing.
    pub fn new(resource_type: ResourceType) -> Client {
        Client {
            resource_type,
            desired: BTreeSet::new(),
            announced: None,
            unannounced: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            held: BTreeMap::new(),
            unanswered: Vec::new(),
        }
    }

    /// The resource type of this session.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// Wants `name`; [`WILDCARD`] wants everything that the server has for this client. Returns whether that is new.
    pub fn subscribe(&mut self, name: impl Into<String>) -> bool {
        let name = name.into();
        self.unannounced.insert(name.clone());
        self.desired.insert(name)
    }

    /// No longer wants `name`. Returns what is no longer held by that; the owner drops it too.
    #[must_use = "what is no longer held has to be dropped"]
    pub fn unsubscribe(&mut self, name: &str) -> Vec<String> {
        if !self.desired.remove(name) {
            return Vec::new();
        }
        self.withdraw(name);
        if name == WILDCARD {
            return self.forget_uncovered();
        }
        // Nothing else was held by that name.
        let forgotten = if self.covers(WILDCARD) { None } else { self.held.remove_entry(name) };
        forgotten.into_iter().map(|(name, _)| name).collect()
    }

    /// Wants exactly `names`. Returns what is no longer held by that; the owner drops it too.
    #[must_use = "what is no longer held has to be dropped"]
    pub fn set_subscription(&mut self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        let before = std::mem::replace(&mut self.desired, names.into_iter().collect());
        for name in &before {
            if !self.desired.contains(name) {
                self.withdraw(name);
            }
        }
        self.unannounced = self.desired.clone();
        self.forget_uncovered()
    }

    /// Whether anything is wanted.
    pub fn wants_something(&self) -> bool {
        !self.desired.is_empty()
    }

    /// Whether `name` is wanted, by name or by wildcard.
    pub fn wants(&self, name: &str) -> bool {
        self.desired.contains(name) || self.desired.contains(WILDCARD)
    }

    /// The accepted version of `name`.
    pub fn held_version(&self, name: &str) -> Option<&str> {
        self.held.get(name).map(String::as_str)
    }

    /// Name and version of everything accepted.
    pub fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().map(|(name, version)| (name.as_str(), version.as_str()))
    }

    /// Records resources that are held already, for instance from a state file, so that the first request says so.
    /// Only what is wanted is recorded.
    pub fn restore(&mut self, name: impl Into<String>, version: impl Into<String>) {
        let name = name.into();
        if self.wants(&name) {
            self.held.insert(name, version.into());
        }
    }

    /// The next request that brings the server up to date with the subscription, or `None` when it is. Call it until
    /// it returns `None`.
    ///
    /// The first one on a stream carries `node`, the whole subscription and the versions held. Nothing is sent while
    /// nothing is wanted: an empty first request would mean a wildcard.
    pub fn next_request(&mut self, node: &Node) -> Option<DeltaDiscoveryRequest> {
        let withdrawn = std::mem::take(&mut self.withdrawn);
        let Some(announced) = &mut self.announced else {
            if self.desired.is_empty() {
                return None;
            }
            self.announced = Some(self.desired.clone());
            self.unannounced.clear();
            return Some(DeltaDiscoveryRequest {
                node: Some(node.clone()),
                resource_names_subscribe: self.desired.iter().cloned().collect(),
                initial_resource_versions: self.held.clone().into_iter().collect(),
                ..self.request()
            });
        };
        // What was withdrawn and is wanted again is unsubscribed here and subscribed by the next request.
        let subscribe: Vec<String> = self
            .unannounced
            .extract_if(.., |name| !withdrawn.contains(name))
            .filter(|name| self.desired.contains(name) && announced.insert(name.clone()))
            .collect();
        let unsubscribe: Vec<String> = withdrawn.into_iter().filter(|name| announced.remove(name)).collect();
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        Some(DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..self.request()
        })
    }

    /// Takes in a response. It must be answered, also when it is malformed.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Result<Received, MalformedResponse> {
        let DeltaDiscoveryResponse { mut resources, removed_resources, type_url, nonce, .. } = response;
        let mut removed = removed_resources;
        // A response that is delivered twice is answered twice; the server ignores the second answer.
        self.unanswered.retain(|unanswered| unanswered.nonce != nonce);
        self.unanswered.push(Unanswered {
            nonce: nonce.clone(),
            versions: BTreeMap::new(),
            removed: Vec::new(),
        });
        let expected = self.resource_type.type_url();
        if type_url != expected {
            return Err(MalformedResponse::Type { expected, actual: type_url });
        }
        let holds = |name: &str, version: &str| self.held_version(name) == Some(version);
        if self.resource_type == ResourceType::VirtualHost {
            // "There is none of these names", as VHDS also says it.
            let is_none =
                |r: &Resource| r.resource.is_none() && r.ttl.is_none() && !holds(&r.name, &r.version);
            let none: BTreeSet<String> = resources
                .extract_if(.., |resource| is_none(resource))
                .flat_map(|resource| resource.aliases.into_iter().chain([resource.name]))
                .filter(|name| !removed.contains(name))
                .collect();
            removed.extend(none);
        }
        let resources = received::check(resources, expected, holds)?;
        let mut names: BTreeSet<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
        if let Some(name) = removed.iter().find(|name| !names.insert(name.as_str())) {
            return Err(MalformedResponse::Duplicate { name: name.clone() });
        }

        let received = Received::sort(resources, nonce, |name| self.takes(name), holds);
        if let Some(unanswered) = self.unanswered.last_mut() {
            let versions = received.updated.iter();
            unanswered.versions =
                versions.map(|update| (update.name.clone(), update.version.clone())).collect();
            unanswered.removed = removed.clone();
        }
        Ok(Received { removed, ..received })
    }

    /// Accepts the response `nonce`: its versions are held from now on. `None` when there is no such response, which
    /// happens when its stream has closed.
    pub fn ack(&mut self, nonce: &str) -> Option<DeltaDiscoveryRequest> {
        self.answer(nonce, |_| true, None)
    }

    /// Rejects the resources `rejected` of the response `nonce` for the reason in `message`. They keep the version held
    /// before; the others of the response are accepted.
    pub fn nack(
        &mut self,
        nonce: &str,
        rejected: &[impl AsRef<str>],
        message: &str,
    ) -> Option<DeltaDiscoveryRequest> {
        let accepts = |name: &str| !rejected.iter().any(|rejected| rejected.as_ref() == name);
        self.answer(nonce, accepts, Some(message))
    }

    /// Rejects every resource of the response `nonce`.
    pub fn nack_all(&mut self, nonce: &str, message: &str) -> Option<DeltaDiscoveryRequest> {
        self.answer(nonce, |_| false, Some(message))
    }

    /// `name` is held no longer, because its time to live is over. It stays subscribed to: the next stream asks for it
    /// again. Returns whether it was held.
    pub fn expire(&mut self, name: &str) -> bool {
        self.held.remove(name).is_some()
    }

    /// Forgets what belongs to the stream. What is wanted and what is held stay, so that the next stream resumes.
    pub fn on_stream_closed(&mut self) {
        self.announced = None;
        self.unannounced.clear();
        self.withdrawn.clear();
        self.unanswered.clear();
    }

    /// Whether a resource that arrives now counts: it is wanted, and the server knows that. What is wanted but not
    /// announced is not taken, even if it is on its way by an older subscription, because the server would not know
    /// that it is held. It comes again after the announcement.
    fn takes(&self, name: &str) -> bool {
        let is_current = |name: &str| {
            self.announced.as_ref().is_some_and(|announced| announced.contains(name))
                && !self.withdrawn.contains(name)
        };
        self.wants(name) && (is_current(name) || is_current(WILDCARD))
    }

    fn withdraw(&mut self, name: &str) {
        if self.announced.as_ref().is_some_and(|announced| announced.contains(name)) {
            self.withdrawn.insert(name.to_owned());
        }
    }

    /// Forgets what no subscription covers all the time until the server knows of the change: there the server forgets
    /// that it is held.
    fn forget_uncovered(&mut self) -> Vec<String> {
        if self.covers(WILDCARD) {
            return Vec::new();
        }
        let forgotten: Vec<String> = self.held.keys().filter(|name| !self.covers(name)).cloned().collect();
        for name in &forgotten {
            self.held.remove(name);
        }
        forgotten
    }

    fn covers(&self, name: &str) -> bool {
        self.desired.contains(name) && !self.withdrawn.contains(name)
    }

    fn answer(
        &mut self,
        nonce: &str,
        accepts: impl Fn(&str) -> bool,
        error: Option<&str>,
    ) -> Option<DeltaDiscoveryRequest> {
        let index = self.unanswered.iter().position(|unanswered| unanswered.nonce == nonce)?;
        let unanswered = self.unanswered.remove(index);
        for name in &unanswered.removed {
            self.held.remove(name);
        }
        for (name, version) in unanswered.versions {
            if accepts(&name) && self.takes(&name) {
                self.held.insert(name, version);
            }
        }
        Some(DeltaDiscoveryRequest {
            response_nonce: unanswered.nonce,
            error_detail: error.map(rejection),
            ..self.request()
        })
    }

    fn request(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: self.resource_type.type_url().to_owned(), ..Default::default() }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
