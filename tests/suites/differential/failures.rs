//! Every way a request ends without an upstream's whole answer.

use outrigger_tests::differential::{Case, Target, View, World, compare_cases};
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
