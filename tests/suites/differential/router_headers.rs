//! `x-envoy-*` headers by which a caller inside tells the router how its request is to be handled.

use outrigger_tests::bootstrap::overlay;
use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

/// Everybody here is inside, and gets this action from a virtual host that counts attempts.
fn inside(name: &'static str, action: Value) -> Case {
    with_router(name, action, json!({}))
}

fn with_router(name: &'static str, action: Value, router: Value) -> Case {
    let mut typed = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    overlay(&mut typed, router);
    counting(name, action).hcm(json!({
        "use_remote_address": true,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": typed}],
    }))
}

fn counting(name: &'static str, action: Value) -> Case {
    let mut route = json!({"cluster": "up"});
    overlay(&mut route, action);
    Case::hosts(
        name,
        json!([{"name": "v", "domains": ["*"], "include_request_attempt_count": true,
            "routes": [{"match": {"prefix": "/"}, "route": route}]}]),
    )
}

/// A policy that has only to be told what to retry.
fn retries(policy: Value) -> Value {
    let mut quick = json!({"retry_back_off": {"base_interval": "0.001s"}});
    overlay(&mut quick, policy);
    json!({ "retry_policy": quick })
}

/// Requests for a path, each with a set of header lines.
trait Sends {
    fn sends(self, path: &str, sets: &[&str]) -> Self;
}

impl Sends for Case {
    fn sends(self, path: &str, sets: &[&str]) -> Self {
        sets.iter().fold(self, |case, lines| {
            let fields: String =
                lines.split('|').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
            case.send(&format!("{path} {lines}"), &format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n"))
        })
    }
}

/// Every header once: who is outside has none of them heard, and none of them passed on.
const ALL: &str = "x-envoy-upstream-rq-timeout-ms: 7000|x-envoy-upstream-rq-per-try-timeout-ms: 3000|x-envoy-max-retries: 2|\
    x-envoy-retry-on: 5xx|x-envoy-retry-grpc-on: cancelled|x-envoy-retriable-status-codes: 404|\
    x-envoy-retriable-header-names: x-retriable|x-envoy-upstream-rq-timeout-alt-response: 1|\
    x-envoy-upstream-alt-stat-name: other|x-envoy-expected-rq-timeout-ms: 8|\
    x-envoy-original-url: http://o/";

#[test]
fn who_is_heard() {
    compare_cases(&[
        inside("inside", json!({})).sends("/500", &[ALL]),
        inside("inside, a policy", retries(json!({"retry_on": "reset"}))).sends("/500", &[ALL]),
        inside("inside, behind another", json!({})).sends("/500", &[&format!("x-forwarded-for: 1.2.3.4|{ALL}")]),
        counting("nobody is inside", json!({})).sends("/500", &[ALL]),
        counting("the edge", json!({})).hcm(json!({"use_remote_address": true})).sends("/500", &[ALL]),
        counting("not the edge", json!({}))
            .hcm(json!({"internal_address_config": {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}}))
            .sends("/500", &[&format!("x-forwarded-for: 10.0.0.1|{ALL}"), &format!("x-forwarded-for: 11.0.0.1|{ALL}")]),
    ]);
}

#[test]
fn timeouts() {
    let sets = [
        "x-envoy-upstream-rq-timeout-ms: 7000",
        "x-envoy-upstream-rq-timeout-ms: 0",
        "x-envoy-upstream-rq-timeout-ms: +5000",
        "x-envoy-upstream-rq-timeout-ms: -1",
        "x-envoy-upstream-rq-timeout-ms: soon",
        "x-envoy-upstream-rq-timeout-ms: 5s",
        "x-envoy-upstream-rq-timeout-ms:",
        "x-envoy-upstream-rq-timeout-ms: 9223372036854775807",
        "x-envoy-upstream-rq-timeout-ms: 9223372036854775808",
        "x-envoy-upstream-rq-timeout-ms: 18446744073709551615",
        "x-envoy-upstream-rq-timeout-ms: 18446744073709551616",
        "x-envoy-upstream-rq-timeout-ms: 5000|x-envoy-upstream-rq-timeout-ms: 6000",
        "x-envoy-upstream-rq-per-try-timeout-ms: 3000",
        "x-envoy-upstream-rq-per-try-timeout-ms: 0",
        "x-envoy-upstream-rq-per-try-timeout-ms: 60000",
        "x-envoy-upstream-rq-per-try-timeout-ms: x",
        "x-envoy-upstream-rq-per-try-timeout-ms: 18446744073709551615",
        "x-envoy-upstream-rq-timeout-ms: 18446744073709551615|x-envoy-upstream-rq-per-try-timeout-ms: 3000",
        "x-envoy-upstream-rq-timeout-ms: 5000|x-envoy-upstream-rq-per-try-timeout-ms: 3000",
        "x-envoy-upstream-rq-timeout-ms: 3000|x-envoy-upstream-rq-per-try-timeout-ms: 3000",
        "x-envoy-upstream-rq-timeout-ms: 0|x-envoy-upstream-rq-per-try-timeout-ms: 3000",
        "x-envoy-expected-rq-timeout-ms: 900|x-envoy-upstream-rq-timeout-ms: 5000",
        "x-envoy-expected-rq-timeout-ms: 900",
        "x-envoy-expected-rq-timeout-ms: x|x-envoy-upstream-rq-timeout-ms: 5000",
    ];
    let stalls = [
        "x-envoy-upstream-rq-timeout-ms: 300",
        "x-envoy-upstream-rq-per-try-timeout-ms: 300",
        "x-envoy-upstream-rq-per-try-timeout-ms: 300|x-envoy-retry-on: 5xx",
        "x-envoy-upstream-rq-timeout-ms: 300|x-envoy-upstream-rq-timeout-alt-response: 0",
        "x-envoy-upstream-rq-per-try-timeout-ms: 300|x-envoy-upstream-rq-timeout-alt-response: 1",
        "x-envoy-upstream-rq-timeout-alt-response:|x-envoy-upstream-rq-timeout-ms: 300",
    ];
    let policy = || retries(json!({"retry_on": "5xx", "per_try_timeout": "2s"}));
    let grpc = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n";
    compare_cases(&[
        inside("the usual", json!({})).sends("/", &sets).sends("/stall", &stalls),
        inside("the route's", json!({"timeout": "4s"})).sends("/", &sets),
        inside("none", json!({"timeout": "0s"})).sends("/", &sets).sends("/stall", &stalls),
        inside("with retries", policy()).sends("/", &sets).sends("/stall", &stalls),
        with_router("told before", json!({}), json!({"respect_expected_rq_timeout": true}))
            .sends("/", &sets)
            .sends("/stall", &["x-envoy-expected-rq-timeout-ms: 300|x-envoy-upstream-rq-timeout-ms: 5000"]),
        with_router("not told", json!({}), json!({"suppress_envoy_headers": true}))
            .sends("/", &sets)
            .sends("/stall", &stalls),
        inside("gRPC", json!({"max_grpc_timeout": "9s"}))
            .send(
                "timeout",
                &format!("{grpc}grpc-timeout: 8S\r\nx-envoy-upstream-rq-timeout-ms: 5000\r\n\r\n"),
            )
            .send("per try", &format!("{grpc}x-envoy-upstream-rq-per-try-timeout-ms: 5000\r\n\r\n"))
            .send("off", &format!("{grpc}x-envoy-upstream-rq-timeout-ms: 0\r\n\r\n")),
    ]);
}

#[test]
fn stream_duration() {
    compare_cases(&[
        inside("none", json!({})).sends("/", &["x-envoy-upstream-stream-duration-ms: 5000"]).sends(
            "/stall",
            &[
                "x-envoy-upstream-stream-duration-ms: 100",
                "x-envoy-upstream-stream-duration-ms: 0|x-envoy-upstream-rq-timeout-ms: 100",
                "x-envoy-upstream-stream-duration-ms: x|x-envoy-upstream-rq-timeout-ms: 100",
            ],
        ),
        inside("with retries", retries(json!({"retry_on": "5xx"})))
            .sends("/stall", &["x-envoy-upstream-stream-duration-ms: 100"])
            .sends("/recovers/stall", &["x-envoy-upstream-stream-duration-ms: 100"]),
        counting("from outside", json!({"timeout": "0.2s"}))
            .sends("/stall", &["x-envoy-upstream-stream-duration-ms: 100"]),
    ]);
}

#[test]
fn what_is_retried() {
    let sets = [
        "x-envoy-retry-on: 5xx",
        "x-envoy-retry-on: reset , 5xx",
        "x-envoy-retry-on: nonsense",
        "x-envoy-retry-on:",
        "x-envoy-retry-on: cancelled",
        "x-envoy-retry-on: reset|x-envoy-retry-on: 5xx",
        "x-envoy-retry-grpc-on: 5xx",
        "x-envoy-retry-on: 5xx|x-envoy-max-retries: 3",
        "x-envoy-retry-on: 5xx|x-envoy-max-retries: 0",
        "x-envoy-retry-on: 5xx|x-envoy-max-retries: x",
        "x-envoy-retry-on: 5xx|x-envoy-max-retries: -1",
        "x-envoy-retry-on: 5xx|x-envoy-max-retries: 4294967297",
        "x-envoy-retry-on: 5xx|x-envoy-max-retries: 18446744073709551616",
        "x-envoy-max-retries: 3",
        "x-envoy-retry-on: retriable-status-codes|x-envoy-retriable-status-codes: 500",
        "x-envoy-retry-on: retriable-status-codes|x-envoy-retriable-status-codes: 404 , x,500",
        "x-envoy-retry-on: retriable-status-codes|x-envoy-retriable-status-codes: 4294967796",
        "x-envoy-retriable-status-codes: 500",
        "x-envoy-hedge-on-per-try-timeout: true",
    ];
    let headers = [
        "x-envoy-retry-on: retriable-headers|x-envoy-retriable-header-names: X-Retriable",
        "x-envoy-retry-on: retriable-headers|x-envoy-retriable-header-names: x-other, x-retriable",
        "x-envoy-retry-on: retriable-headers|x-envoy-retriable-header-names: not a name",
        "x-envoy-retry-on: retriable-headers",
    ];
    let grpc = |case: Case, path: &str, lines: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"
        );
        case.send(&format!("{path} {lines}"), &format!("{head}{lines}\r\n\r\n"))
    };
    let grpcs = |case: Case| {
        let case = grpc(case, "/grpc-1", "x-envoy-retry-grpc-on: cancelled");
        let case = grpc(case, "/grpc-14", "x-envoy-retry-grpc-on: cancelled, unavailable");
        let case = grpc(case, "/grpc-8", "x-envoy-retry-grpc-on: cancelled");
        grpc(case, "/grpc-1", "x-envoy-retry-on: cancelled")
    };
    let post =
        "POST /recovers/503 HTTP/1.1\r\nhost: h\r\nx-envoy-retry-on: 5xx\r\ncontent-length: 5\r\n\r\nhello";
    compare_cases(&[
        grpcs(inside("no policy", json!({})).sends("/500", &sets).sends("/retriable", &headers)).send("a body", post),
        inside("a policy", retries(json!({"retry_on": "retriable-4xx", "num_retries": 2})))
            .sends("/500", &sets)
            .sends("/409", &["", "x-envoy-max-retries: 4", "x-envoy-max-retries: 0", "x-envoy-retry-on: 5xx"])
            .sends("/retriable", &headers),
        inside(
            "codes of both",
            retries(json!({"retry_on": "retriable-status-codes", "retriable_status_codes": [404]})),
        )
        .sends("/404", &["x-envoy-retriable-status-codes: 500"])
        .sends("/500", &["x-envoy-retriable-status-codes: 500"]),
        inside(
            "only some requests",
            retries(json!({"retry_on": "5xx", "retriable_request_headers": [{"name": "x-retry", "present_match": true}]})),
        )
        .sends("/500", &["x-envoy-retry-on: 5xx", "x-envoy-retry-on: 5xx|x-retry: 1|x-envoy-max-retries: 2"]),
        with_router("words of the route", json!({}), json!({})).sends("/500", &["x-envoy-retry-on: reset"]),
    ]);
}

/// Filters and routes may say it as well: of retries the router is told after the route's headers, of timeouts before.
#[test]
fn added_here() {
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let adds = |name: &str, value: &str| json!({"header": {"key": name, "value": value}});
    let mutation = |headers: &[(&str, &str)]| {
        let mutations: Vec<Value> =
            headers.iter().map(|(name, value)| json!({"append": adds(name, value)})).collect();
        json!({"http_filters": [{"name": "m", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": mutations}}}, router]})
    };
    let route = |name: &'static str, headers: Value| {
        Case::hosts(
            name,
            json!([{"name": "v", "domains": ["*"], "include_request_attempt_count": true,
                "routes": [{"match": {"prefix": "/"}, "request_headers_to_add": headers, "route": {"cluster": "up"}}]}]),
        )
    };
    compare_cases(&[
        counting("a filter", json!({}))
            .hcm(mutation(&[("x-envoy-retry-on", "5xx"), ("x-envoy-upstream-rq-timeout-ms", "9000")]))
            .sends("/500", &["", "x-envoy-retry-on: 5xx"]),
        route(
            "a route",
            json!([
                adds("x-envoy-retry-on", "5xx"),
                adds("x-envoy-max-retries", "2"),
                adds("x-envoy-upstream-rq-timeout-ms", "9000")
            ]),
        )
        .sends("/500", &["", "x-envoy-retry-on: reset"]),
    ]);
}
