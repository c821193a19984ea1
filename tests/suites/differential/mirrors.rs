//! Requests that are copied to another cluster.

use std::time::Duration;

use outrigger_tests::bootstrap::overlay;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::{RawClient, wait};
use serde_json::{Value, json};

/// A route to `up` that is mirrored to `up2` by `policy`.
fn mirrored(name: &'static str, policy: Value) -> Case {
    let mut mirror = json!({"cluster": "up2"});
    overlay(&mut mirror, policy);
    Case::routes(
        name,
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "request_mirror_policies": [mirror]}}]),
    )
    .without_logs()
}

/// The mirror is the cluster that this header names, as the request goes upstream.
fn by_header(name: &'static str, header: &str, added: Value) -> Case {
    Case::routes(
        name,
        json!([{"match": {"prefix": "/"}, "request_headers_to_add": added,
            "route": {"cluster": "up", "request_mirror_policies": [{"cluster_header": header}]}}]),
    )
    .without_logs()
}

/// Sends one request with a body; adds what the client and both upstreams saw.
fn one_request(target: &Target<'_>, view: &mut View) {
    send(target, view, "POST /a?b HTTP/1.1\r\nhost: h:80\r\ncontent-length: 5\r\n\r\nhello", true);
    send(target, view, "GET /a?b HTTP/1.1\r\nhost: h\r\nx-a: 1\r\n\r\n", true);
}

/// The same, where nothing may reach the mirror.
fn not_mirrored(target: &Target<'_>, view: &mut View) {
    send(target, view, "GET /a HTTP/1.1\r\nhost: h\r\n\r\n", false);
}

fn send(target: &Target<'_>, view: &mut View, bytes: &str, reaches: bool) {
    let mut client = RawClient::connect(target.addr).unwrap();
    client.send(bytes.as_bytes());
    view.add_answer("client", &client.response());
    if reaches {
        wait::until("the mirror's request", || target.world.up2.recorded() == 1);
    } else {
        assert!(!client.closes_within(Duration::from_millis(50)));
    }
    view.add_requests("upstream", &target.world.up.take_requests());
    let mut mirrors = target.world.up2.take_requests();
    for request in &mut mirrors {
        // Envoy's mirrors look like requests of its own.
        request
            .headers
            .0
            .retain(|(name, _)| !matches!(name.as_str(), "x-envoy-internal" | "x-forwarded-for"));
    }
    view.add_requests("mirror", &mirrors);
}

#[test]
fn mirrors() {
    compare_cases(&[
        mirrored("all", json!({})).drive(one_request),
        mirrored("host kept", json!({"disable_shadow_host_suffix_append": true})).drive(one_request),
        mirrored("host set", json!({"host_rewrite_literal": "mirror.example.com"})).drive(one_request),
        mirrored("none", json!({"runtime_fraction": {"default_value": {"numerator": 0}}})).drive(not_mirrored),
        mirrored("100 %", json!({"runtime_fraction": {"default_value": {"numerator": 100}}})).drive(one_request),
        mirrored("an answer nobody reads", json!({"cluster": "up2"})).drive(|target, view| {
            target.world.up2.answer(outrigger_tests::upstream::Reply::Close);
            one_request(target, view);
        }),
        by_header("named", "x-a", json!([{"header": {"key": "x-a", "value": "up2"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]))
            .drive(one_request),
        by_header("named by nothing", "x-none", json!([])).drive(not_mirrored),
        by_header("a missing one", "x-a", json!([{"header": {"key": "x-a", "value": "missing"}}])).drive(not_mirrored),
        Case::hosts(
            "the virtual host's",
            json!([{"name": "v", "domains": ["*"], "request_mirror_policies": [{"cluster": "up2"}],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up", "prefix_rewrite": "/new"}}]}]),
        )
        .without_logs()
        .drive(|target, view| send(target, view, "GET /a HTTP/1.1\r\nhost: h\r\n\r\n", true)),
    ]);
}
