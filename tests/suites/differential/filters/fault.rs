//! Faults: delays and aborts.

use std::time::Instant;

use outrigger_tests::RawClient;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
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
                "x-envoy-fault-abort-request: 199\r\n",
                "x-envoy-fault-abort-request: 600\r\n",
                "x-envoy-fault-abort-request: 42\r\nx-envoy-fault-abort-grpc-request: 5\r\n",
                "x-envoy-fault-abort-grpc-request: 5\r\n",
                "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 0\r\n",
                "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 100\r\n",
            ],
        ),
        case("fixed, whatever the request asks for", abort(503))
            .header_lines(&["x-envoy-fault-abort-request-percentage: 0\r\n"]),
        case(
            "by header, of ten thousand",
            json!({"abort": {"header_abort": {}, "percentage": {"numerator": 10_000, "denominator": "TEN_THOUSAND"}}}),
        )
        .header_lines(&[
            "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 10000\r\n",
            "x-envoy-fault-abort-request: 503\r\nx-envoy-fault-abort-request-percentage: 0\r\n",
        ]),
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

/// Sends it and says within which of these the whole response came.
fn paced(target: &Target<'_>, view: &mut View, request: &str) {
    let mut client = RawClient::connect(target.addr).unwrap();
    let start = Instant::now();
    client.send(request.as_bytes());
    view.add_answer("client", &client.response());
    // A busy machine makes it longer, never shorter.
    let slow = start.elapsed().as_millis() >= 500;
    view.add("half a second at least", format!("  {slow}\n"));
}

#[test]
fn slow_responses() {
    let limit = |limit: Value, more: Value| {
        let mut limit = json!({"response_rate_limit": limit});
        limit["response_rate_limit"]["percentage"] = percent(100);
        outrigger_tests::bootstrap::overlay(&mut limit, more);
        limit
    };
    let fixed = |kbps: u64| limit(json!({"fixed_limit": {"limit_kbps": kbps}}), json!({}));
    /// A case with a `stat_prefix` of its own.
    fn slow(name: &'static str, prefix: &str, config: Value) -> Case {
        let mut hcm = chain(&[fault(config)]);
        hcm["stat_prefix"] = json!(prefix);
        Case::plain(name).hcm(hcm)
    }
    let get = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    // 768 bytes at 1 KiB/s: 51 at once, the rest within 0.7 s.
    fn answer_768(target: &Target<'_>) {
        let response = outrigger_tests::message::Response::new(200, "x".repeat(768));
        target.world.up.answer(Reply::Respond(response));
    }
    compare_cases(&[
        slow("1 KiB a second", "r1", fixed(1))
            .drive(|target, view| {
                answer_768(target);
                paced(target, view, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            })
            .statistics("^http.r1.fault"),
        slow("chunks and their end", "r2", fixed(1)).paths(&["/chunked", "/204", "/large-not"]),
        slow("a MiB at once", "r3", fixed(1 << 20)).paths(&["/large"]),
        slow("never", "r4", json!({"response_rate_limit": {"fixed_limit": {"limit_kbps": 1}, "percentage": percent(0)}}))
            .paths(&["/large"])
            .statistics("^http.r4.fault"),
        slow("by header", "r5", limit(json!({"header_limit": {}}), json!({})))
            .drive(|target, view| {
                answer_768(target);
                for lines in [
                    "",
                    "x-envoy-fault-throughput-response: 1\r\n",
                    "x-envoy-fault-throughput-response: 0\r\n",
                    "x-envoy-fault-throughput-response: fast\r\n",
                    "x-envoy-fault-throughput-response: 1\r\nx-envoy-fault-throughput-response-percentage: 0\r\n",
                ] {
                    paced(target, view, &format!("GET / HTTP/1.1\r\nhost: h\r\n{lines}\r\n"));
                }
            })
            .statistics("^http.r5.fault"),
        slow("none may be active", "r6", limit(json!({"fixed_limit": {"limit_kbps": 1}}), json!({"max_active_faults": 0})))
            .drive(|target, view| {
                answer_768(target);
                paced(target, view, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            })
            .statistics("^http.r6.fault"),
        slow("and abort", "r7", limit(json!({"fixed_limit": {"limit_kbps": 1}}),
            json!({"abort": {"http_status": 503, "percentage": percent(100), "response_body": "y".repeat(700)}})))
            .drive(|target, view| paced(target, view, "GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
            .statistics("^http.r7.fault"),
        {
            let mut hcm = chain(&[fault(fixed(1))]);
            hcm["stat_prefix"] = json!("r8");
            Case::routes(
                "longer than the timeout",
                json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.3s"}}]),
            )
            .hcm(hcm)
            .drive(|target, view| {
                answer_768(target);
                paced(target, view, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            })
        },
        slow("trailers", "r9", fixed(1)).send("trailers", &get.replace("/ ", "/trailers ")),
    ]);
}
