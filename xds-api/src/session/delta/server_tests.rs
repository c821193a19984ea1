//! Unit tests of the server's end, one rule of the protocol each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::session::nack::{self, Refused};
use crate::wire::protobuf::Any;
use crate::wire::rpc::Status;

const TYPE: ResourceType = ResourceType::Cluster;

/// A view over a list of (name, version). Names that end in `!` have a TTL.
#[derive(Default)]
pub(super) struct Resources(BTreeMap<String, (String, Any)>);

impl Resources {
    fn of(resources: &[(&str, &str)]) -> Resources {
        let content = Any { type_url: TYPE.type_url().to_owned(), value: Vec::new() };
        Resources(
            resources
                .iter()
                .map(|(name, version)| ((*name).to_owned(), ((*version).to_owned(), content.clone())))
                .collect(),
        )
    }
}

impl View for Resources {
    fn get(&self, name: &str) -> Option<Resource<'_>> {
        let ttl = name.ends_with('!').then_some(Duration::from_secs(5));
        self.0.get(name).map(|(version, content)| Resource { version, content, ttl })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn request_of(resource_type: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: resource_type.type_url().to_owned(), ..Default::default() }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_subscribe: owned(names), ..request_of(TYPE) }
}

fn unsubscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_unsubscribe: owned(names), ..request_of(TYPE) }
}

fn resume(names: &[&str], held: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let held = held.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
    DeltaDiscoveryRequest { initial_resource_versions: held.collect(), ..subscribe(names) }
}

fn ack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..request_of(TYPE) }
}

fn nack(nonce: &str, message: &str) -> DeltaDiscoveryRequest {
    let status = Status { code: 3, message: message.to_owned(), details: vec![] };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ack(nonce) }
}

/// The names and versions, the removals and the nonce of the next response.
type Sent = (Vec<(String, String)>, Vec<String>, String);

fn send_part(server: &mut Server, view: &Resources, part: Part) -> Option<Sent> {
    let response = server.next_response(view, part)?;
    assert_eq!(response.type_url, TYPE.type_url());
    let resources = response.resources.into_iter().map(|resource| {
        assert!(resource.resource.is_some());
        (resource.name, resource.version)
    });
    Some((resources.collect(), response.removed_resources, response.nonce))
}

fn send(server: &mut Server, view: &Resources) -> Option<Sent> {
    send_part(server, view, Part::All)
}

fn sent(resources: &[(&str, &str)], removed: &[&str], nonce: &str) -> Option<Sent> {
    let resources = resources.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
    Some((resources.collect(), owned(removed), nonce.to_owned()))
}

fn server_with(request: DeltaDiscoveryRequest) -> Server {
    let mut server = Server::new(TYPE, ClientFeatures::default());
    server.on_request(&request).unwrap();
    server
}

#[test]
fn named_subscription_gets_what_exists_and_is_told_what_does_not() {
    let mut server = server_with(subscribe(&["a", "x"]));
    let view = Resources::of(&[("a", "1"), ("b", "1")]);
    assert_eq!(send(&mut server, &view), sent(&[("a", "1")], &["x"], "1"));
    assert_eq!(send(&mut server, &view), None, "one outstanding");
    assert!(server.is_waiting());
    let outcome = server.on_request(&ack("1")).unwrap();
    assert_eq!(outcome, Outcome { verdict: Verdict::Ack, subscription_changed: false });
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    assert_eq!(send(&mut server, &view), None, "nothing changed");
    let view = Resources::of(&[("a", "1"), ("x", "7")]);
    assert_eq!(send(&mut server, &view), sent(&[("x", "7")], &[], "2"), "it appeared");
}

#[test]
fn what_a_client_needs_again_is_sent_again_once() {
    let mut server = server_with(subscribe(&["a", "b", "x"]));
    let view = Resources::of(&[("a", "1"), ("b", "1"), ("c", "1")]);
    assert_eq!(send(&mut server, &view), sent(&[("a", "1"), ("b", "1")], &["x"], "1"));
    assert!(server.resend("a"), "it may be underway");
    assert!(!server.resend("c"), "nobody was told of it");
    server.on_request(&ack("1")).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[("a", "1")], &[], "2"));
    server.on_request(&ack("2")).unwrap();
    assert_eq!(send(&mut server, &view), None);
    assert!(server.resend("b") && server.resend("x"), "that it does not exist is told again too");
    assert_eq!(send(&mut server, &view), sent(&[("b", "1")], &["x"], "3"));
}

#[test]
fn wildcard_gets_everything_and_only_the_difference_afterwards() {
    for first in [subscribe(&["*"]), subscribe(&[])] {
        let mut server = server_with(first);
        assert!(server.is_wildcard());
        let view = Resources::of(&[("a", "1"), ("b", "1")]);
        assert_eq!(send(&mut server, &view), sent(&[("a", "1"), ("b", "1")], &[], "1"));
        server.on_request(&ack("1")).unwrap();
        let view = Resources::of(&[("b", "2"), ("c", "1")]);
        assert_eq!(send(&mut server, &view), sent(&[("b", "2"), ("c", "1")], &["a"], "2"));
        server.on_request(&ack("2")).unwrap();
        assert_eq!(send(&mut server, &view), None);
    }
}

#[test]
fn an_empty_first_request_is_no_wildcard_for_types_without_one() {
    let mut server = Server::new(ResourceType::ClusterLoadAssignment, ClientFeatures::default());
    let outcome = server.on_request(&request_of(ResourceType::ClusterLoadAssignment)).unwrap();
    assert!(!server.is_wildcard());
    assert!(!outcome.subscription_changed);
}

#[test]
fn an_empty_wildcard_is_answered_once() {
    let mut server = server_with(subscribe(&["*"]));
    let view = Resources::default();
    assert_eq!(send(&mut server, &view), sent(&[], &[], "1"));
    server.on_request(&ack("1")).unwrap();
    assert_eq!(send(&mut server, &view), None);
}

#[test]
fn changes_merge_while_a_response_is_outstanding() {
    let mut server = server_with(subscribe(&["*"]));
    send(&mut server, &Resources::of(&[("a", "1")]));
    assert_eq!(send(&mut server, &Resources::of(&[("a", "2")])), None);
    assert_eq!(send(&mut server, &Resources::of(&[("a", "3")])), None);
    server.on_request(&ack("1")).unwrap();
    assert_eq!(send(&mut server, &Resources::of(&[("a", "3")])), sent(&[("a", "3")], &[], "2"));
}

#[test]
fn a_rejected_version_is_not_sent_again_until_it_changes() {
    let mut server = server_with(subscribe(&["*"]));
    send(&mut server, &Resources::of(&[("a", "1")]));
    server.on_request(&ack("1")).unwrap();
    send(&mut server, &Resources::of(&[("a", "2")]));
    let outcome = server.on_request(&nack("2", "bad")).unwrap();
    let verdict = Verdict::Nack { nonce: "2".to_owned(), message: "bad".to_owned(), names: owned(&["a"]) };
    assert_eq!(outcome.verdict, verdict);
    assert_eq!(server.rejected().collect::<Vec<_>>(), [("a", "2")]);
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    assert_eq!(send(&mut server, &Resources::of(&[("a", "2")])), None);
    // The old version again: a NACK does not say that the client did not apply `a`.
    assert_eq!(send(&mut server, &Resources::of(&[("a", "1")])), sent(&[("a", "1")], &[], "3"));
    server.on_request(&ack("3")).unwrap();
    assert_eq!(server.rejected().count(), 0);
}

#[test]
fn details_of_a_nack_say_which_resources_were_good() {
    let mut server = server_with(subscribe(&["*"]));
    let all = Resources::of(&[("a", "1"), ("b", "1")]);
    send(&mut server, &all);
    let refusing = |nonce: &str, name: &str| {
        let mut request = nack(nonce, "bad");
        let refused = Refused { name: name.to_owned(), ..Refused::default() };
        request.error_detail.as_mut().unwrap().details = nack::details(TYPE, [refused]);
        request
    };
    let outcome = server.on_request(&refusing("1", "b")).unwrap();
    assert!(matches!(outcome.verdict, Verdict::Nack { names, .. } if names == ["b"]));
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    assert_eq!(server.rejected().collect::<Vec<_>>(), [("b", "1")]);
    assert_eq!(send(&mut server, &all), None);
    // Details about something else name nobody, so all may be meant.
    send(&mut server, &Resources::of(&[("a", "2"), ("b", "2")]));
    server.on_request(&refusing("2", "x")).unwrap();
    assert_eq!(server.rejected().collect::<Vec<_>>(), [("a", "2"), ("b", "2")]);
}

#[test]
fn a_rejected_resource_that_goes_away_is_removed() {
    let mut server = server_with(subscribe(&["*"]));
    send(&mut server, &Resources::of(&[("a", "1")]));
    server.on_request(&nack("1", "bad")).unwrap();
    assert_eq!(send(&mut server, &Resources::default()), sent(&[], &["a"], "2"));
    server.on_request(&nack("2", "removals cannot be rejected")).unwrap();
    assert_eq!(send(&mut server, &Resources::default()), None);
}

#[test]
fn stale_nonces_change_nothing_but_their_subscription_counts() {
    let mut server = server_with(subscribe(&["a"]));
    let view = Resources::of(&[("a", "1"), ("b", "1")]);
    send(&mut server, &view);
    let late = DeltaDiscoveryRequest { resource_names_subscribe: owned(&["b"]), ..nack("0", "old") };
    let outcome = server.on_request(&late).unwrap();
    let verdict = Verdict::Stale { nonce: "0".to_owned() };
    assert_eq!(outcome, Outcome { verdict, subscription_changed: true });
    assert!(server.is_waiting());
    server.on_request(&ack("1")).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[("b", "1")], &[], "2"));
    server.on_request(&ack("2")).unwrap();
    assert!(matches!(server.on_request(&ack("2")).unwrap().verdict, Verdict::Stale { .. }), "answered twice");
}

#[test]
fn a_reconnect_costs_only_the_difference() {
    let request = resume(&["*"], &[("a", "1"), ("b", "1"), ("gone", "1")]);
    let mut server = server_with(request);
    let view = Resources::of(&[("a", "1"), ("b", "2"), ("c", "1")]);
    assert_eq!(send(&mut server, &view), sent(&[("b", "2"), ("c", "1")], &["gone"], "1"));

    let mut server = server_with(resume(&["a", "x"], &[("a", "1"), ("x", "1"), ("other", "1")]));
    let view = Resources::of(&[("a", "1"), ("other", "2")]);
    assert_eq!(send(&mut server, &view), sent(&[], &["x"], "1"));
}

#[test]
fn initial_versions_count_only_in_the_first_request() {
    let mut server = server_with(subscribe(&["a"]));
    server.on_request(&resume(&["b"], &[("b", "1")])).unwrap();
    let view = Resources::of(&[("a", "1"), ("b", "1")]);
    assert_eq!(send(&mut server, &view), sent(&[("a", "1"), ("b", "1")], &[], "1"));
}

#[test]
fn subscribing_again_forces_a_resend() {
    let mut server = server_with(subscribe(&["a", "x"]));
    let view = Resources::of(&[("a", "1")]);
    send(&mut server, &view);
    // While the response is outstanding, and after its ACK.
    server.on_request(&subscribe(&["a"])).unwrap();
    server.on_request(&ack("1")).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[("a", "1")], &[], "2"));
    server.on_request(&ack("2")).unwrap();
    server.on_request(&subscribe(&["x"])).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[], &["x"], "3"));
    server.on_request(&nack("3", "")).unwrap();
    server.on_request(&subscribe(&["*"])).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[], &[], "4"), "the wildcard is answered, `a` is held");
}

#[test]
fn unsubscribing_forgets() {
    let mut server = server_with(subscribe(&["a", "b"]));
    let view = Resources::of(&[("a", "1"), ("b", "1")]);
    send(&mut server, &view);
    server.on_request(&unsubscribe(&["a", "never"])).unwrap();
    server.on_request(&ack("1")).unwrap();
    assert_eq!(server.held().collect::<Vec<_>>(), [("b", "1")]);
    assert!(!server.is_subscribed("a"));
    assert_eq!(send(&mut server, &Resources::of(&[("a", "2"), ("b", "1")])), None);
    server.on_request(&subscribe(&["a"])).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[("a", "1")], &[], "2"));
}

#[test]
fn wildcard_and_names_together() {
    let mut server = server_with(subscribe(&[]));
    let view = Resources::of(&[("a", "1"), ("b", "1")]);
    send(&mut server, &view);
    server.on_request(&ack("1")).unwrap();
    server.on_request(&subscribe(&["a"])).unwrap();
    assert!(server.is_wildcard(), "the implicit wildcard stays");
    assert_eq!(send(&mut server, &view), sent(&[("a", "1")], &[], "2"));
    server.on_request(&ack("2")).unwrap();
    // Unsubscribing from a name that the wildcard covers: the client may have dropped it.
    server.on_request(&unsubscribe(&["a"])).unwrap();
    assert_eq!(send(&mut server, &view), sent(&[("a", "1")], &[], "3"));
    server.on_request(&ack("3")).unwrap();
    server.on_request(&subscribe(&["b"])).unwrap();
    server.on_request(&unsubscribe(&["*"])).unwrap();
    assert_eq!(server.subscribed_names().collect::<Vec<_>>(), ["b"]);
    assert_eq!(send(&mut server, &view), sent(&[("b", "1")], &[], "4"));
    server.on_request(&ack("4")).unwrap();
    assert_eq!(server.held().collect::<Vec<_>>(), [("b", "1")]);
}

#[test]
fn updates_and_removals_can_be_sent_apart() {
    let mut server = server_with(subscribe(&["*"]));
    send(&mut server, &Resources::of(&[("a", "1"), ("b", "1")]));
    server.on_request(&ack("1")).unwrap();
    let view = Resources::of(&[("b", "2")]);
    assert_eq!(send_part(&mut server, &view, Part::Updates), sent(&[("b", "2")], &[], "2"));
    server.on_request(&ack("2")).unwrap();
    assert_eq!(send_part(&mut server, &view, Part::Updates), None);
    assert_eq!(send_part(&mut server, &view, Part::Removals), sent(&[], &["a"], "3"));
    server.on_request(&ack("3")).unwrap();
    assert_eq!(send(&mut server, &view), None);
}

#[test]
fn foreign_requests_are_refused() {
    let mut server = Server::new(TYPE, ClientFeatures::default());
    let error = server.on_request(&request_of(ResourceType::Secret)).unwrap_err();
    assert!(matches!(error, InvalidRequest::Type { .. }));
    let mut request = subscribe(&[]);
    request.resource_locators_subscribe.push(Default::default());
    let error = server.on_request(&request).unwrap_err();
    assert_eq!(
        error.to_string(),
        "resource_locators_subscribe: subscription by resource locator is not supported"
    );
}

#[test]
fn ttls_and_heartbeats_go_to_clients_that_keep_them() {
    for resource_ttl in [true, false] {
        let mut server = Server::new(TYPE, ClientFeatures { resource_ttl, ..ClientFeatures::default() });
        server.on_request(&subscribe(&["*"])).unwrap();
        let view = Resources::of(&[("a", "1"), ("b!", "1")]);
        let response = server.next_response(&view, Part::All).unwrap();
        let ttls: Vec<_> = response.resources.iter().map(|resource| resource.ttl.is_some()).collect();
        assert_eq!(ttls, [false, resource_ttl]);
        assert_eq!(server.heartbeat(&view), None, "an answer is outstanding");
        server.on_request(&ack("1")).unwrap();
        let Some(heartbeat) = server.heartbeat(&view) else {
            assert!(!resource_ttl);
            continue;
        };
        let [beat] = &heartbeat.resources[..] else { panic!("{heartbeat:?}") };
        assert_eq!((beat.name.as_str(), beat.version.as_str(), &beat.resource), ("b!", "1", &None));
        server.on_request(&ack(&heartbeat.nonce)).unwrap();
        assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1"), ("b!", "1")]);
        assert_eq!(server.heartbeat(&Resources::of(&[("b!", "2")])), None, "the change goes first");
        assert_eq!(send(&mut server, &view), None);
    }
}
