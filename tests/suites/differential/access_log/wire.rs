//! Bytes on the wire and bytes of header fields. HTTP/2 compresses fields by what its peers have seen before, so nobody's numbers are
//! anybody else's; ours prints none.

use outrigger_tests::bootstrap::type_url;
use serde_json::{Value, json};

use super::{Row, compare_logs, get};

const DOWNSTREAM: &str = "%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_HEADER_BYTES_RECEIVED% \
    %DOWNSTREAM_HEADER_BYTES_SENT% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%";
const UPSTREAM: &str = "%UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_HEADER_BYTES_RECEIVED% \
    %UPSTREAM_HEADER_BYTES_SENT% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%";

/// The time that the upstream takes has one digit or two.
fn without_times() -> Value {
    json!({"http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
        "@type": type_url("extensions.filters.http.router.v3.Router"), "suppress_envoy_headers": true}}]})
}

#[test]
fn of_http1() {
    let chunked =
        "POST /chunked HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let exchanges = |name, format: &str| {
        Row::text(name, format, &["/p", "/503", "/away", "/chunked"])
            .hcm(without_times())
            .send("POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello".into())
            .send(chunked.into())
            .send("HEAD /p HTTP/1.1\r\nhost: h\r\n\r\n".into())
            .send(get("/p", "x-a: 1\r\nX-A:   2  \r\ncookie: a=1\r\ncookie: b=2\r\n"))
    };
    let retried = json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": {
        "retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}}}]);
    // What Envoy says of uncompressed fields grows with each attempt by all those before.
    let (compressed, _) = UPSTREAM.split_at(UPSTREAM.find(" %UPSTREAM_DECOMPRESSED").unwrap());
    let mut attempts = Row::text("all attempts", compressed, &["/503", "/p"]).hcm(without_times());
    attempts.routes = retried;
    compare_logs(&[
        exchanges("the client's side", DOWNSTREAM),
        exchanges("the upstream's side", UPSTREAM),
        attempts,
    ]);
}

/// Requests of one connection are counted one by one; and values of JSON are numbers.
#[test]
fn of_one_connection() {
    let two = "GET /a HTTP/1.1\r\nhost: h\r\n\r\n";
    let format = json!({"json_format": {"in": "%DOWNSTREAM_WIRE_BYTES_RECEIVED%", "out": "%UPSTREAM_WIRE_BYTES_SENT%"}});
    compare_logs(&[Row::new("again and again", format, &[]).hcm(without_times()).send_in_turns(&[
        two,
        two,
        &two.replace("/a", "/longer"),
    ])]);
}
