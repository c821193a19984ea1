//! Every way a request ends without an upstream's whole answer.

use std::time::Duration;

use outrigger_tests::differential::{Case, Target, View, World, compare_cases, hold};
use outrigger_tests::{RawClient, bootstrap, client::get, wait};
use serde_json::{Value, json};

fn to(name: &'static str, cluster: &str) -> Case {
    Case::routes(name, bootstrap::to(cluster))
}

const BODY_WAITS: &str = "a body is read once there is somebody to send it to; Envoy buffers it meanwhile";
const HEAD_HAS_NO_BODY: &str = "Envoy announces a chunked body that a HEAD never has";
const CUT_IS_TERMINATION: &str =
    "Envoy calls a body that was cut a protocol error; ours says that the connection ended";

#[test]
fn no_upstream() {
    let post = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";
    let validate_off = |routes: Value| {
        let mut config = json!({"name": "local_route", "virtual_hosts": bootstrap::any_host(routes)});
        config["validate_clusters"] = false.into();
        json!({"route_config": config})
    };
    compare_cases(&[
        Case::routes("no route", json!([{"match": {"path": "/only"}, "route": {"cluster": "up"}}]))
            .paths(&["/other"])
            .send("POST", post)
            .send("HEAD", "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n")
            .deviates("HEAD: client", HEAD_HAS_NO_BODY),
        Case::plain("missing cluster")
            .hcm(validate_off(bootstrap::to("missing")))
            .paths(&["/"])
            .send("POST", post),
        Case::plain("missing cluster, 404")
            .hcm(validate_off(json!([{"match": {"prefix": "/"}, "route": {
                "cluster": "missing", "cluster_not_found_response_code": "NOT_FOUND"}}])))
            .paths(&["/"]),
        to("no endpoint", "empty").paths(&["/"]).send("POST", post),
        to("refused", "refusing")
            .paths(&["/"])
            .send("POST", post)
            .deviates("default log 2", BODY_WAITS)
            .deviates("istio log 2", BODY_WAITS),
    ]);
}

#[test]
fn broken_upstreams() {
    compare_cases(&[
        to("http1", "up")
            .paths(&["/close", "/reset", "/reset-after-head", "/garbage"])
            .send("POST", "POST /reset HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello")
            .deviates("default log 3", CUT_IS_TERMINATION)
            .deviates("istio log 3", CUT_IS_TERMINATION),
        to("http2", "h2").paths(&["/reset", "/reset-after-head"]),
    ]);
}

fn limited(world: &World, name: &str, thresholds: Value) -> Value {
    bootstrap::cluster(name, &[world.up.addr()], json!({"circuit_breakers": {"thresholds": [thresholds]}}))
}

#[test]
fn circuit_breakers() {
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
    ]);
}

/// One request is at the upstream, and another one waits for its connection.
fn gauges_while_one_waits(target: &Target<'_>, view: &mut View) {
    let gauges = || {
        let names = "circuit_breakers.(default|high).(remaining_(cx|pending|rq|retries)|(cx|rq|rq_pending|rq_retry)_open)";
        let filter = format!("cluster.tracked.({names}|upstream_rq_active|upstream_rq_pending_active)$");
        target.world.admin("GET", &format!("/stats?filter={}", filter.replace('|', "%7C"))).text()
    };
    let gate = hold(&target.world.up);
    let mut first = RawClient::connect(target.addr).unwrap();
    first.send(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("the first request at the upstream", || target.world.up.recorded() == 1);
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

fn ejecting(world: &World, name: &str, more: Value) -> Value {
    let mut settings = json!({"outlier_detection": {
        "consecutive_5xx": 3, "max_ejection_percent": 100, "base_ejection_time": "60s", "interval": "60s"}});
    bootstrap::overlay(&mut settings, more);
    bootstrap::cluster(name, &[world.up.addr()], settings)
}

/// Requests that fail three times in a row, and one more when the ejection is known everywhere. Envoy ejects on its main thread
/// and tells its workers a moment later; ours ejects at once.
fn one_more_when_ejected(target: &Target<'_>, view: &mut View, cluster: &str, paths: &[&str]) {
    let mut client = RawClient::connect(target.addr).unwrap();
    for path in paths {
        view.add_answer(*path, &client.get("h", path));
    }
    let counted = format!("cluster.{cluster}.outlier_detection.ejections_active: 1");
    let is_counted = || get(target.world.bootstrap.admin, "admin", "/stats").text().contains(&counted);
    wait::until("the ejection", is_counted);
    // Two more looks at main, so that what it told the workers before has arrived.
    assert!(is_counted() && is_counted());
    view.add_answer("when it is ejected", &client.get("h", "/ok"));
    view.add_requests("upstream", &target.world.take_requests());
}

const THREE_IN_A_ROW: [&str; 6] = ["/503", "/503", "/ok", "/503", "/503", "/503"];

#[test]
fn ejection() {
    fn no_panic(world: &World, name: &str) -> Vec<Value> {
        let never = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}});
        vec![ejecting(world, name, never)]
    }
    compare_cases(&[
        to("no panic", "ejecting")
            .clusters(|world| no_panic(world, "ejecting"))
            .drive(|target, view| one_more_when_ejected(target, view, "ejecting", &THREE_IN_A_ROW)),
        to("panic at 50 %", "panicking")
            .clusters(|world| vec![ejecting(world, "panicking", Value::Null)])
            .drive(|target, view| one_more_when_ejected(target, view, "panicking", &THREE_IN_A_ROW)),
        to("resets count", "resetting").clusters(|world| no_panic(world, "resetting")).drive(
            |target, view| {
                one_more_when_ejected(target, view, "resetting", &["/reset", "/close", "/reset"]);
            },
        ),
    ]);
}

/// While one request is held, the next one overflows; after it, requests pass again.
fn one_held_one_more(target: &Target<'_>, view: &mut View) {
    let gate = hold(&target.world.up);
    let mut first = RawClient::connect(target.addr).unwrap();
    first.send(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("the first request at the upstream", || target.world.up.recorded() == 1);
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
    let gate = hold(&target.world.up);
    let mut first = RawClient::connect(target.addr).unwrap();
    first.send(b"GET /first HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("the first request at the upstream", || target.world.up.recorded() == 1);
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
