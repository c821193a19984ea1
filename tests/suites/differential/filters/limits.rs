//! The local rate limit and the buffer.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

use super::{chain, filter, filter_config, route, says, typed};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// Two tokens, and no more while the test lasts.
pub(super) fn limit(more: Value) -> Value {
    let always = json!({"default_value": {"numerator": 100}});
    let mut limit = json!({"stat_prefix": "limit",
        "token_bucket": {"max_tokens": 2, "fill_interval": "3600s"},
        "filter_enabled": always, "filter_enforced": always});
    outrigger_tests::bootstrap::overlay(&mut limit, more);
    limit
}

fn limited(name: &'static str, more: Value) -> Case {
    Case::plain(name)
        .hcm(chain(&[filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", limit(more))]))
        .send("1", GET)
        .send("2", GET)
        .send("3", GET)
}

#[test]
fn local_rate_limits() {
    let never = json!({"default_value": {"numerator": 0}});
    let grpc = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let added = json!([{"header": {"key": "x-limited", "value": "yes"}}]);
    compare_cases(&[
        limited("two", json!({})).send("gRPC", grpc),
        limited("status", json!({"status": {"code": 503}})),
        limited("status below 400", json!({"status": {"code": 200}})),
        limited("headers", json!({ "response_headers_to_add": added })),
        limited("not enabled", json!({"filter_enabled": never.clone()})),
        limited(
            "not enforced",
            json!({"filter_enforced": never, "request_headers_to_add_when_not_enforced": added}),
        ),
        limited("resource exhausted", json!({"rate_limited_as_resource_exhausted": true})).send("gRPC", grpc),
        Case::routes(
            "routes",
            json!([
                route(
                    "/own",
                    says(
                        "local_ratelimit",
                        typed(
                            "local_ratelimit.v3.LocalRateLimit",
                            limit(json!({"token_bucket": {"max_tokens": 1, "fill_interval": "3600s"}}))
                        )
                    )
                ),
                route("/free", says("local_ratelimit", filter_config(json!({"disabled": true})))),
                route("/", json!({}))
            ]),
        )
        .hcm(chain(&[filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", limit(json!({})))]))
        .paths(&["/own", "/own", "/free", "/1", "/2", "/3", "/free"]),
    ]);
}

#[test]
fn buffers() {
    let post = |length: usize| {
        format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length))
    };
    let chunked =
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let buffer = || filter("buffer", "buffer.v3.Buffer", json!({"max_request_bytes": 10}));
    let said = |config: Value| says("buffer", typed("buffer.v3.BufferPerRoute", config));
    compare_cases(&[
        Case::plain("ten bytes")
            .hcm(chain(&[buffer()]))
            .send("none", GET)
            .send("five", &post(5))
            .send("ten", &post(10))
            .send("eleven", &post(11))
            .send("chunked", chunked),
        {
            let mut hcm = chain(&[buffer()]);
            hcm["request_timeout"] = json!("0.3s");
            Case::plain("a client that stops in the middle")
                .hcm(hcm)
                .send("half", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf")
        },
        Case::routes(
            "routes",
            json!([
                route("/more", said(json!({"buffer": {"max_request_bytes": 20}}))),
                route("/off", said(json!({"disabled": true}))),
                route("/", json!({}))
            ]),
        )
        .hcm(chain(&[buffer()]))
        .send("more", &post(15).replace("POST /", "POST /more"))
        .send("off", &chunked.replace("POST /", "POST /off")),
    ]);
}
