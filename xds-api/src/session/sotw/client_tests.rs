//! Unit tests of the client's end, one rule of the protocol each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::resource::pack;
use crate::session::{Heartbeat, ttl};
use crate::wire::cluster::v3::Cluster;
use crate::wire::endpoint::v3::ClusterLoadAssignment;

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::ClusterLoadAssignment;

fn node() -> Node {
    Node { id: "node".to_owned(), ..Default::default() }
}

fn resource(of: ResourceType, name: &str) -> Any {
    match of {
        EDS => pack(&ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() }),
        _ => pack(&Cluster { name: name.to_owned(), ..Default::default() }),
    }
}

fn wrapped(name: &str, content: Option<Any>, ttl: Option<Duration>) -> Any {
    let ttl = ttl.map(ttl::encode);
    pack(&Resource { name: name.to_owned(), resource: content, ttl, ..Default::default() })
}

fn of_resources(of: ResourceType, nonce: &str, version: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        nonce: nonce.to_owned(),
        version_info: version.to_owned(),
        type_url: of.type_url().to_owned(),
        resources,
        ..Default::default()
    }
}

fn response(of: ResourceType, nonce: &str, version: &str, names: &[&str]) -> DiscoveryResponse {
    of_resources(of, nonce, version, names.iter().map(|name| resource(of, name)).collect())
}

fn subscribed(of: ResourceType, names: &[&str]) -> Client {
    let mut client = Client::new(of);
    let _ = client.set_subscription(names.iter().map(|name| (*name).to_owned()));
    client.next_request(&node());
    client
}

fn accept(client: &mut Client, response: DiscoveryResponse) -> DiscoveryRequest {
    let nonce = response.nonce.clone();
    client.on_response(response).unwrap();
    client.ack(&nonce).unwrap()
}

fn held(client: &Client) -> Vec<&str> {
    client.held().collect()
}

/// Version, names and nonce of a request.
fn said(request: &DiscoveryRequest) -> (&str, Vec<&str>, &str) {
    let names = request.resource_names.iter().map(String::as_str).collect();
    (&request.version_info, names, &request.response_nonce)
}

#[test]
fn sends_nothing_until_something_is_wanted() {
    let mut client = Client::new(EDS);
    assert_eq!(client.next_request(&node()), None);
    client.subscribe("a");
    let first = client.next_request(&node()).unwrap();
    assert_eq!(first.node, Some(node()));
    assert_eq!(first.type_url, EDS.type_url());
    assert_eq!(said(&first), ("", vec!["a"], ""));
    assert_eq!(client.next_request(&node()), None, "nothing new to say");
}

#[test]
fn every_request_names_the_whole_subscription() {
    let mut client = subscribed(EDS, &["a", "b"]);
    client.subscribe("c");
    let _ = client.unsubscribe("a");
    let request = client.next_request(&node()).unwrap();
    assert_eq!((request.node.clone(), said(&request)), (None, ("", vec!["b", "c"], "")));
    assert_eq!(said(&accept(&mut client, response(EDS, "1", "v1", &["b"]))), ("v1", vec!["b", "c"], "1"));
    client.subscribe("d");
    assert_eq!(said(&client.next_request(&node()).unwrap()), ("v1", vec!["b", "c", "d"], "1"));
    let _ = client.set_subscription([]);
    assert_eq!(said(&client.next_request(&node()).unwrap()), ("v1", vec![], "1"));
}

#[test]
fn an_answer_carries_what_is_newly_wanted() {
    let mut client = subscribed(EDS, &["a"]);
    client.on_response(response(EDS, "1", "v1", &["a"])).unwrap();
    client.subscribe("b");
    assert_eq!(said(&client.ack("1").unwrap()), ("v1", vec!["a", "b"], "1"));
    assert_eq!(client.next_request(&node()), None);
}

#[test]
fn a_wildcard_is_an_empty_list_until_a_name_was_sent() {
    let mut client = Client::new(CDS);
    client.subscribe(WILDCARD);
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, [""; 0]);
    client.subscribe("a");
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, ["*", "a"]);
    let _ = client.unsubscribe("a");
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, ["*"]);
    // On the next stream again. There it has to be named before an empty list can take it back.
    client.on_stream_closed();
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, [""; 0]);
    let _ = client.unsubscribe(WILDCARD);
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, ["*"]);
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, [""; 0]);
    assert_eq!(client.next_request(&node()), None);

    let mut client = Client::new(EDS);
    client.subscribe(WILDCARD);
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, ["*"], "no other type knows the empty list");
}

#[test]
fn what_is_dropped_and_wanted_again_is_left_out_of_one_request() {
    let mut client = subscribed(EDS, &["a", "b"]);
    accept(&mut client, response(EDS, "1", "v1", &["a", "b"]));
    assert_eq!(client.unsubscribe("b"), ["b"]);
    client.subscribe("b");
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, ["a"]);
    assert_eq!(said(&client.next_request(&node()).unwrap()).1, ["a", "b"]);
    // A response crossed both, so they may not have counted: the answer, which counts, says it again.
    assert_eq!(said(&accept(&mut client, response(EDS, "2", "v2", &["a"]))), ("v2", vec!["a"], "2"));
    assert_eq!(said(&client.next_request(&node()).unwrap()), ("v2", vec!["a", "b"], "2"));
    assert_eq!(said(&accept(&mut client, response(EDS, "3", "v2", &["b"]))).1, ["a", "b"]);
    assert_eq!(held(&client), ["a", "b"]);
}

#[test]
fn what_a_complete_response_does_not_have_is_removed() {
    let mut client = subscribed(CDS, &["*"]);
    accept(&mut client, response(CDS, "1", "v1", &["a", "b"]));
    let received = client.on_response(response(CDS, "2", "v2", &["b", "c"])).unwrap();
    assert_eq!(received.removed, ["a"]);
    client.ack("2").unwrap();
    assert_eq!(held(&client), ["b", "c"]);
    assert_eq!(client.on_response(response(CDS, "3", "v3", &[])).unwrap().removed, ["b", "c"]);

    let mut client = subscribed(EDS, &["a", "b"]);
    accept(&mut client, response(EDS, "1", "v1", &["a", "b"]));
    let received = client.on_response(response(EDS, "2", "v2", &["b"])).unwrap();
    assert!(received.removed.is_empty(), "absence says nothing there");
    client.ack("2").unwrap();
    assert_eq!(held(&client), ["a", "b"]);
}

#[test]
fn what_was_never_seen_is_not_removed_by_absence() {
    let mut client = subscribed(CDS, &["a"]);
    accept(&mut client, response(CDS, "1", "v1", &["a"]));
    client.subscribe("b");
    client.next_request(&node());
    let received = client.on_response(response(CDS, "2", "v2", &["a"])).unwrap();
    assert!(received.removed.is_empty(), "the response may be older than the request");
}

#[test]
fn a_nack_names_the_version_accepted_last_and_may_be_partial() {
    let mut client = subscribed(CDS, &["*"]);
    accept(&mut client, response(CDS, "1", "v1", &["a", "c"]));
    client.on_response(response(CDS, "2", "v2", &["a", "b"])).unwrap();
    let nack = client.nack("2", &["a"], "a: bad").unwrap();
    assert_eq!(said(&nack), ("v1", vec![], "2"));
    let status = nack.error_detail.unwrap();
    assert_eq!((status.code, status.message.as_str()), (3, "a: bad"));
    assert_eq!(held(&client), ["a", "b"], "a as it was, b is new, c is gone");
    client.on_response(response(CDS, "3", "v3", &["a", "b", "d"])).unwrap();
    assert_eq!(said(&client.nack_all("3", "bad").unwrap()), ("v1", vec![], "3"));
    assert_eq!(held(&client), ["a", "b"]);
}

#[test]
fn a_new_stream_begins_with_the_version_accepted_last() {
    let mut client = subscribed(EDS, &["a", "b"]);
    accept(&mut client, response(EDS, "1", "v1", &["a", "b"]));
    client.on_response(response(EDS, "2", "v2", &["a"])).unwrap();
    client.nack_all("2", "bad").unwrap();
    client.on_stream_closed();
    let first = client.next_request(&node()).unwrap();
    assert_eq!((first.node.clone(), said(&first)), (Some(node()), ("v1", vec!["a", "b"], "")));
}

#[test]
fn a_new_stream_begins_without_a_version_that_is_not_what_is_held() {
    let begins_with = |change: &dyn Fn(&mut Client)| {
        let mut client = subscribed(EDS, &["a", "b"]);
        accept(&mut client, response(EDS, "1", "v1", &["a", "b"]));
        change(&mut client);
        client.on_stream_closed();
        client.subscribe("b");
        client.next_request(&node()).unwrap().version_info
    };
    assert_eq!(begins_with(&|_| {}), "v1");
    assert_eq!(begins_with(&|client| drop(client.unsubscribe("b"))), "");
    assert!(begins_with(&|client| assert!(client.expire("b"))).is_empty());
    let nack_in_part = |client: &mut Client| {
        client.on_response(response(EDS, "2", "v2", &["a", "b"])).unwrap();
        client.nack("2", &["b"], "bad").unwrap();
    };
    assert_eq!(begins_with(&nack_in_part), "", "`a` is newer than v1");
    // Two responses that cross the withdrawal of `b`: the second one was made after it was heard.
    let accept_later = |client: &mut Client| {
        drop(client.unsubscribe("b"));
        client.next_request(&node());
        accept(client, response(EDS, "2", "v2", &["a"]));
    };
    assert_eq!(begins_with(&accept_later), "", "v2 may count `b` in");
    let accept_twice = |client: &mut Client| {
        accept_later(client);
        accept(client, response(EDS, "2", "v2", &["a"]));
    };
    assert_eq!(begins_with(&accept_twice), "", "it is the same response");
    assert_eq!(
        begins_with(&|client| {
            accept_later(client);
            accept(client, response(EDS, "3", "v3", &["a"]));
        }),
        "v3"
    );
}

#[test]
fn a_restored_version_is_reported() {
    let mut client = Client::new(EDS);
    client.subscribe("a");
    client.restore("v1", ["a".to_owned()]);
    assert_eq!(client.version(), "v1");
    assert_eq!(said(&client.next_request(&node()).unwrap()), ("v1", vec!["a"], ""));
    let mut client = Client::new(EDS);
    client.subscribe("a");
    client.restore("v1", ["a".to_owned(), "b".to_owned()]);
    assert_eq!(said(&client.next_request(&node()).unwrap()).0, "", "it is not all of v1");
    assert_eq!(held(&client), ["a"]);
}

#[test]
fn what_is_not_wanted_is_ignored_and_a_closed_stream_is_not_answered() {
    let mut client = subscribed(EDS, &["a"]);
    let received = client.on_response(response(EDS, "1", "v1", &["a", "x"])).unwrap();
    assert_eq!(received.updated.iter().map(|update| update.name.as_str()).collect::<Vec<_>>(), ["a"]);
    client.on_stream_closed();
    assert_eq!(client.ack("1"), None);
    assert_eq!(client.held().count(), 0);
}

#[test]
fn wrapped_resources_have_names_versions_and_ttls() {
    let mut client = subscribed(CDS, &["*"]);
    let ttl = Some(Duration::from_secs(5));
    let versioned = Resource {
        name: "a".to_owned(),
        version: "7".to_owned(),
        resource: Some(resource(CDS, "a")),
        ..Default::default()
    };
    let resources = vec![pack(&versioned), wrapped("", Some(resource(CDS, "b")), ttl), resource(CDS, "c")];
    let received = client.on_response(of_resources(CDS, "1", "v1", resources)).unwrap();
    let shown = received.updated.iter().map(|update| {
        assert_eq!(update.content, resource(CDS, &update.name));
        (update.name.as_str(), update.version.as_str(), update.ttl)
    });
    assert_eq!(shown.collect::<Vec<_>>(), [("a", "7", None), ("b", "v1", ttl), ("c", "v1", None)]);
}

#[test]
fn heartbeats_are_told_and_are_no_state() {
    let (five, nine) = (Some(Duration::from_secs(5)), Some(Duration::from_secs(9)));
    for of in [CDS, EDS] {
        let mut client = subscribed(of, &["a", "b"]);
        let first = vec![wrapped("a", Some(resource(of, "a")), five), resource(of, "b")];
        accept(&mut client, of_resources(of, "1", "v1", first));
        let beats = vec![wrapped("a", None, nine), wrapped("x", None, nine)];
        let received = client.on_response(of_resources(of, "2", "v1", beats.clone())).unwrap();
        assert_eq!(received.heartbeats, [Heartbeat { name: "a".to_owned(), ttl: nine }]);
        assert!(received.updated.is_empty() && received.removed.is_empty());
        assert_eq!(said(&client.ack("2").unwrap()), ("v1", vec!["a", "b"], "2"));
        // Of a version that is not held there is nothing to keep alive.
        client.on_response(response(of, "3", "v2", &["a", "b"])).unwrap();
        client.nack_all("3", "bad").unwrap();
        let received = client.on_response(of_resources(of, "4", "v2", beats)).unwrap();
        assert!(received.heartbeats.is_empty());
        client.ack("4").unwrap();
        assert_eq!((held(&client), client.version()), (vec!["a", "b"], "v1"));
    }
}

#[test]
fn a_heartbeat_beside_news_is_not_absence() {
    let mut client = subscribed(CDS, &["*"]);
    let ttl = Some(Duration::from_secs(5));
    let first = vec![wrapped("a", Some(resource(CDS, "a")), ttl), resource(CDS, "b")];
    accept(&mut client, of_resources(CDS, "1", "v1", first));
    let second = vec![wrapped("a", None, ttl), resource(CDS, "c")];
    let received = client.on_response(of_resources(CDS, "2", "v1", second)).unwrap();
    assert_eq!((received.heartbeats.len(), received.removed), (1, vec!["b".to_owned()]));
}

#[test]
fn malformed_responses_are_told_and_can_be_rejected() {
    let garbage = Any { type_url: CDS.type_url().to_owned(), value: vec![0x0a, 0x7f, 0x01] };
    let elsewhere = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: vec![] };
    let mut negative = Resource { name: "a".to_owned(), ..Default::default() };
    negative.resource = Some(resource(CDS, "a"));
    negative.ttl = Some(crate::wire::protobuf::Duration { seconds: -1, nanos: 0 });
    let garbled = Any { value: vec![0x0a, 0x7f, 0x01], ..wrapped("a", None, None) };
    for (resources, reason) in [
        (vec![garbage], "resource 0 of the response: malformed"),
        (vec![resource(CDS, "a"), garbled], "resource 1 of the response: malformed"),
        (vec![elsewhere], "resource 0 of the response: expected"),
        (vec![resource(EDS, "a")], "resource \"a\" has type"),
        (vec![wrapped("a", None, None)], "resource \"a\" has type \"\""),
        (vec![resource(CDS, "")], "resource 0 of the response has no name"),
        (vec![resource(CDS, "a"), resource(CDS, "a")], "duplicate name \"a\""),
        (vec![pack(&negative)], "resource \"a\": ttl: -1 s"),
    ] {
        let mut client = subscribed(CDS, &["*"]);
        let error = client.on_response(of_resources(CDS, "1", "v1", resources)).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
        let nack = client.nack_all("1", &error).unwrap();
        assert_eq!(nack.error_detail.unwrap().message, error);
        assert_eq!(client.held().count(), 0);
    }
    let mut client = subscribed(CDS, &["*"]);
    let error = client.on_response(response(EDS, "1", "v1", &[])).unwrap_err();
    assert!(matches!(error, MalformedResponse::Type { .. }));
}
