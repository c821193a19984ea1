//! Faults: delays and aborts.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

use super::{chain, filter, filter_config, route, says, typed};

fn percent(numerator: u32) -> Value {
    json!({ "numerator": numerator })
}

fn fault(config: Value) -> Value {
    filter("fault", "fault.v3.HTTPFault", config)
}

fn case(name: &'static str, config: Value) -> Case {
    Case::plain(name).hcm(chain(&[fault(config)]))
}

fn abort(status: u32) -> Value {
    json!({"abort": {"http_status": status, "percentage": percent(100)}})
}

#[test]
fn aborts() {
    let grpc = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let get = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    compare_cases(&[
        case("503", abort(503)).send("GET", get).send("gRPC", grpc),
        case("418", abort(418)).send("GET", get).send("HEAD", "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n"),
        case("never", json!({"abort": {"http_status": 503, "percentage": percent(0)}})).send("GET", get),
        case("no percentage", json!({"abort": {"http_status": 503}})).send("GET", get),
        case("gRPC status", json!({"abort": {"grpc_status": 14, "percentage": percent(100)}}))
            .send("gRPC", grpc)
            .send("GET", get),
        case("another gRPC status", json!({"abort": {"grpc_status": 5, "percentage": percent(100)}}))
            .send("gRPC", grpc)
            .send("GET", get),
        case(
            "body",
            json!({"abort": {"http_status": 500, "percentage": percent(100), "response_body": "on purpose"}}),
        )
        .send("GET", get),
        case("by header", json!({"abort": {"header_abort": {}, "percentage": percent(100)}})).header_lines(
            &[
                "",
                "x-envoy-fault-abort-request: 429\r\n",
                "x-envoy-fault-abort-request: 42\r\n",
                "x-envoy-fault-abort-request: x\r\n",
                "x-envoy-fault-abort-grpc-request: 5\r\n",
                "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 0\r\n",
                "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 100\r\n",
            ],
        ),
        case("nothing", json!({})).send("GET", get),
    ]);
}

#[test]
fn conditions() {
    let with = |more: Value| {
        let mut config = abort(503);
        outrigger_tests::bootstrap::overlay(&mut config, more);
        config
    };
    let lines = ["", "x-fault: yes\r\n", "x-fault: no\r\n", "x-envoy-downstream-service-node: n\r\n"];
    compare_cases(&[
        case("header", with(json!({"headers": [{"name": "x-fault", "string_match": {"exact": "yes"}}]})))
            .header_lines(&lines),
        case("path", with(json!({"headers": [{"name": ":path", "string_match": {"prefix": "/fail"}}]})))
            .paths(&["/", "/fail/x"]),
        case("node", with(json!({"downstream_nodes": ["n"]}))).header_lines(&lines),
        case("cluster", with(json!({"upstream_cluster": "up"}))).paths(&["/"]),
        case("other cluster", with(json!({"upstream_cluster": "up2"}))).paths(&["/"]),
        case("none may be active", with(json!({"max_active_faults": 0}))).paths(&["/"]),
        case("one may be active", with(json!({"max_active_faults": 1}))).paths(&["/", "/"]),
    ]);
}

#[test]
fn delays() {
    let delay = |more: Value| {
        let mut config = json!({"delay": {"fixed_delay": "0.05s", "percentage": percent(100)}});
        outrigger_tests::bootstrap::overlay(&mut config, more);
        config
    };
    compare_cases(&[
        case("fixed", delay(json!({}))).paths(&["/", "/404"]),
        case("never", json!({"delay": {"fixed_delay": "5s", "percentage": percent(0)}})).paths(&["/"]),
        case("and abort", delay(abort(503))).paths(&["/"]),
        case("by header", json!({"delay": {"header_delay": {}, "percentage": percent(100)}})).header_lines(
            &[
                "",
                "x-envoy-fault-delay-request: 20\r\n",
                "x-envoy-fault-delay-request: soon\r\n",
                "x-envoy-fault-delay-request: 9000\r\nx-envoy-fault-delay-request-percentage: 0\r\n",
            ],
        ),
        // The route's time is counted from the end of the delay.
        Case::routes(
            "longer than the timeout",
            json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.4s"}}]),
        )
        .hcm(chain(&[fault(json!({"delay": {"fixed_delay": "0.6s", "percentage": percent(100)}}))]))
        .paths(&["/"]),
        case("with a body", delay(json!({})))
            .send("POST", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello"),
    ]);
}

#[test]
fn routes() {
    let own = |config: Value| says("fault", typed("fault.v3.HTTPFault", config));
    let hosts = |routes: Value, said: Value| json!([{"name": "v", "domains": ["*"], "routes": routes, "typed_per_filter_config": said}]);
    let case = |name: &'static str, hosts: Value, config: Value| {
        Case::hosts(name, hosts).hcm(chain(&[fault(config)])).paths(&["/a", "/b"])
    };
    let routes = || json!([route("/a", own(abort(429))), route("/b", json!({}))]);
    compare_cases(&[
        case("route", hosts(routes(), json!({})), json!({})),
        case("route and chain", hosts(routes(), json!({})), abort(500)),
        case("virtual host", hosts(routes(), own(abort(418))), json!({})),
        case(
            "disabled",
            hosts(
                json!([
                    route("/a", says("fault", filter_config(json!({"disabled": true})))),
                    route("/b", json!({}))
                ]),
                json!({}),
            ),
            abort(500),
        ),
        case(
            "by a FilterConfig",
            hosts(
                json!([
                    route(
                        "/a",
                        says(
                            "fault",
                            filter_config(json!({"config": typed("fault.v3.HTTPFault", abort(418))}))
                        )
                    ),
                    route("/b", json!({}))
                ]),
                json!({}),
            ),
            json!({}),
        ),
        case(
            "a route without an upstream",
            hosts(
                json!([{"match": {"prefix": "/a"}, "direct_response": {"status": 200}, "typed_per_filter_config": own(abort(429))}]),
                json!({}),
            ),
            abort(500),
        ),
        case(
            "weighted cluster",
            hosts(
                json!([{"match": {"prefix": "/a"}, "typed_per_filter_config": own(abort(429)), "route": {"weighted_clusters": {
                    "clusters": [{"name": "up", "weight": 1, "typed_per_filter_config": own(abort(418))}]}}},
                    route("/b", json!({}))]),
                json!({}),
            ),
            json!({}),
        ),
    ]);
}
