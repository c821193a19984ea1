//! Unit tests of the server's end, one rule of the protocol each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::resource::{pack, unpack};
use crate::session::Resource;
use crate::wire::cluster::v3::Cluster;
use crate::wire::discovery::v3 as discovery;
use crate::wire::endpoint::v3::ClusterLoadAssignment;
use crate::wire::protobuf::Any;
use crate::wire::rpc::Status;

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::ClusterLoadAssignment;
const FEATURES: ClientFeatures =
    ClientFeatures { resource_ttl: true, resource_in_sotw: true, needs_endpoints_again: false };

/// A view over a list of (name, version). Names that end in `!` have a TTL, and those in `-` are leaving.
struct Resources(BTreeMap<String, (String, Any)>);

impl Resources {
    fn of(of: ResourceType, resources: &[(&str, &str)]) -> Resources {
        let content = |name: &str| match of {
            EDS => pack(&ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() }),
            _ => pack(&Cluster { name: name.to_owned(), ..Default::default() }),
        };
        let entries = resources.iter().map(|(name, version)| {
            let content = content(name.trim_end_matches('-'));
            ((*name).to_owned(), ((*version).to_owned(), content))
        });
        Resources(entries.collect())
    }
}

fn resource<'a>(name: &str, (version, content): &'a (String, Any)) -> Resource<'a> {
    Resource { version, content, ttl: name.ends_with('!').then_some(Duration::from_secs(5)) }
}

impl View for Resources {
    fn get(&self, name: &str) -> Option<Resource<'_>> {
        self.0.get(name).map(|of| resource(name, of))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| !name.ends_with('-'))
    }

    fn leaving(&self) -> impl Iterator<Item = (&str, Resource<'_>)> {
        self.0.iter().filter_map(|(name, of)| Some((name.strip_suffix('-')?, resource(name, of))))
    }
}

fn request(of: ResourceType, version: &str, names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: of.type_url().to_owned(),
        version_info: version.to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    }
}

fn nack(of: ResourceType, names: &[&str], nonce: &str) -> DiscoveryRequest {
    let status = Status { code: 3, message: "bad".to_owned(), details: vec![] };
    DiscoveryRequest { error_detail: Some(status), ..request(of, "", names, nonce) }
}

fn server_with(of: ResourceType, version: &str, names: &[&str]) -> Server {
    let mut server = Server::new(of, ClientFeatures::default());
    server.on_request(&request(of, version, names, "")).unwrap();
    server
}

fn names_in(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|any| crate::resource::name_of(any).unwrap()).collect()
}

/// The names in the next response, which is accepted with `names`.
fn accept(server: &mut Server, view: &Resources, names: &[&str]) -> Option<Vec<String>> {
    let response = server.next_response(view, Part::All)?;
    let answer = request(server.resource_type(), &response.version_info, names, &response.nonce);
    assert_eq!(server.on_request(&answer).unwrap().verdict, Verdict::Ack);
    Some(names_in(&response))
}

fn sent(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_wildcard_gets_the_whole_state_at_every_change() {
    for first in [&["*"][..], &[]] {
        let mut server = server_with(CDS, "", first);
        assert!(server.is_wildcard());
        let view = Resources::of(CDS, &[("a", "1"), ("b", "1")]);
        assert_eq!(accept(&mut server, &view, first), sent(&["a", "b"]));
        assert_eq!(server.next_response(&view, Part::All), None, "nothing changed");
        let view = Resources::of(CDS, &[("a", "1"), ("b", "2")]);
        assert_eq!(accept(&mut server, &view, first), sent(&["a", "b"]));
        let view = Resources::of(CDS, &[("a", "1")]);
        assert_eq!(accept(&mut server, &view, first), sent(&["a"]), "absence is removal");
        assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    }
}

#[test]
fn other_types_get_what_changed() {
    let mut server = server_with(EDS, "", &["a", "b", "x"]);
    let view = Resources::of(EDS, &[("a", "1"), ("b", "1"), ("c", "1")]);
    assert_eq!(accept(&mut server, &view, &["a", "b", "x"]), sent(&["a", "b"]));
    let view = Resources::of(EDS, &[("a", "2"), ("b", "1"), ("c", "2")]);
    assert_eq!(accept(&mut server, &view, &["a", "b", "x"]), sent(&["a"]));
    let view = Resources::of(EDS, &[("a", "2"), ("x", "1")]);
    assert_eq!(
        accept(&mut server, &view, &["a", "b", "x"]),
        sent(&["x"]),
        "it appeared; `b` cannot be removed"
    );
    assert_eq!(server.next_response(&view, Part::All), None);
}

#[test]
fn an_empty_wildcard_is_answered_once_and_missing_names_of_other_types_never() {
    let mut server = server_with(CDS, "", &[]);
    assert_eq!(accept(&mut server, &Resources::of(CDS, &[]), &[]), sent(&[]));
    assert_eq!(server.next_response(&Resources::of(CDS, &[]), Part::All), None);
    let mut server = server_with(CDS, "", &["x"]);
    assert_eq!(accept(&mut server, &Resources::of(CDS, &[]), &["x"]), sent(&[]), "here absence says it");
    let mut server = server_with(EDS, "", &["x"]);
    assert_eq!(server.next_response(&Resources::of(EDS, &[]), Part::All), None);
}

#[test]
fn an_empty_list_after_a_name_is_nothing() {
    let mut server = server_with(CDS, "", &["a"]);
    let view = Resources::of(CDS, &[("a", "1"), ("b", "1")]);
    assert_eq!(accept(&mut server, &view, &["a"]), sent(&["a"]));
    assert!(server.on_request(&request(CDS, "", &[], "1")).unwrap().subscription_changed);
    assert!(!server.is_wildcard() && !server.is_subscribed("a"));
    assert_eq!(server.next_response(&view, Part::All), None);
    let mut server = server_with(CDS, "", &["*"]);
    server.on_request(&request(CDS, "", &[], "")).unwrap();
    assert_eq!(server.next_response(&view, Part::All), None);
}

#[test]
fn changes_merge_while_a_response_is_outstanding() {
    let mut server = server_with(CDS, "", &[]);
    let first = server.next_response(&Resources::of(CDS, &[("a", "1")]), Part::All).unwrap();
    assert_eq!(server.next_response(&Resources::of(CDS, &[("a", "2")]), Part::All), None);
    assert!(server.is_waiting());
    server.on_request(&request(CDS, &first.version_info, &[], "1")).unwrap();
    assert_eq!(accept(&mut server, &Resources::of(CDS, &[("a", "3")]), &[]), sent(&["a"]));
}

#[test]
fn a_rejected_state_is_not_sent_again_until_it_changes() {
    let mut server = server_with(CDS, "", &[]);
    accept(&mut server, &Resources::of(CDS, &[("a", "1"), ("b", "1")]), &[]);
    let second = Resources::of(CDS, &[("a", "2"), ("b", "1")]);
    server.next_response(&second, Part::All).unwrap();
    let outcome = server.on_request(&nack(CDS, &[], "2")).unwrap();
    let (nonce, message, names) = ("2".to_owned(), "bad".to_owned(), vec!["a".to_owned()]);
    assert_eq!(outcome.verdict, Verdict::Nack { nonce, message, names }, "`b` was not new");
    assert_eq!(server.rejected().collect::<Vec<_>>(), [("a", "2")]);
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1"), ("b", "1")]);
    assert_eq!(server.next_response(&second, Part::All), None);
    // The old version again: a NACK does not say that the client did not apply `a`.
    let first = Resources::of(CDS, &[("a", "1"), ("b", "1")]);
    assert_eq!(accept(&mut server, &first, &[]), sent(&["a", "b"]));
    assert_eq!(server.rejected().count(), 0);
}

#[test]
fn a_rejected_resource_that_goes_away_is_removed() {
    let mut server = server_with(CDS, "", &[]);
    server.next_response(&Resources::of(CDS, &[("a", "1")]), Part::All).unwrap();
    server.on_request(&nack(CDS, &[], "1")).unwrap();
    let nothing = Resources::of(CDS, &[]);
    assert_eq!(server.next_response(&nothing, Part::Removals).map(|response| names_in(&response)), sent(&[]));
    server.on_request(&nack(CDS, &[], "2")).unwrap();
    assert_eq!(server.rejected().count(), 0, "removals cannot be rejected");
    assert_eq!(server.next_response(&nothing, Part::All), None);
}

#[test]
fn stale_nonces_change_nothing_but_their_subscription_counts() {
    let mut server = server_with(EDS, "", &["a"]);
    let view = Resources::of(EDS, &[("a", "1"), ("b", "1")]);
    server.next_response(&view, Part::All).unwrap();
    let outcome = server.on_request(&nack(EDS, &["a", "b"], "0")).unwrap();
    let verdict = Verdict::Stale { nonce: "0".to_owned() };
    assert_eq!(outcome, Outcome { verdict, subscription_changed: true });
    assert!(server.is_waiting());
    server.on_request(&request(EDS, "", &["a", "b"], "1")).unwrap();
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["b"]));
}

#[test]
fn a_request_that_says_nothing_new_asks_again_for_everything() {
    for of in [CDS, EDS] {
        let mut server = server_with(of, "", &["a", "b"]);
        let view = Resources::of(of, &[("a", "1"), ("b", "1")]);
        assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["a", "b"]));
        assert_eq!(server.next_response(&view, Part::All), None);
        let outcome = server.on_request(&request(of, "", &["a", "b"], "1")).unwrap();
        assert_eq!(outcome, Outcome { verdict: Verdict::None, subscription_changed: true });
        assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["a", "b"]));
        // Also when it crosses a response.
        let view = Resources::of(of, &[("a", "2"), ("b", "1")]);
        server.next_response(&view, Part::All).unwrap();
        server.on_request(&request(of, "", &["a", "b"], "2")).unwrap();
        server.on_request(&request(of, "", &["a", "b"], "3")).unwrap();
        assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["a", "b"]));
    }
}

#[test]
fn an_empty_wildcard_that_is_asked_for_again_is_answered_again() {
    let mut server = server_with(CDS, "", &[]);
    let view = Resources::of(CDS, &[]);
    accept(&mut server, &view, &[]);
    server.on_request(&request(CDS, "", &[], "1")).unwrap();
    assert_eq!(accept(&mut server, &view, &[]), sent(&[]));
}

#[test]
fn what_is_unsubscribed_from_before_the_answer_is_not_held() {
    let mut server = server_with(EDS, "", &["a", "b"]);
    let view = Resources::of(EDS, &[("a", "1"), ("b", "1")]);
    server.next_response(&view, Part::All).unwrap();
    server.on_request(&request(EDS, "", &["a"], "")).unwrap();
    server.on_request(&request(EDS, "", &["a"], "1")).unwrap();
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    // Dropped and wanted again before the answer: it is sent again, for the client may have dropped it after it came.
    let mut server = server_with(EDS, "", &["a", "b"]);
    server.next_response(&view, Part::All).unwrap();
    server.on_request(&request(EDS, "", &["a"], "")).unwrap();
    server.on_request(&request(EDS, "", &["a", "b"], "")).unwrap();
    server.on_request(&request(EDS, "", &["a", "b"], "1")).unwrap();
    assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["b"]));
}

#[test]
fn a_name_that_comes_back_is_sent_again() {
    let mut server = server_with(EDS, "", &["a", "b"]);
    let view = Resources::of(EDS, &[("a", "1"), ("b", "1")]);
    accept(&mut server, &view, &["a", "b"]);
    server.on_request(&request(EDS, "", &["a"], "1")).unwrap();
    assert_eq!(server.next_response(&view, Part::All), None, "nothing to say to that");
    assert_eq!(server.held().collect::<Vec<_>>(), [("a", "1")]);
    server.on_request(&request(EDS, "", &["a", "b"], "1")).unwrap();
    assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["b"]));
}

#[test]
fn a_client_that_comes_back_with_the_version_is_sent_nothing() {
    for (of, names) in [(CDS, &[][..]), (CDS, &["*"]), (CDS, &["a"]), (EDS, &["a", "b", "x"]), (EDS, &["*"])]
    {
        let view = Resources::of(of, &[("a", "1"), ("b", "1")]);
        let mut server = server_with(of, "", names);
        let version = server.next_response(&view, Part::All).unwrap().version_info;

        let mut server = server_with(of, &version, names);
        assert_eq!(server.next_response(&view, Part::Updates), None, "{of} {names:?}");
        assert!(server.held().any(|held| held == ("a", "1")));
        // And hears of the next change.
        let changed = Resources::of(of, &[("a", "2"), ("b", "1")]);
        let response = server.next_response(&changed, Part::All).unwrap();
        assert_ne!(response.version_info, version);

        let mut server = server_with(of, &version, names);
        assert!(server.next_response(&changed, Part::All).is_some(), "it changed meanwhile");
        let mut server = server_with(of, &version, &[names, &["b2"]].concat());
        let more = Resources::of(of, &[("a", "1"), ("b", "1"), ("b2", "1")]);
        assert!(server.next_response(&more, Part::All).is_some(), "it asks for more");
        let mut server = server_with(of, &version, names);
        server.on_request(&request(of, &version, names, "")).unwrap();
        assert!(server.next_response(&view, Part::All).is_some(), "it asked again");
    }
}

#[test]
fn who_rejected_something_does_not_come_back_with_the_version_of_all() {
    let mut server = server_with(EDS, "", &["a", "b"]);
    let view = Resources::of(EDS, &[("b", "1")]);
    server.next_response(&view, Part::All).unwrap();
    server.on_request(&nack(EDS, &["a", "b"], "1")).unwrap();
    let view = Resources::of(EDS, &[("a", "1"), ("b", "1")]);
    let response = server.next_response(&view, Part::All).unwrap();
    assert_eq!(names_in(&response), ["a"]);
    let mut server = server_with(EDS, &response.version_info, &["a", "b"]);
    assert_eq!(accept(&mut server, &view, &["a", "b"]), sent(&["a", "b"]));
}

#[test]
fn updates_repeat_what_is_leaving_and_removals_do_not() {
    let mut server = server_with(CDS, "", &[]);
    accept(&mut server, &Resources::of(CDS, &[("a", "1"), ("b", "1")]), &[]);
    let only_removal = Resources::of(CDS, &[("a", "1"), ("b-", "1")]);
    assert_eq!(server.next_response(&only_removal, Part::Updates), None);
    // `x` left before this client heard of it.
    let view = Resources::of(CDS, &[("a", "1"), ("b-", "1"), ("c", "1"), ("x-", "1")]);
    let update = server.next_response(&view, Part::Updates).unwrap();
    assert_eq!(names_in(&update), ["a", "b", "c"]);
    server.on_request(&request(CDS, &update.version_info, &[], &update.nonce)).unwrap();
    assert_eq!(server.next_response(&view, Part::Updates), None);
    let removal = server.next_response(&view, Part::Removals).unwrap();
    assert_eq!(names_in(&removal), ["a", "c"]);
    assert_ne!(removal.version_info, update.version_info);
}

#[test]
fn ttls_go_wrapped_to_clients_that_keep_them() {
    for (of, features, is_wrapped) in [
        (CDS, FEATURES, true),
        (EDS, FEATURES, true),
        (CDS, ClientFeatures { resource_ttl: false, ..FEATURES }, false),
        (CDS, ClientFeatures { resource_in_sotw: false, ..FEATURES }, false),
    ] {
        let mut server = Server::new(of, features);
        server.on_request(&request(of, "", &["a", "b!"], "")).unwrap();
        let view = Resources::of(of, &[("a", "1"), ("b!", "1")]);
        let response = server.next_response(&view, Part::All).unwrap();
        assert_eq!(response.resources[0].type_url, of.type_url());
        let resource = unpack::<discovery::Resource>(&response.resources[1]);
        assert_eq!(resource.is_ok(), is_wrapped);
        if let Ok(resource) = resource {
            assert_eq!((resource.name.as_str(), resource.version.as_str()), ("b!", "1"));
            assert_eq!(resource.ttl.unwrap().seconds, 5);
            assert_eq!(resource.resource.unwrap().type_url, of.type_url());
        }
        assert_eq!(server.heartbeat(&view), None, "its answer is due");
        server.on_request(&request(of, &response.version_info, &["a", "b!"], "1")).unwrap();
        assert_eq!(server.heartbeat(&view).is_some(), is_wrapped);
    }
}

#[test]
fn a_heartbeat_has_no_content_where_absence_says_nothing() {
    let mut server = Server::new(EDS, FEATURES);
    server.on_request(&request(EDS, "", &["a!", "b", "c!"], "")).unwrap();
    let view = Resources::of(EDS, &[("a!", "1"), ("b", "1")]);
    let version = server.next_response(&view, Part::All).unwrap().version_info;
    server.on_request(&request(EDS, &version, &["a!", "b", "c!"], "1")).unwrap();
    let heartbeat = server.heartbeat(&view).unwrap();
    assert_eq!(heartbeat.version_info, version);
    let [beat] = &heartbeat.resources[..] else { panic!("{heartbeat:?}") };
    let beat = unpack::<discovery::Resource>(beat).unwrap();
    assert_eq!((beat.name.as_str(), beat.resource, beat.ttl.unwrap().seconds), ("a!", None, 5));
    assert_eq!(
        server.on_request(&request(EDS, &version, &["a!", "b", "c!"], "2")).unwrap().verdict,
        Verdict::Ack
    );
    let changed = Resources::of(EDS, &[("a!", "2"), ("b", "1")]);
    assert_eq!(server.heartbeat(&changed), None, "the change goes first");
    assert_eq!(server.held().count(), 2);
}

#[test]
fn a_heartbeat_is_the_whole_state_where_absence_is_removal() {
    let mut server = Server::new(CDS, FEATURES);
    server.on_request(&request(CDS, "", &[], "")).unwrap();
    let view = Resources::of(CDS, &[("a!", "1"), ("b", "1")]);
    let version = server.next_response(&view, Part::All).unwrap().version_info;
    server.on_request(&request(CDS, &version, &[], "1")).unwrap();
    let heartbeat = server.heartbeat(&view).unwrap();
    assert_eq!((heartbeat.version_info.as_str(), heartbeat.resources.len()), (version.as_str(), 2));
    server.on_request(&request(CDS, &version, &[], "2")).unwrap();
    assert_eq!(server.next_response(&view, Part::All), None);
    let leaving = Resources::of(CDS, &[("a!", "1"), ("b-", "1")]);
    assert_eq!(server.heartbeat(&leaving), None, "it would remove `b` out of turn");
}

#[test]
fn foreign_requests_are_refused() {
    let mut server = Server::new(CDS, ClientFeatures::default());
    let error = server.on_request(&request(EDS, "", &[], "")).unwrap_err();
    assert!(matches!(error, InvalidRequest::Type { .. }));
    let mut located = request(CDS, "", &[], "");
    located.resource_locators.push(Default::default());
    let error = server.on_request(&located).unwrap_err().to_string();
    assert_eq!(error, "resource_locators: subscription by resource locator is not supported");
}
