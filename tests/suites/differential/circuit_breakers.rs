//! Limits of clusters: what is in flight, what waits, and what overflows.

use std::time::Duration;

use outrigger_tests::differential::{Case, Target, View, World, compare_cases, hold};
use outrigger_tests::message::Response;
use outrigger_tests::upstream::{Gate, Reply};
use outrigger_tests::{RawClient, bootstrap, wait};
use serde_json::{Value, json};

fn to(name: &'static str, cluster: &str) -> Case {
    Case::routes(name, bootstrap::to(cluster))
}

fn limited(world: &World, name: &str, thresholds: Value) -> Value {
    bootstrap::cluster(name, &[world.up.addr()], json!({"circuit_breakers": {"thresholds": [thresholds]}}))
}

#[test]
fn limits_of_a_cluster() {
    compare_cases(&[
        to("max_requests", "one-request")
            .clusters(|world| vec![limited(world, "one-request", json!({"max_requests": 1}))])
            .drive(one_held_one_more),
        to("max_connections and no pending", "one-connection")
            .clusters(|world| {
                let limits = json!({"max_connections": 1, "max_pending_requests": 0});
                vec![limited(world, "one-connection", limits)]
            })
            .drive(no_pending_allowed),
        to("max_connections and one pending", "one-pending")
            .clusters(|world| {
                let limits = json!({"max_connections": 1, "max_pending_requests": 1});
                vec![limited(world, "one-pending", limits)]
            })
            .drive(one_pending),
        to("max_connections of a host", "one-of-a-host")
            .clusters(|world| {
                let limits = json!({"circuit_breakers": {
                    "thresholds": [{"max_pending_requests": 1, "track_remaining": true}],
                    "per_host_thresholds": [{"max_connections": 1}],
                }});
                vec![bootstrap::cluster("one-of-a-host", &[world.up.addr()], limits)]
            })
            .drive(one_pending),
        to("what is left", "tracked")
            .clusters(|world| {
                let limits =
                    json!({"max_connections": 1, "max_pending_requests": 2, "track_remaining": true});
                vec![limited(world, "tracked", limits)]
            })
            .drive(gauges_while_one_waits),
        to("no requests", "none")
            .clusters(|world| vec![limited(world, "none", json!({"max_requests": 0}))])
            .paths(&["/"]),
        to("no pending, no connection yet", "none-pending")
            .clusters(|world| vec![limited(world, "none-pending", json!({"max_pending_requests": 0}))])
            .drive(no_pending_allowed),
        Case::routes(
            "a request that waits in vain",
            json!([{"match": {"prefix": "/"}, "route": {"cluster": "waits", "timeout": "0.2s"}}]),
        )
        .clusters(|world| vec![limited(world, "waits", json!({"max_connections": 1}))])
        .drive(one_waits_in_vain),
    ]);
}

/// A request that is at the upstream, whose answers wait for the gate.
fn held(target: &Target<'_>) -> (Gate, RawClient) {
    let gate = hold(&target.world.up);
    let mut first = RawClient::connect(target.addr).unwrap();
    first.send(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("the first request at the upstream", || target.world.up.recorded() == 1);
    (gate, first)
}

/// One request is at the upstream, and another one waits for its connection.
fn gauges_while_one_waits(target: &Target<'_>, view: &mut View) {
    let gauges = || {
        let names = "circuit_breakers.(default|high).(remaining_(cx|pending|rq|retries)|(cx|rq|rq_pending|rq_retry)_open)";
        let filter = format!("cluster.tracked.({names}|upstream_rq_active|upstream_rq_pending_active)$");
        target.world.admin("GET", &format!("/stats?filter={}", filter.replace('|', "%7C"))).text()
    };
    let (gate, mut first) = held(target);
    view.add("one in flight", gauges());
    let mut second = RawClient::connect(target.addr).unwrap();
    second.send(b"GET /second HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("a request that waits", || gauges().contains("upstream_rq_pending_active: 1"));
    view.add("one waits", gauges());
    gate.open();
    view.add_answer("first: client", &first.response());
    view.add_answer("second: client", &second.response());
    wait::until("nothing in flight", || gauges().contains("upstream_rq_active: 0"));
    view.add("afterwards", gauges());
    view.add_requests("upstream", &target.world.take_requests());
}

/// While one request is held, the next one overflows; after it, requests pass again.
fn one_held_one_more(target: &Target<'_>, view: &mut View) {
    let (gate, mut first) = held(target);
    let mut second = RawClient::connect(target.addr).unwrap();
    view.add_answer("second: client", &second.get("h", "/second"));
    gate.open();
    view.add_answer("first: client", &first.response());
    view.add_answer("third: client", &second.get("h", "/third"));
    view.add_requests("upstream", &target.world.take_requests());
}

/// With no pending request allowed, a request that needs a new connection overflows at once.
fn no_pending_allowed(target: &Target<'_>, view: &mut View) {
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add_answer("client", &client.get("h", "/"));
}

/// One request is served, one waits for the connection, the third overflows; then the second is served.
fn one_pending(target: &Target<'_>, view: &mut View) {
    let (gate, mut first) = held(target);
    let mut second = RawClient::connect(target.addr).unwrap();
    second.send(b"GET /second HTTP/1.1\r\nhost: h\r\n\r\n");
    // Which of two waiting requests overflows is only known when the second has been read; both proxies read the
    // connections of one worker in the order of arrival, and this one's silence shows that it waits.
    assert!(!second.closes_within(Duration::from_millis(100)));
    let mut third = RawClient::connect(target.addr).unwrap();
    view.add_answer("third: client", &third.get("h", "/third"));
    gate.open();
    view.add_answer("first: client", &first.response());
    view.add_answer("second: client", &second.response());
    view.add_requests("upstream", &target.world.take_requests());
}

/// One request has the only connection, and the second, which waits for it, has no time.
fn one_waits_in_vain(target: &Target<'_>, view: &mut View) {
    let gate = hold(&target.world.up);
    let mut first = RawClient::connect(target.addr).unwrap();
    first.send(b"GET /first HTTP/1.1\r\nhost: h\r\nx-envoy-upstream-rq-timeout-ms: 20000\r\n\r\n");
    wait::until("the first request at the upstream", || target.world.up.recorded() == 1);
    let mut second = RawClient::connect(target.addr).unwrap();
    view.add_answer("second: client", &second.get("h", "/second"));
    gate.open();
    view.add("first", format!("{:?}\n", first.response().map(|answer| answer.status)));
}

/// Routes of both priorities to one cluster.
fn of_both_priorities(cluster: &str) -> Value {
    json!([
        {"match": {"prefix": "/high"}, "route": {"cluster": cluster, "priority": "HIGH"}},
        {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
    ])
}

#[test]
fn priorities_have_limits_of_their_own() {
    fn limits(world: &World, name: &str, default: Value, mut high: Value) -> Vec<Value> {
        high["priority"] = "HIGH".into();
        let limits = json!({"circuit_breakers": {"thresholds": [default, high]}});
        vec![bootstrap::cluster(name, &[world.up.addr()], limits)]
    }
    let case = |name: &'static str| Case::routes(name, of_both_priorities(name));
    compare_cases(&[
        case("requests")
            .clusters(|world| {
                limits(world, "requests", json!({"max_requests": 1}), json!({"max_requests": 2}))
            })
            .drive(a_default_one_held),
        case("none of the high ones")
            .clusters(|world| limits(world, "none of the high ones", json!({}), json!({"max_requests": 0})))
            .paths(&["/high", "/other"]),
        case("none of the others")
            .clusters(|world| {
                limits(world, "none of the others", json!({"max_pending_requests": 0}), json!({}))
            })
            .paths(&["/high", "/high"]),
    ]);
}

/// A request of the default priority is held: the next one overflows, one of the high priority does not.
fn a_default_one_held(target: &Target<'_>, view: &mut View) {
    let gate = Gate::closed();
    let held = gate.clone();
    target.world.up.answer_with(move |request| match request.target.as_str() {
        "/held" => Reply::Hold(held.clone(), Box::new(Reply::Respond(Response::new(200, "late")))),
        _ => Reply::status(200, "at once"),
    });
    let mut first = RawClient::connect(target.addr).unwrap();
    first.send(b"GET /held HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("the first request at the upstream", || target.world.up.recorded() == 1);
    let mut others = RawClient::connect(target.addr).unwrap();
    for path in ["/other", "/high/1", "/other", "/high/2"] {
        view.add_answer(path, &others.get("h", path));
    }
    gate.open();
    view.add_answer("first: client", &first.response());
    view.add_answer("at last", &others.get("h", "/other"));
    view.add_requests("upstream", &target.world.take_requests());
}

#[test]
fn http2_hosts() {
    fn limited(world: &World, name: &str, thresholds: Value) -> Vec<Value> {
        let mut more = bootstrap::http2_upstream();
        more["circuit_breakers"] = json!({"thresholds": [thresholds]});
        vec![bootstrap::cluster(name, &[world.h2.addr()], more)]
    }
    compare_cases(&[
        to("no requests", "none")
            .clusters(|world| limited(world, "none", json!({"max_requests": 0})))
            .paths(&["/"]),
        to("one connection is enough", "one")
            .clusters(|world| limited(world, "one", json!({"max_connections": 1, "max_pending_requests": 1})))
            .paths(&["/1", "/2", "/3"]),
        to("one request", "one-request")
            .clusters(|world| limited(world, "one-request", json!({"max_requests": 1})))
            .drive(|target, view| {
                let gate = Gate::closed();
                let held = gate.clone();
                target.world.h2.answer_with(move |_| {
                    Reply::Hold(held.clone(), Box::new(Reply::Respond(Response::new(200, "late"))))
                });
                let mut first = RawClient::connect(target.addr).unwrap();
                first.send(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n");
                wait::until("the first request at the upstream", || target.world.h2.recorded() == 1);
                let mut second = RawClient::connect(target.addr).unwrap();
                view.add_answer("second: client", &second.get("h", "/second"));
                gate.open();
                view.add_answer("first: client", &first.response());
                view.add_answer("third: client", &second.get("h", "/third"));
                view.add_requests("upstream", &target.world.take_requests());
            }),
    ]);
}
