//! Which outcomes are tried again, and how often: the upstream's view shows each attempt.

mod back_off;
mod bodies;
mod grpc;
mod hosts;
mod refused_streams;

use outrigger_tests::bootstrap;
use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

/// A virtual host that counts attempts and retries everything to `cluster` by `policy`.
fn retrying(name: &'static str, cluster: &str, policy: Value) -> Case {
    with_action(name, json!({"cluster": cluster, "retry_policy": policy}))
}

fn with_action(name: &'static str, action: Value) -> Case {
    Case::hosts(
        name,
        json!([{"name": "v", "domains": ["*"], "include_request_attempt_count": true,
            "include_attempt_count_in_response": true,
            "routes": [{"match": {"prefix": "/"}, "route": action}]}]),
    )
}

fn on(name: &'static str, words: &str) -> Case {
    retrying(name, "up", quick(json!({ "retry_on": words })))
}

/// A policy without long waits.
fn quick(policy: Value) -> Value {
    let mut quick = json!({"retry_back_off": {"base_interval": "0.001s"}});
    bootstrap::overlay(&mut quick, policy);
    quick
}

#[test]
fn statuses() {
    let paths = ["/", "/recovers/503", "/500", "/502", "/503", "/504", "/409", "/404", "/429"];
    compare_cases(&[
        on("5xx", "5xx").paths(&paths),
        on("gateway error", "gateway-error").paths(&paths),
        on("retriable 4xx", "retriable-4xx").paths(&paths),
        on("two words", "retriable-4xx,gateway-error").paths(&paths),
        on("no word", "").paths(&paths),
        on("unknown word", "nonsense,5xx").paths(&["/500"]),
        retrying(
            "status codes",
            "up",
            quick(json!({"retry_on": "retriable-status-codes", "retriable_status_codes": [404, 429]})),
        )
        .paths(&paths),
        retrying(
            "headers",
            "up",
            quick(json!({"retry_on": "retriable-headers", "retriable_headers": [
                {"name": "x-retriable", "string_match": {"exact": "yes"}}]})),
        )
        .paths(&["/retriable", "/recovers/retriable", "/500"]),
        on("rate limited", "envoy-ratelimited").paths(&["/rate-limited", "/recovers/rate-limited", "/429"]),
        on("rate limited and 5xx", "5xx").paths(&["/rate-limited", "/overloaded"]),
    ]);
}

#[test]
fn resets() {
    let paths = ["/close", "/reset", "/recovers/close", "/recovers/reset", "/garbage", "/recovers/garbage"];
    compare_cases(&[
        on("reset", "reset").paths(&paths),
        on("5xx", "5xx").paths(&paths),
        on("gateway error", "gateway-error").paths(&paths),
        on("connect failure", "connect-failure").paths(&paths),
        on("before the request", "reset-before-request").paths(&paths),
        retrying("refused", "refusing", quick(json!({"retry_on": "connect-failure"}))).paths(&["/"]),
        retrying("refused, reset", "refusing", quick(json!({"retry_on": "reset"}))).paths(&["/"]),
        retrying(
            "refused, before the request",
            "refusing",
            quick(json!({"retry_on": "reset-before-request"})),
        )
        .paths(&["/"]),
        retrying("refused, other words", "refusing", quick(json!({"retry_on": "retriable-4xx,cancelled"})))
            .paths(&["/"]),
        retrying("HTTP/2 reset", "h2", quick(json!({"retry_on": "reset"})))
            .paths(&["/reset", "/recovers/reset"]),
        retrying("HTTP/2 refused stream", "h2", quick(json!({"retry_on": "refused-stream"})))
            .paths(&["/reset", "/503"]),
        retrying("no host", "empty", quick(json!({"retry_on": "5xx"}))).paths(&["/"]),
    ]);
}

#[test]
fn numbers_and_bodies() {
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let chunked =
        "POST /503 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let case = |name: &'static str, more: Value| {
        let mut policy = quick(json!({"retry_on": "5xx"}));
        bootstrap::overlay(&mut policy, more);
        retrying(name, "up", policy)
    };
    compare_cases(&[
        case("default", json!({})).paths(&["/503"]),
        case("none", json!({"num_retries": 0})).paths(&["/503"]),
        case("three", json!({"num_retries": 3})).paths(&["/503", "/recovers/503"]),
        case("bodies", json!({"num_retries": 2}))
            .send("length", &post("/503", "hello"))
            .send("recovers", &post("/recovers/503", "hello"))
            .send("chunked", chunked)
            .send("empty", &post("/503", "")),
        case(
            "only some requests",
            json!({"retriable_request_headers": [{"name": ":method", "string_match": {"exact": "GET"}},
                {"name": "x-retry", "present_match": true}]}),
        )
        .paths(&["/503"])
        .send("POST", &post("/503", ""))
        .send("asked", "POST /503 HTTP/1.1\r\nhost: h\r\nx-retry: 1\r\ncontent-length: 0\r\n\r\n"),
        case(
            "rate-limited back-off that asks for too much",
            json!({"rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}],
                "max_interval": "0.5s"}}),
        )
        .paths(&["/retry-after"]),
        with_action("rate-limited back-off", json!({"cluster": "up", "timeout": "0s", "retry_policy": quick(json!({
            "retry_on": "5xx",
            "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}]}}))}))
        .paths(&["/recovers/retry-after"]),
        Case::hosts(
            "the virtual host's policy",
            json!([{"name": "v", "domains": ["*"], "include_request_attempt_count": true, "retry_policy": quick(json!({"retry_on": "5xx", "num_retries": 2})),
                "routes": [{"match": {"prefix": "/own"}, "route": {"cluster": "up", "retry_policy": {"retry_on": "reset"}}},
                    {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]),
        )
        .paths(&["/503", "/own/503"]),
        case("request headers of clients", json!({"retry_on": ""}))
            .send("not honoured", "GET /503 HTTP/1.1\r\nhost: h\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n\r\n"),
    ]);
}

#[test]
fn attempts_in_time() {
    compare_cases(&[
        with_action(
            "per try",
            json!({"cluster": "up", "timeout": "5s",
            "retry_policy": quick(json!({"retry_on": "5xx", "per_try_timeout": "0.1s"}))}),
        )
        .paths(&["/stall", "/recovers/stall"]),
        with_action(
            "per try without a retry",
            json!({"cluster": "up", "timeout": "5s",
            "retry_policy": quick(json!({"retry_on": "connect-failure", "per_try_timeout": "0.1s"}))}),
        )
        .paths(&["/stall", "/"]),
        with_action(
            "the whole is shorter",
            json!({"cluster": "up", "timeout": "0.15s",
            "retry_policy": quick(json!({"retry_on": "5xx", "num_retries": 5, "per_try_timeout": "0.1s"}))}),
        )
        .paths(&["/stall"]),
        with_action(
            "per try is longer than the whole",
            json!({"cluster": "up", "timeout": "0.1s",
            "retry_policy": quick(json!({"retry_on": "5xx", "per_try_timeout": "3s"}))}),
        )
        .paths(&["/stall"]),
        with_action(
            "idle per try",
            json!({"cluster": "up", "timeout": "5s",
            "retry_policy": quick(json!({"retry_on": "5xx", "per_try_idle_timeout": "0.1s"}))}),
        )
        .paths(&["/stall", "/recovers/stall"]),
    ]);
}
