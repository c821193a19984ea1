//! Clients that break the protocol or go away.

use outrigger_tests::bootstrap::{cluster, to};
use outrigger_tests::differential::hold;
use outrigger_tests::{RawClient, Upstream, client, wait};
use serde_json::json;

use super::Fixture;

fn fixture(upstream: &Upstream) -> Fixture {
    Fixture::start(to("up"), &[cluster("up", &[upstream.addr()], json!({}))])
}

/// The status of the answer to these bytes.
fn status(fixture: &Fixture, bytes: &str) -> u16 {
    let mut client = RawClient::connect(fixture.addr).unwrap();
    client.send(bytes.as_bytes());
    client.response().unwrap_or_else(|error| panic!("{bytes:.60}: {error}")).status
}

#[test]
fn a_bad_request_line_is_a_400_with_dpe() {
    let upstream = Upstream::start();
    let fixture = fixture(&upstream);
    assert_eq!(status(&fixture, "this is not HTTP\r\n\r\n"), 400);
    assert_eq!(status(&fixture, "GET path HTTP/1.1\r\nhost: h\r\n\r\n"), 400);
    assert_eq!(client::get(fixture.addr, "h", "/good").status, 200);
    assert_eq!(upstream.take_requests().len(), 1);
    assert_eq!(fixture.into_log(), ["400 DPE -", "400 DPE -", "200 - /good"]);
}

#[test]
fn oversized_headers_are_a_431_with_dpe() {
    let upstream = Upstream::start();
    let fixture = fixture(&upstream);
    let large = format!("GET / HTTP/1.1\r\nhost: h\r\nx-large: {}\r\n\r\n", "a".repeat(61 * 1024));
    assert_eq!(status(&fixture, &large), 431);
    let many = format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "x-a: 1\r\n".repeat(101));
    assert_eq!(status(&fixture, &many), 431);
    assert!(upstream.take_requests().is_empty());
    assert_eq!(fixture.into_log(), ["431 DPE -", "431 DPE -"]);
}

#[test]
fn smuggled_framing_is_a_400_and_reaches_no_upstream() {
    let upstream = Upstream::start();
    let fixture = fixture(&upstream);
    let head = "POST / HTTP/1.1\r\nhost: h\r\n";
    for lines in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: -1\r\n",
        "content-length: 5x\r\n",
    ] {
        assert_eq!(status(&fixture, &format!("{head}{lines}\r\n0\r\n\r\n")), 400, "{lines}");
    }
    assert!(upstream.take_requests().is_empty());
}

#[test]
fn a_client_that_leaves_while_it_sends_is_logged_with_dc() {
    let upstream = Upstream::start();
    let fixture = fixture(&upstream);
    let mut client = RawClient::connect(fixture.addr).unwrap();
    client.send(b"POST /cut HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nonly this");
    wait::until("the connection to the upstream", || upstream.connections() == 1);
    client.reset();
    wait::until("the upstream connection is closed", || upstream.open_connections() == 0);
    assert_eq!(fixture.into_log(), ["0 DC /cut"]);
}

#[test]
fn a_client_that_leaves_while_it_waits_is_logged_with_dc_and_frees_the_upstream() {
    let upstream = Upstream::start();
    let gate = hold(&upstream);
    let fixture = fixture(&upstream);
    let mut client = RawClient::connect(fixture.addr).unwrap();
    client.send(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n");
    wait::until("the request at the upstream", || upstream.recorded() == 1);
    client.reset();
    wait::until("the request is counted as over", || {
        fixture.proxy.stat("cluster.up.upstream_rq_active") == Some(0)
    });
    gate.open();
    wait::until("the upstream connection is closed", || upstream.open_connections() == 0);
    assert_eq!(fixture.into_log(), ["0 DC /wait"]);
}
