//! `proxy_status_config`: a header of every failed response says why.

use outrigger_tests::bootstrap;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, Response};
use serde_json::{Value, json};

fn routes() -> Value {
    let rate_limited = json!({"envoy.filters.http.local_ratelimit": {
        "@type": bootstrap::type_url("extensions.filters.http.local_ratelimit.v3.LocalRateLimit"), "stat_prefix": "none",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": {"numerator": 100}}, "filter_enforced": {"default_value": {"numerator": 100}}}});
    json!([
        {"match": {"prefix": "/away"}, "route": {"cluster": "refusing"}},
        {"match": {"prefix": "/empty"}, "route": {"cluster": "empty"}},
        {"match": {"prefix": "/missing"}, "route": {"cluster": "missing"}},
        {"match": {"prefix": "/full"}, "route": {"cluster": "full"}},
        {"match": {"prefix": "/slow"}, "route": {"cluster": "up", "timeout": "0.1s"}},
        {"match": {"prefix": "/silent"}, "route": {"cluster": "up", "idle_timeout": "0.1s"}},
        {"match": {"prefix": "/again"}, "route": {"cluster": "up", "timeout": "0s", "retry_policy": {"retry_on": "5xx", "num_retries": 1}}},
        {"match": {"prefix": "/limited"}, "route": {"cluster": "up"}, "typed_per_filter_config": rate_limited},
        {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
        {"match": {"prefix": "/up"}, "route": {"cluster": "up"}},
        {"match": {"prefix": "/h2"}, "route": {"cluster": "h2"}},
    ])
}

fn case(name: &'static str, config: Value) -> Case {
    let routes = json!({"name": "local_route", "virtual_hosts": bootstrap::any_host(routes()), "validate_clusters": false});
    let filters = json!([
        {"name": "envoy.filters.http.local_ratelimit", "typed_config": {
            "@type": bootstrap::type_url("extensions.filters.http.local_ratelimit.v3.LocalRateLimit"), "stat_prefix": "none"}},
        {"name": "envoy.filters.http.router", "typed_config": {"@type": bootstrap::type_url("extensions.filters.http.router.v3.Router")}},
    ]);
    Case::plain(name)
        .hcm(json!({"route_config": routes, "http_filters": filters, "proxy_status_config": config}))
}

/// Every way to fail, and what is no failure.
fn whole(name: &'static str, config: Value) -> Case {
    case(name, config)
        .clusters(|world| {
            let limits = json!({"circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 0}]}});
            vec![bootstrap::cluster("full", &[world.up.addr()], limits)]
        })
        .paths(&["/nowhere", "/away", "/empty", "/missing", "/full", "/slow/stall", "/silent/stall"])
        .paths(&["/up/close", "/up/reset", "/up/garbage", "/h2/reset", "/again/503", "/again/reset"])
        .paths(&["/limited/", "/limited/", "/direct", "/up/503", "/up/"])
        .send("gRPC", "GET /nowhere HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n\r\n")
        .send("HEAD", "HEAD /empty HTTP/1.1\r\nhost: h\r\n\r\n")
        .send("no host", "GET / HTTP/1.1\r\n\r\n")
}

#[test]
fn every_failure() {
    compare_cases(&[whole("as it is", json!({}))]);
}

#[test]
fn options() {
    let some = |name, config| case(name, config).paths(&["/nowhere", "/away", "/up/"]);
    compare_cases(&[
        some("no details", json!({"remove_details": true})),
        some("no flags", json!({"remove_response_flags": true})),
        some("no termination details", json!({"remove_connection_termination_details": true})),
        some("a name", json!({"literal_proxy_name": "edge-1"})),
        some("no name", json!({"literal_proxy_name": ""})),
        some("the node", json!({"use_node_id": true})),
        some("not the node", json!({"use_node_id": false})),
        some("the server", json!({})).hcm(json!({"proxy_status_config": {}, "server_name": "gate \"1\""})),
        some("replies of its own", json!({})).hcm(json!({"proxy_status_config": {}, "via": "me", "local_reply_config": {
            "body_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE% %RESP(proxy-status)%"}}}})),
    ]);
}

#[test]
fn the_recommended_status() {
    compare_cases(&[whole("recommended", json!({"set_recommended_response_code": true}))
        .statistics("^http.ingress.downstream_rq_[1-5]xx")]);
}

/// Behind what a proxy before this one has said.
fn behind_another(target: &Target<'_>, view: &mut View) {
    target.world.up.answer_with(|request| match request.target.as_str() {
        "/up/one" => {
            Reply::Respond(Response::new(504, "").header("proxy-status", "inner; error=dns_timeout"))
        }
        _ => Reply::Respond(
            Response::new(502, "")
                .header("proxy-status", "inner; error=dns_error")
                .header("Proxy-Status", "outer"),
        ),
    });
    for path in ["/up/one", "/up/two", "/again/one", "/again/two"] {
        view.add_answer(path, &RawClient::connect(target.addr).unwrap().get("h", path));
    }
    view.add_requests("upstream", &target.world.take_requests());
}

#[test]
fn more_than_one_proxy() {
    compare_cases(&[case("another", json!({})).drive(behind_another)]);
}
