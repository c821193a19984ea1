//! The client's end of a state-of-the-world session: what it wants, what it has told the server, and what it holds.
//!
//! A [`Client`] outlives its streams: after [`Client::on_stream_closed`] the next request resumes on a new stream.
//!
//! A server may ignore a request that its next response crosses (stale nonce), so every answer says the whole
//! subscription again. The one thing that this cannot say is that a resource was dropped and is wanted again: a name has
//! to be left out of one request that counts, and named by the next.

use std::collections::BTreeSet;

use super::announced::Announced;
use crate::ResourceType;
use crate::resource::{message_name, name_of, unpack};
use crate::session::received::{self, MalformedResponse, Received};
use crate::session::{WILDCARD, rejection};
use crate::wire::core::v3::Node;
use crate::wire::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};
use crate::wire::protobuf::Any;

/// The message that may be around a resource.
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";

/// The subscription and accepted version of one resource type.
///
/// The owner calls [`Client::next_request`] after every change of the subscription, after opening a stream and after every
/// answer, and answers every response with exactly one of [`Client::ack`], [`Client::nack`] and [`Client::nack_all`].
#[derive(Debug)]
pub struct Client {
    resource_type: ResourceType,
    /// What the owner wants; may contain [`WILDCARD`].
    desired: BTreeSet<String>,
    /// What the server was told on this stream; `None` until the stream's first request of this type.
    announced: Option<Announced>,
    /// Announced names that were unsubscribed from since the last request. What was held of them is dropped, so the
    /// server has to hear of it also when they are wanted again in the meantime.
    withdrawn: BTreeSet<String>,
    /// Withdrawn names that a request has left out since the last answer. Should a response cross that request, it may
    /// not have counted.
    left_out: BTreeSet<String>,
    /// Names of the resources that were accepted and are still wanted.
    held: BTreeSet<String>,
    /// The version of the last response that was accepted as a whole.
    version: String,
    /// Whether what is held is what `version` stands for, so that a new stream may begin with it.
    is_resumable: bool,
    /// Whether something was withdrawn or dropped since the last answer: responses may still count it in.
    has_dropped: bool,
    /// What was dropped without telling the server, until it comes again.
    expired: BTreeSet<String>,
    /// Responses of this stream that have no answer yet, oldest first.
    unanswered: Vec<Unanswered>,
}

/// A response between its arrival and its answer.
#[derive(Debug, Default)]
struct Unanswered {
    nonce: String,
    version: String,
    updated: Vec<String>,
    removed: Vec<String>,
    /// It has nothing but heartbeats, and so is no state.
    is_heartbeat: bool,
}

impl Client {
    /// A session that wants nothing yet, and so sends nothing.
    pub fn new(resource_type: ResourceType) -> Client {
        Client {
            resource_type,
            desired: BTreeSet::new(),
            announced: None,
            withdrawn: BTreeSet::new(),
            left_out: BTreeSet::new(),
            held: BTreeSet::new(),
            version: String::new(),
            is_resumable: true,
            has_dropped: false,
            expired: BTreeSet::new(),
            unanswered: Vec::new(),
        }
    }

    /// The resource type of this session.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// Wants `name`; [`WILDCARD`] wants everything that the server has for this client. Returns whether that is new.
    pub fn subscribe(&mut self, name: impl Into<String>) -> bool {
        self.desired.insert(name.into())
    }

    /// No longer wants `name`. Returns what is no longer held by that; the owner drops it too.
    #[must_use = "what is no longer held has to be dropped"]
    pub fn unsubscribe(&mut self, name: &str) -> Vec<String> {
        if self.desired.remove(name) {
            self.withdraw(name);
        }
        self.forget_uncovered()
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

    /// The names of everything accepted.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        self.held.iter().map(String::as_str)
    }

    /// The version of the last response that was accepted as a whole; empty before the first.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Records that all of `version` is held already, for instance from a state file, so that the first request says
    /// so. To be called once the subscription is set.
    pub fn restore(&mut self, version: impl Into<String>, names: impl IntoIterator<Item = String>) {
        self.version = version.into();
        let names: BTreeSet<String> = names.into_iter().collect();
        self.is_resumable = names.iter().all(|name| self.wants(name));
        self.held = names.into_iter().filter(|name| self.wants(name)).collect();
    }

    /// The next request that brings the server up to date with the subscription, or `None` when it is. Call it until
    /// it returns `None`.
    ///
    /// The first one on a stream carries `node`, and the version that is held. Nothing is sent while nothing is wanted:
    /// an empty first request would mean a wildcard.
    pub fn next_request(&mut self, node: &Node) -> Option<DiscoveryRequest> {
        let Some(announced) = &mut self.announced else {
            if self.desired.is_empty() {
                return None;
            }
            let mut announced = Announced::new(self.resource_type);
            let resource_names = announced.say(self.desired.clone());
            self.announced = Some(announced);
            self.has_dropped = false;
            // Without a version everything comes again, also what has expired.
            let lacks = std::mem::take(&mut self.expired).iter().any(|name| self.wants(name));
            self.is_resumable &= !lacks;
            let version_info = if self.is_resumable { self.version.clone() } else { String::new() };
            return Some(DiscoveryRequest {
                node: Some(node.clone()),
                version_info,
                resource_names,
                ..self.request()
            });
        };
        // What was withdrawn and is wanted again is left out here and named by the next request.
        let names: BTreeSet<String> = self.desired.difference(&self.withdrawn).cloned().collect();
        if names == announced.names {
            return None;
        }
        let resource_names = if announced.can_say(&names) {
            self.left_out.extend(std::mem::take(&mut self.withdrawn));
            announced.say(names)
        } else {
            announced.say_wildcard()
        };
        Some(DiscoveryRequest { resource_names, ..self.request() })
    }

    /// Takes in a response. It must be answered, also when it is malformed.
    pub fn on_response(&mut self, response: DiscoveryResponse) -> Result<Received, MalformedResponse> {
        let DiscoveryResponse { version_info: version, resources, type_url, nonce, .. } = response;
        self.unanswered.retain(|unanswered| unanswered.nonce != nonce);
        self.unanswered.push(Unanswered {
            nonce: nonce.clone(),
            version: version.clone(),
            ..Unanswered::default()
        });
        let expected = self.resource_type.type_url();
        if type_url != expected {
            return Err(MalformedResponse::Type { expected, actual: type_url });
        }
        let resources: Vec<Resource> = resources
            .into_iter()
            .enumerate()
            .map(|(index, any)| unwrap(index, any, &version))
            .collect::<Result<_, _>>()?;
        // A heartbeat is about the version of the whole type.
        let holds = |name: &str, _: &str| version == self.version && self.held.contains(name);
        let resources = received::check(resources, expected, holds)?;

        let is_heartbeat =
            !resources.is_empty() && resources.iter().all(|resource| resource.content.is_none());
        let removed: Vec<String> = if self.resource_type.has_complete_responses() && !is_heartbeat {
            let names: BTreeSet<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
            self.held.iter().filter(|name| !names.contains(name.as_str())).cloned().collect()
        } else {
            Vec::new()
        };
        let received = Received::sort(resources, nonce, |name| self.wants(name), holds);
        if let Some(unanswered) = self.unanswered.last_mut() {
            unanswered.updated = received.updated.iter().map(|update| update.name.clone()).collect();
            unanswered.removed = removed.clone();
            unanswered.is_heartbeat = is_heartbeat;
        }
        Ok(Received { removed, ..received })
    }

    /// Accepts the response `nonce`: its version is held from now on. `None` when there is no such response, which
    /// happens when its stream has closed.
    pub fn ack(&mut self, nonce: &str) -> Option<DiscoveryRequest> {
        self.answer(nonce, |_| true, None)
    }

    /// Rejects the resources `rejected` of the response `nonce` for the reason in `message`. They stay as they were
    /// before; the others of the response are accepted, but not its version.
    pub fn nack(
        &mut self,
        nonce: &str,
        rejected: &[impl AsRef<str>],
        message: &str,
    ) -> Option<DiscoveryRequest> {
        let accepts = |name: &str| !rejected.iter().any(|rejected| rejected.as_ref() == name);
        self.answer(nonce, accepts, Some(message))
    }

    /// Rejects every resource of the response `nonce`.
    pub fn nack_all(&mut self, nonce: &str, message: &str) -> Option<DiscoveryRequest> {
        self.answer(nonce, |_| false, Some(message))
    }

    /// `name` is held no longer, because its time to live is over. It stays subscribed to: the next stream asks for it
    /// again. Returns whether it was held.
    pub fn expire(&mut self, name: &str) -> bool {
        let was_held = self.held.remove(name);
        if was_held {
            self.expired.insert(name.to_owned());
        }
        was_held
    }

    /// Forgets what belongs to the stream. What is wanted and what is held stay, so that the next stream resumes.
    pub fn on_stream_closed(&mut self) {
        self.announced = None;
        self.withdrawn.clear();
        self.left_out.clear();
        self.unanswered.clear();
    }

    fn withdraw(&mut self, name: &str) {
        if self.announced.as_ref().is_some_and(|announced| announced.names.contains(name)) {
            self.withdrawn.insert(name.to_owned());
            self.note_dropped();
        }
    }

    /// Something is not held that the server's versions may count in.
    fn note_dropped(&mut self) {
        self.is_resumable = false;
        self.has_dropped = true;
    }

    /// Forgets what no subscription covers all the time until the server knows of the change: there the server forgets
    /// that it is held.
    fn forget_uncovered(&mut self) -> Vec<String> {
        let covers = |name: &str| self.desired.contains(name) && !self.withdrawn.contains(name);
        if covers(WILDCARD) {
            return Vec::new();
        }
        let forgotten: Vec<String> = self.held.iter().filter(|name| !covers(name)).cloned().collect();
        for name in &forgotten {
            self.held.remove(name);
        }
        let expired = self.expired.extract_if(.., |name| !covers(name)).count();
        if !forgotten.is_empty() || expired > 0 {
            self.note_dropped();
        }
        forgotten
    }

    fn answer(
        &mut self,
        nonce: &str,
        accepts: impl Fn(&str) -> bool,
        error: Option<&str>,
    ) -> Option<DiscoveryRequest> {
        let index = self.unanswered.iter().position(|unanswered| unanswered.nonce == nonce)?;
        let announced = self.announced.as_mut()?;
        let Unanswered { nonce, version, updated, removed, is_heartbeat } = self.unanswered.remove(index);
        // What came is no longer missing. A complete response has everything that the server counts in.
        let is_complete = self.resource_type.has_complete_responses();
        self.left_out.retain(|name| !is_complete && !updated.contains(name));

        let mut changes = !removed.is_empty();
        for name in &removed {
            self.held.remove(name);
        }
        for name in updated {
            if accepts(&name) && (self.desired.contains(&name) || self.desired.contains(WILDCARD)) {
                changes = true;
                self.expired.remove(&name);
                self.held.insert(name);
            }
        }
        // Until the server has heard what was dropped, its versions may count that in. A response that is delivered
        // twice is none that was made after the first answer.
        let counts_dropped = std::mem::take(&mut self.has_dropped);
        let is_repeated = announced.nonce == nonce;
        if error.is_some() {
            self.is_resumable &= !changes;
        } else if !is_heartbeat && !is_repeated {
            self.version = version;
            self.is_resumable = !counts_dropped;
        }

        announced.nonce = nonce;
        let missing: BTreeSet<String> = self.withdrawn.union(&self.left_out).cloned().collect();
        let mut names: BTreeSet<String> = self.desired.difference(&missing).cloned().collect();
        if announced.can_say(&names) {
            self.withdrawn.clear();
            self.left_out.clear();
        } else {
            names = announced.names.clone();
        }
        let resource_names = announced.say(names);
        Some(DiscoveryRequest { resource_names, error_detail: error.map(rejection), ..self.request() })
    }

    fn request(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version.clone(),
            type_url: self.resource_type.type_url().to_owned(),
            response_nonce: self
                .announced
                .as_ref()
                .map(|announced| announced.nonce.clone())
                .unwrap_or_default(),
            ..Default::default()
        }
    }
}

/// A resource out of its wrapper, if it has one. One without has neither a version of its own nor a TTL.
fn unwrap(index: usize, any: Any, version: &str) -> Result<Resource, MalformedResponse> {
    let undecodable = |error: crate::resource::UnpackError| MalformedResponse::Undecodable {
        index,
        reason: error.to_string(),
    };
    let mut resource = if message_name(&any.type_url) == WRAPPER {
        unpack::<Resource>(&any).map_err(undecodable)?
    } else {
        Resource { resource: Some(any), ..Resource::default() }
    };
    if let (true, Some(content)) = (resource.name.is_empty(), &resource.resource) {
        resource.name = name_of(content).map_err(undecodable)?;
    }
    if resource.version.is_empty() {
        resource.version = version.to_owned();
    }
    Ok(resource)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
