//! The client's end of a delta session: what it wants, what it has told the server, and what it holds.
//!
//! A [`Client`] outlives its streams: after [`Client::on_stream_closed`] the next request resumes on a new stream.

use std::collections::{BTreeMap, BTreeSet};

use crate::ResourceType;
use crate::session::WILDCARD;
use crate::wire::core::v3::Node;
use crate::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use crate::wire::rpc;

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

/// What a response brought. Answer it by its nonce once it is applied.
#[derive(Debug, PartialEq)]
pub struct Received<'a> {
    /// New or changed resources. One that was unsubscribed from in the meantime is left out.
    pub updated: Vec<&'a Resource>,
    /// Names that do not exist, or no longer.
    pub removed: Vec<&'a str>,
    /// What the answer refers to.
    pub nonce: &'a str,
}

/// A response that breaks the protocol. It is to be rejected with [`Client::nack_all`] and this as the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedResponse {
    /// The response is about another type than this session.
    #[error("response has type {actual:?}, expected {expected}")]
    Type {
        /// The type URL of this session.
        expected: &'static str,
        /// The type URL found.
        actual: String,
    },
    /// A resource has no name.
    #[error("resource {index} of the response has no name")]
    Unnamed {
        /// Its position in `resources`.
        index: usize,
    },
    /// The same name occurs twice, among the resources or in both lists.
    #[error("duplicate name {name:?} in the response")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A resource's content has another type than the response.
    #[error("resource {name:?} has type {actual:?}, expected {expected}")]
    ResourceType {
        /// The resource's name.
        name: String,
        /// The type URL of this session.
        expected: &'static str,
        /// The type URL found, empty when there is no content.
        actual: String,
    },
}

impl Client {
    /// A session that wants nothing yet, and so sends nothing.
    pub fn new(resource_type: ResourceType) -> Client {
        Client {
            resource_type,
            desired: BTreeSet::new(),
            announced: None,
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
            return Some(DeltaDiscoveryRequest {
                node: Some(node.clone()),
                resource_names_subscribe: self.desired.iter().cloned().collect(),
                initial_resource_versions: self.held.clone().into_iter().collect(),
                ..self.request()
            });
        };
        // What was withdrawn and is wanted again is unsubscribed here and subscribed by the next request.
        let unsubscribe: Vec<String> =
            announced.iter().filter(|name| withdrawn.contains(*name)).cloned().collect();
        let subscribe: Vec<String> = self.desired.difference(announced).cloned().collect();
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        announced.retain(|name| !withdrawn.contains(name));
        announced.extend(subscribe.iter().cloned());
        Some(DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..self.request()
        })
    }

    /// Takes in a response. It must be answered, also when it is malformed.
    pub fn on_response<'a>(
        &mut self,
        response: &'a DeltaDiscoveryResponse,
    ) -> Result<Received<'a>, MalformedResponse> {
        // A response that is delivered twice is answered twice; the server ignores the second answer.
        self.unanswered.retain(|unanswered| unanswered.nonce != response.nonce);
        self.unanswered.push(Unanswered {
            nonce: response.nonce.clone(),
            versions: BTreeMap::new(),
            removed: Vec::new(),
        });
        self.check(response)?;

        let updated: Vec<&Resource> =
            response.resources.iter().filter(|resource| self.takes(&resource.name)).collect();
        if let Some(unanswered) = self.unanswered.last_mut() {
            unanswered.versions =
                updated.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
            unanswered.removed = response.removed_resources.clone();
        }
        Ok(Received {
            updated,
            removed: response.removed_resources.iter().map(String::as_str).collect(),
            nonce: &response.nonce,
        })
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

    /// Forgets what belongs to the stream. What is wanted and what is held stay, so that the next stream resumes.
    pub fn on_stream_closed(&mut self) {
        self.announced = None;
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
        let covers = |name: &str| self.desired.contains(name) && !self.withdrawn.contains(name);
        if covers(WILDCARD) {
            return Vec::new();
        }
        let forgotten: Vec<String> = self.held.keys().filter(|name| !covers(name)).cloned().collect();
        for name in &forgotten {
            self.held.remove(name);
        }
        forgotten
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
            error_detail: error.map(|message| rpc::Status {
                code: rpc::Code::InvalidArgument as i32,
                message: message.to_owned(),
                details: Vec::new(),
            }),
            ..self.request()
        })
    }

    fn check(&self, response: &DeltaDiscoveryResponse) -> Result<(), MalformedResponse> {
        let expected = self.resource_type.type_url();
        if response.type_url != expected {
            return Err(MalformedResponse::Type { expected, actual: response.type_url.clone() });
        }
        let mut names = BTreeSet::new();
        for (index, resource) in response.resources.iter().enumerate() {
            if resource.name.is_empty() {
                return Err(MalformedResponse::Unnamed { index });
            }
            if !names.insert(resource.name.as_str()) {
                return Err(MalformedResponse::Duplicate { name: resource.name.clone() });
            }
            let actual = resource.resource.as_ref().map(|any| any.type_url.as_str()).unwrap_or_default();
            if actual != expected {
                return Err(MalformedResponse::ResourceType {
                    name: resource.name.clone(),
                    expected,
                    actual: actual.to_owned(),
                });
            }
        }
        match response.removed_resources.iter().find(|name| !names.insert(name.as_str())) {
            Some(name) => Err(MalformedResponse::Duplicate { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn request(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: self.resource_type.type_url().to_owned(), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::wire::protobuf::Any;

    const TYPE: ResourceType = ResourceType::Cluster;

    fn node() -> Node {
        Node { id: "node".to_owned(), ..Default::default() }
    }

    fn response(nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
        let resources = resources.iter().map(|(name, version)| Resource {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            resource: Some(Any { type_url: TYPE.type_url().to_owned(), value: Vec::new() }),
            ..Default::default()
        });
        DeltaDiscoveryResponse {
            nonce: nonce.to_owned(),
            type_url: TYPE.type_url().to_owned(),
            resources: resources.collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn subscribed(names: &[&str]) -> Client {
        let mut client = Client::new(TYPE);
        let _ = client.set_subscription(names.iter().map(|name| (*name).to_owned()));
        client.next_request(&node());
        client
    }

    #[test]
    fn sends_nothing_until_something_is_wanted() {
        let mut client = Client::new(TYPE);
        assert_eq!(client.next_request(&node()), None);
        client.subscribe("a");
        let first = client.next_request(&node()).unwrap();
        assert_eq!(first.node, Some(node()));
        assert_eq!(first.type_url, TYPE.type_url());
        assert_eq!(first.resource_names_subscribe, ["a"]);
        assert!(first.initial_resource_versions.is_empty());
        assert_eq!(client.next_request(&node()), None, "nothing new to say");
    }

    #[test]
    fn later_requests_carry_the_difference_only() {
        let mut client = subscribed(&["a", "b"]);
        client.subscribe("c");
        let _ = client.unsubscribe("a");
        let request = client.next_request(&node()).unwrap();
        assert_eq!(request.node, None);
        assert_eq!(request.resource_names_subscribe, ["c"]);
        assert_eq!(request.resource_names_unsubscribe, ["a"]);
        let _ = client.unsubscribe("b");
        let _ = client.unsubscribe("c");
        assert_eq!(client.next_request(&node()).unwrap().resource_names_unsubscribe, ["b", "c"]);
    }

    #[test]
    fn what_is_dropped_and_wanted_again_is_subscribed_afresh() {
        let mut client = subscribed(&["a", "*"]);
        for name in ["a", "*"] {
            let _ = client.unsubscribe(name);
            client.subscribe(name);
            assert_eq!(client.next_request(&node()).unwrap().resource_names_unsubscribe, [name]);
            assert_eq!(client.next_request(&node()).unwrap().resource_names_subscribe, [name]);
            assert_eq!(client.next_request(&node()), None);
        }
    }

    #[test]
    fn ack_holds_the_versions_and_a_reconnect_reports_them() {
        let mut client = subscribed(&["a", "b"]);
        let response = response("1", &[("a", "v1")], &["b"]);
        let received = client.on_response(&response).unwrap();
        assert_eq!(received.updated.len(), 1);
        assert_eq!(received.removed, ["b"]);
        assert_eq!(client.held_version("a"), None, "not before it is accepted");
        let ack = client.ack("1").unwrap();
        assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));
        assert_eq!(client.held_version("a"), Some("v1"));

        client.on_stream_closed();
        let first = client.next_request(&node()).unwrap();
        assert_eq!(first.resource_names_subscribe, ["a", "b"]);
        assert_eq!(first.initial_resource_versions, [("a".to_owned(), "v1".to_owned())].into());
        assert_eq!(first.response_nonce, "");
    }

    #[test]
    fn nack_keeps_the_old_version_of_the_rejected_only() {
        let mut client = subscribed(&["*"]);
        client.on_response(&response("1", &[("a", "v1"), ("b", "v1"), ("c", "v1")], &[])).unwrap();
        client.ack("1").unwrap();
        client.on_response(&response("2", &[("a", "v2"), ("b", "v2")], &["c"])).unwrap();
        let nack = client.nack("2", &["a"], "a: bad").unwrap();
        let status = nack.error_detail.unwrap();
        assert_eq!((status.code, status.message.as_str()), (3, "a: bad"));
        assert_eq!(nack.response_nonce, "2");
        assert_eq!(client.held().collect::<Vec<_>>(), [("a", "v1"), ("b", "v2")]);
        client.on_response(&response("3", &[("a", "v3"), ("b", "v3")], &[])).unwrap();
        client.nack_all("3", "bad").unwrap();
        assert_eq!(client.held().collect::<Vec<_>>(), [("a", "v1"), ("b", "v2")]);
    }

    #[test]
    fn what_was_unsubscribed_from_in_the_meantime_is_ignored() {
        let mut client = subscribed(&["a", "b"]);
        let _ = client.unsubscribe("a");
        let both = response("1", &[("a", "v1"), ("b", "v1")], &[]);
        let received = client.on_response(&both).unwrap();
        assert_eq!(received.updated.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), ["b"]);
        let _ = client.unsubscribe("b");
        assert!(client.ack("1").is_some(), "it is still answered");
        assert_eq!(client.held().count(), 0);
    }

    #[test]
    fn unsubscribing_tells_what_is_to_be_dropped() {
        let mut client = subscribed(&["a", "*"]);
        client.on_response(&response("1", &[("a", "v1"), ("b", "v1"), ("c", "v1")], &[])).unwrap();
        client.ack("1").unwrap();
        assert!(client.unsubscribe("never").is_empty());
        assert_eq!(client.unsubscribe("*"), ["b", "c"]);
        client.subscribe("*");
        assert_eq!(
            client.unsubscribe("a"),
            ["a"],
            "the server forgets it before it hears of the new wildcard"
        );
        assert_eq!(client.held().count(), 0);
    }

    #[test]
    fn answers_to_a_closed_stream_are_dropped() {
        let mut client = subscribed(&["a"]);
        client.on_response(&response("1", &[("a", "v1")], &[])).unwrap();
        client.on_stream_closed();
        assert_eq!(client.ack("1"), None);
        assert_eq!(client.held().count(), 0);
    }

    #[test]
    fn restored_versions_are_reported() {
        let mut client = Client::new(TYPE);
        client.subscribe(WILDCARD);
        client.restore("a", "v1");
        let first = client.next_request(&node()).unwrap();
        assert_eq!(first.initial_resource_versions["a"], "v1");
    }

    #[test]
    fn malformed_responses_are_told_and_can_be_rejected() {
        let mut wrong_type = response("1", &[], &[]);
        wrong_type.type_url = ResourceType::Listener.type_url().to_owned();
        let mut wrong_content = response("1", &[("a", "v1")], &[]);
        wrong_content.resources[0].resource = None;
        let cases = [
            (wrong_type, "response has type"),
            (wrong_content, "resource \"a\" has type \"\""),
            (response("1", &[("", "v1")], &[]), "resource 0 of the response has no name"),
            (response("1", &[("a", "v1"), ("a", "v2")], &[]), "duplicate name \"a\""),
            (response("1", &[("a", "v1")], &["a"]), "duplicate name \"a\""),
        ];
        for (response, reason) in cases {
            let mut client = subscribed(&["*"]);
            let error = client.on_response(&response).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
            let nack = client.nack_all("1", &error).unwrap();
            assert_eq!(nack.error_detail.unwrap().message, error);
            assert_eq!(client.held().count(), 0);
        }
    }
}
