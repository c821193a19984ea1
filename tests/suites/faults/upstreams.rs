//! Upstreams that refuse, reset and stall.

use outrigger_tests::addr::RefusingAddr;
use outrigger_tests::bootstrap::{cluster, to};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Response, Upstream, client, wait};
use serde_json::{Value, json};

use super::Fixture;

fn with_timeout() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.1s"}}])
}

#[test]
fn a_refusing_upstream_is_a_503_with_uf() {
    let nobody = RefusingAddr::reserve();
    let fixture = Fixture::start(to("up"), &[cluster("up", &[nobody.addr()], json!({}))]);
    let response = client::get(fixture.addr, "h", "/");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("connection failure"), "{}", response.text());
    assert_eq!(fixture.into_log(), ["503 UF /"]);
}

#[test]
fn a_reset_before_the_headers_is_a_503_with_uc() {
    let upstream = Upstream::start();
    let fixture = Fixture::start(to("up"), &[cluster("up", &[upstream.addr()], json!({}))]);
    for reply in [Reply::Reset, Reply::Close] {
        upstream.answer(reply);
        let response = client::get(fixture.addr, "h", "/");
        assert_eq!(response.status, 503);
        assert!(response.text().contains("connection termination"), "{}", response.text());
    }
    upstream.answer(Reply::status(200, "back"));
    assert_eq!(client::get(fixture.addr, "h", "/").text(), "back");
    assert_eq!(fixture.into_log(), ["503 UC /", "503 UC /", "200 - /"]);
}

#[test]
fn a_reset_after_the_headers_cuts_the_response_and_is_flagged() {
    let upstream = Upstream::start();
    upstream.answer(Reply::ResetAfterHead(Response::new(200, vec![b'x'; 10_000])));
    let fixture = Fixture::start(to("up"), &[cluster("up", &[upstream.addr()], json!({}))]);
    let mut client = outrigger_tests::RawClient::connect(fixture.addr).unwrap();
    // The head has gone out with 200; all that is left is to cut the body, so that nobody takes half for the whole.
    assert!(client.get("h", "/").is_err());
    let log = fixture.into_log();
    assert!(matches!(log.as_slice(), [line] if line == "200 UC /" || line == "200 UPE /"), "{log:?}");
}

#[test]
fn a_stalling_upstream_is_a_504_with_ut_and_its_connection_is_not_used_again() {
    let upstream = Upstream::start();
    upstream.answer(Reply::Stall);
    let fixture = Fixture::start(with_timeout(), &[cluster("up", &[upstream.addr()], json!({}))]);
    let response = client::get(fixture.addr, "h", "/");
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    wait::until("the stalled connection is closed", || upstream.open_connections() == 0);
    upstream.answer(Reply::status(200, "back"));
    assert_eq!(client::get(fixture.addr, "h", "/").text(), "back");
    assert_eq!(upstream.requests_per_connection(), [1, 1]);
    assert_eq!(fixture.into_log(), ["504 UT /", "200 - /"]);
}

#[test]
fn an_upstream_that_sends_no_http_is_a_502_or_503_with_upe() {
    let upstream = Upstream::start();
    upstream.answer(Reply::Raw(b"this is not HTTP\r\n\r\n".into()));
    let fixture = Fixture::start(to("up"), &[cluster("up", &[upstream.addr()], json!({}))]);
    assert_eq!(client::get(fixture.addr, "h", "/").status, 502);
    assert_eq!(fixture.into_log(), ["502 UPE /"]);
}

#[test]
fn an_idle_connection_that_the_upstream_closed_fails_no_request() {
    let upstream = Upstream::start();
    let fixture = Fixture::start(to("up"), &[cluster("up", &[upstream.addr()], json!({}))]);
    for round in 0..50 {
        assert_eq!(client::get(fixture.addr, "h", "/").status, 200, "round {round}");
        upstream.close_connections();
        wait::until("the connection is gone", || upstream.open_connections() == 0);
    }
}
