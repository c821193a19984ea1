//! Bodies against the buffer that keeps them: whether a retry has them whole, and what is counted.

use outrigger_tests::Http2Client;
use outrigger_tests::bootstrap;
use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

use super::quick;

#[test]
fn bodies_that_do_not_fit() {
    const COUNTED: &str = "cluster.up.(retry_or_shadow|upstream_rq_retry|upstream_rq_5)";
    let case = |name: &'static str, limits: Value| {
        let mut host = json!({"name": "v", "domains": ["*"], "include_request_attempt_count": true,
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": quick(json!({"retry_on": "5xx"}))}}]});
        bootstrap::overlay(&mut host, limits);
        Case::hosts(name, json!([host]))
    };
    let length = |path: &str, bytes: usize| {
        format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {bytes}\r\n\r\n{}", "b".repeat(bytes))
    };
    let chunked = |path: &str, chunks: usize| {
        let chunks = "5\r\nabcde\r\n".repeat(chunks);
        format!("POST {path} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    compare_cases(&[
        case("of the virtual host", json!({"request_body_buffer_limit": 20}))
            .send("fits", &length("/recovers/503", 20))
            .send("does not fit", &length("/recovers/503", 21))
            .send("fits in chunks", &chunked("/recovers/503", 4))
            .send("does not fit in chunks", &chunked("/recovers/503", 5)),
        case("counted", json!({"request_body_buffer_limit": 20}))
            .send("twice too large, once well", &length("/recovers/503", 21))
            .send("too large, no retry wanted", &length("/", 21))
            .statistics(COUNTED),
        case("older field", json!({"per_request_buffer_limit_bytes": 20}))
            .send("fits", &length("/recovers/503", 20))
            .send("does not fit", &length("/recovers/503", 21)),
        Case::hosts(
            "of the route",
            json!([{"name": "v", "domains": ["*"], "include_request_attempt_count": true,
                "request_body_buffer_limit": 1000, "routes": [{"match": {"prefix": "/"}, "request_body_buffer_limit": 20,
                    "route": {"cluster": "up", "retry_policy": quick(json!({"retry_on": "5xx"}))}}]}]),
        )
        .send("fits", &length("/recovers/503", 20))
        .send("does not fit", &length("/recovers/503", 21)),
        case("default", json!({}))
            .send("fits", &length("/recovers/503", 1 << 20))
            .send("does not fit", &length("/recovers/503", (1 << 20) + 1)),
        case("nothing fits", json!({"request_body_buffer_limit": 0}))
            .send("empty", &length("/recovers/503", 0))
            .send("one byte", &length("/recovers/503", 1)),
        case("over HTTP/2", json!({"request_body_buffer_limit": 20})).drive(|target, view| {
            for bytes in [20, 21] {
                let client = Http2Client::connect(target.addr).unwrap();
                let body = http_body_util::Full::from("b".repeat(bytes));
                let request = http::Request::post("http://h/recovers/503").body(body).unwrap();
                view.add_answer(format!("{bytes}"), &client.send(request).map_err(std::io::Error::other));
                view.add_requests(format!("{bytes}: upstream"), &target.world.take_requests());
            }
        }),
    ]);
}
