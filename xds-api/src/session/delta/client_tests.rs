//! Unit tests of the client's end, one rule of the protocol each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::session::ttl;
use crate::wire::discovery::v3::Resource;
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
fn a_virtual_host_without_content_is_none_of_its_names() {
    let of = ResourceType::VirtualHost;
    let mut client = Client::new(of);
    client.subscribe(WILDCARD);
    client.next_request(&node());
    let resource = |name: &str, has_content: bool| Resource {
        name: name.to_owned(),
        aliases: vec![format!("{name}-alias")],
        resource: has_content.then(|| Any { type_url: of.type_url().to_owned(), value: Vec::new() }),
        ..Default::default()
    };
    let response = |resources: Vec<Resource>| DeltaDiscoveryResponse {
        type_url: of.type_url().to_owned(),
        resources,
        removed_resources: vec!["r/gone".to_owned()],
        ..Default::default()
    };
    let received = client.on_response(response(vec![resource("r/a", true), resource("r/b", false)])).unwrap();
    assert_eq!(received.removed, ["r/gone", "r/b", "r/b-alias"]);
    assert_eq!(received.updated.len(), 1);
    assert_eq!(received.updated[0].aliases, ["r/a-alias"]);
    // Of any other type it is a mistake.
    let mut client = subscribed(&["a"]);
    let mistaken = DeltaDiscoveryResponse {
        type_url: TYPE.type_url().to_owned(),
        ..response(vec![resource("a", false)])
    };
    assert!(matches!(client.on_response(mistaken), Err(MalformedResponse::ResourceType { .. })));
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
    let received = client.on_response(response).unwrap();
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
    client.on_response(response("1", &[("a", "v1"), ("b", "v1"), ("c", "v1")], &[])).unwrap();
    client.ack("1").unwrap();
    client.on_response(response("2", &[("a", "v2"), ("b", "v2")], &["c"])).unwrap();
    let nack = client.nack("2", &["a"], "a: bad").unwrap();
    let status = nack.error_detail.unwrap();
    assert_eq!((status.code, status.message.as_str()), (3, "a: bad"));
    assert_eq!(nack.response_nonce, "2");
    assert_eq!(client.held().collect::<Vec<_>>(), [("a", "v1"), ("b", "v2")]);
    client.on_response(response("3", &[("a", "v3"), ("b", "v3")], &[])).unwrap();
    client.nack_all("3", "bad").unwrap();
    assert_eq!(client.held().collect::<Vec<_>>(), [("a", "v1"), ("b", "v2")]);
}

#[test]
fn what_was_unsubscribed_from_in_the_meantime_is_ignored() {
    let mut client = subscribed(&["a", "b"]);
    let _ = client.unsubscribe("a");
    let both = response("1", &[("a", "v1"), ("b", "v1")], &[]);
    let received = client.on_response(both).unwrap();
    assert_eq!(received.updated.iter().map(|update| update.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let _ = client.unsubscribe("b");
    assert!(client.ack("1").is_some(), "it is still answered");
    assert_eq!(client.held().count(), 0);
}

#[test]
fn unsubscribing_tells_what_is_to_be_dropped() {
    let mut client = subscribed(&["a", "*"]);
    client.on_response(response("1", &[("a", "v1"), ("b", "v1"), ("c", "v1")], &[])).unwrap();
    client.ack("1").unwrap();
    assert!(client.unsubscribe("never").is_empty());
    assert_eq!(client.unsubscribe("*"), ["b", "c"]);
    client.subscribe("*");
    assert_eq!(client.unsubscribe("a"), ["a"], "the server forgets it before it hears of the new wildcard");
    assert_eq!(client.held().count(), 0);
}

#[test]
fn answers_to_a_closed_stream_are_dropped() {
    let mut client = subscribed(&["a"]);
    client.on_response(response("1", &[("a", "v1")], &[])).unwrap();
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
        let error = client.on_response(response).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
        let nack = client.nack_all("1", &error).unwrap();
        assert_eq!(nack.error_detail.unwrap().message, error);
        assert_eq!(client.held().count(), 0);
    }
}

#[test]
fn ttls_and_heartbeats_reach_the_owner() {
    let mut client = subscribed(&["a", "b"]);
    let with_ttl = |mut response: DeltaDiscoveryResponse, has_content: bool| {
        for resource in &mut response.resources {
            resource.ttl = Some(ttl::encode(Duration::from_secs(5)));
            resource.resource.take_if(|_| !has_content);
        }
        response
    };
    let received = client.on_response(with_ttl(response("1", &[("a", "v1")], &[]), true)).unwrap();
    assert_eq!(received.updated[0].ttl, Some(Duration::from_secs(5)));
    client.ack("1").unwrap();
    // One of a version that is not held has nothing to keep alive.
    for (nonce, version, expected) in [("2", "v1", 1), ("3", "v2", 0)] {
        let beat = with_ttl(response(nonce, &[("a", version), ("b", version)], &[]), false);
        let received = client.on_response(beat).unwrap();
        assert!(received.updated.is_empty());
        let beats: Vec<_> = received.heartbeats.iter().map(|beat| (beat.name.as_str(), beat.ttl)).collect();
        assert_eq!(beats, [("a", Some(Duration::from_secs(5)))][..expected]);
        client.ack(nonce).unwrap();
        assert_eq!(client.held().collect::<Vec<_>>(), [("a", "v1")]);
    }
    let mut negative = response("4", &[("a", "v2")], &[]);
    negative.resources[0].ttl = Some(crate::wire::protobuf::Duration { seconds: -1, nanos: 0 });
    let error = client.on_response(negative).unwrap_err().to_string();
    assert!(error.starts_with("resource \"a\": ttl: -1 s"), "{error}");
}

#[test]
fn what_expired_is_asked_for_by_the_next_stream() {
    let mut client = subscribed(&["*"]);
    client.on_response(response("1", &[("a", "v1"), ("b", "v1")], &[])).unwrap();
    client.ack("1").unwrap();
    assert!(client.expire("a") && !client.expire("a"));
    client.on_stream_closed();
    let first = client.next_request(&node()).unwrap();
    assert_eq!(first.initial_resource_versions, [("b".to_owned(), "v1".to_owned())].into());
}
