//! The HTTP/2 pool: a used-up connection goes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;
use crate::http::exchange_tests::{manager, run};
use crate::http::http2_frames::{GOAWAY, HEADERS, Http2Peer};
use crate::http::tests::read_head;
use crate::stats::Stats;
use crate::tcp::tests::{Running, Setup, cluster, wait_until};
use crate::transport_socket::UpstreamTransport;

/// A listener of a test that plays the upstream itself.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A cluster with this host, which speaks HTTP/2.
fn http2_cluster(
    stats: &Stats,
    host: SocketAddr,
    transport: UpstreamTransport,
    max_requests_per_connection: u32,
) -> Arc<Cluster> {
    let mut cluster = cluster(stats, &[host], transport);
    let settings = Arc::get_mut(&mut Arc::get_mut(&mut cluster).unwrap().connection).unwrap();
    settings.protocol = UpstreamProtocol::Http2;
    settings.max_requests_per_connection = max_requests_per_connection;
    cluster
}

/// A proxy to this HTTP/2 host.
fn proxy_to(host: SocketAddr, transport: UpstreamTransport, max_requests: u32) -> Running {
    let setup = Setup::new();
    let cluster = http2_cluster(&setup.stats, host, transport, max_requests);
    let manager = manager(&setup, cluster, None);
    run(setup, manager)
}

fn get(proxy: &Running) -> TcpStream {
    let mut client = proxy.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    client
}

/// The upstream's end of the proxy's newest connection.
fn accept(listener: &TcpListener, proxy: &Running, connections: u64) -> Http2Peer {
    let stats = proxy.stats.cluster("upstream");
    wait_until("another connection", || stats.upstream_cx_http2_total.get() == connections);
    Http2Peer::server(listener.accept().unwrap().0)
}

fn expect_200(mut client: TcpStream) {
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

/// The proxy closes it: GOAWAY, no error, and then the end.
fn expect_goaway(mut connection: Http2Peer) {
    let frames = connection.until_closed();
    let goaway: Vec<_> = frames.into_iter().filter(|f| f.kind == GOAWAY).map(|f| f.payload).collect();
    assert_eq!(goaway, [[0; 8]]);
}

#[test]
fn a_used_up_connection_goes_with_its_last_response() {
    let (listener, address) = listen();
    let proxy = proxy_to(address, UpstreamTransport::Plaintext, 2);
    let max_requests = || proxy.stats.cluster("upstream").upstream_cx_max_requests.get();
    let client = get(&proxy);
    let mut first = accept(&listener, &proxy, 1);
    assert_eq!(first.await_kind(HEADERS).stream, 1);
    first.answer(1);
    expect_200(client);
    assert_eq!(max_requests(), 0);
    let client = get(&proxy);
    assert_eq!(first.await_kind(HEADERS).stream, 3);
    assert_eq!(max_requests(), 1);
    // It is full, not busy: the next request has one of its own.
    let other = get(&proxy);
    let mut second = accept(&listener, &proxy, 2);
    assert_eq!(second.await_kind(HEADERS).stream, 1);
    second.answer(1);
    expect_200(other);
    first.answer(3);
    expect_200(client);
    // Without another request having to come first.
    expect_goaway(first);
    let client = get(&proxy);
    assert_eq!(second.await_kind(HEADERS).stream, 3);
    second.answer(3);
    expect_200(client);
    expect_goaway(second);
    assert_eq!(max_requests(), 2);
    proxy.finish();
}

#[test]
fn a_connection_for_one_request_goes_with_its_response() {
    let (listener, address) = listen();
    let proxy = proxy_to(address, UpstreamTransport::Plaintext, 1);
    let stats = proxy.stats.cluster("upstream");
    for number in 1..=2 {
        let client = get(&proxy);
        let mut connection = accept(&listener, &proxy, number);
        assert_eq!(connection.await_kind(HEADERS).stream, 1);
        connection.answer(1);
        expect_200(client);
        expect_goaway(connection);
    }
    proxy.finish();
    assert_eq!((stats.upstream_cx_max_requests.get(), stats.upstream_cx_total.get()), (2, 2));
}
