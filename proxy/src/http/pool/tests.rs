//! The HTTP/2 pool: requests that wait for one attempt share what comes of it; a used-up connection goes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::*;
use crate::cluster::lb;
use crate::http::exchange_tests::{EMPTY, manager, run, run_over, upstream};
use crate::http::http2_frames::{GOAWAY, HEADERS, Http2Peer};
use crate::http::tests::read_head;
use crate::stats::Stats;
use crate::tcp::tests::{Running, Setup, cluster, wait_until};
use crate::transport_socket::test_certificates::mutual;
use crate::transport_socket::{DownstreamTransport, UpstreamTls, UpstreamTransport};

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

/// Three clients of a proxy whose one attempt to connect is in its TLS handshake at a gate.
fn three_that_wait(tls: UpstreamTls) -> (TcpListener, Running, [TcpStream; 3]) {
    let (gate, address) = listen();
    let proxy = proxy_to(address, UpstreamTransport::Tls(Arc::new(tls)), 0);
    let clients = [(); 3].map(|()| get(&proxy));
    let stats = proxy.stats.cluster("upstream");
    wait_until("all wait for a connection", || stats.upstream_rq_pending_active.get() == 3);
    (gate, proxy, clients)
}

#[test]
fn requests_that_wait_for_a_connection_share_its_failure() {
    let (gate, proxy, clients) = three_that_wait(mutual().1);
    let (mut handshake, _) = gate.accept().unwrap();
    // All that it says, so that the end is not a reset.
    assert!(handshake.read(&mut [0; 16 << 10]).unwrap() > 0);
    drop(handshake);
    for mut client in clients {
        assert!(read_head(&mut client).starts_with("HTTP/1.1 503 "));
    }
    let stats = proxy.stats.cluster("upstream");
    let log = proxy.finish();
    let lines: Vec<&str> = log.lines().collect();
    let reset = "GET 503 UF upstream_reset_before_response_started{remote_connection_failure|";
    assert!(lines[0].starts_with(reset) && lines == [lines[0]; 3], "{log}");
    assert_eq!((stats.upstream_cx_total.get(), stats.upstream_cx_connect_fail.get()), (1, 1));
    assert_eq!((stats.upstream_rq_total.get(), stats.upstream_rq_pending_failure_eject.get()), (0, 3));
    assert_eq!((stats.upstream_rq_pending_active.get(), stats.upstream_rq_active.get()), (0, 0));
}

#[test]
fn requests_that_wait_for_a_connection_share_it() {
    let (server, tls) = mutual();
    let (gate, proxy, clients) = three_that_wait(tls);
    let setup = Setup::new();
    let (server_behind, _requests) = upstream(EMPTY, false);
    let behind = cluster(&setup.stats, &[server_behind], UpstreamTransport::Plaintext);
    let manager = manager(&setup, behind, None);
    let second = run_over(DownstreamTransport::Tls(Arc::new(server)), setup, manager);
    let (inner, _) = gate.accept().unwrap();
    let outer = TcpStream::connect(second.address).unwrap();
    for (mut from, mut to) in [(inner.try_clone().unwrap(), outer.try_clone().unwrap()), (outer, inner)] {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    for mut client in clients {
        assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    }
    let stats = proxy.stats.cluster("upstream");
    assert_eq!(proxy.finish(), "GET 200 - via_upstream\n".repeat(3));
    assert_eq!((stats.upstream_cx_total.get(), stats.upstream_cx_http2_total.get()), (1, 1));
    assert_eq!((stats.upstream_rq_pending_total.get(), stats.upstream_rq_pending_active.get()), (3, 0));
    let http = second.stats.http("test");
    assert_eq!(second.finish(), "GET 200 - via_upstream\n".repeat(3));
    assert_eq!(http.downstream_cx_http2_total.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_next_attempt_to_those_who_wait() {
    // Never answers the handshake.
    let (_silent, address) = listen();
    let stats = Stats::new();
    let cluster = http2_cluster(&stats, address, UpstreamTransport::Tls(Arc::new(mutual().1)), 0);
    let (host, pools) = (lb::pick(&cluster, Default::default()).unwrap(), Pools::default());
    let checkout = || async {
        let outcome = pools.checkout(&cluster, &host, Version::Http1, false, Reuse::Any).await;
        outcome.map(|_| ()).map_err(|error| error.kind)
    };
    let begin = Instant::now();
    let failed = Err(Failure::ConnectTimeout);
    assert_eq!(tokio::join!(checkout(), checkout(), checkout()), (failed, failed, failed));
    assert_eq!((begin.elapsed().as_secs(), cluster.stats.upstream_cx_connect_timeout.get()), (5, 1));
    // The one who tries for all gives up: another one begins anew.
    let begin = Instant::now();
    let first = timeout(Duration::from_secs(1), checkout());
    let (first, second, third) = tokio::join!(first, checkout(), checkout());
    assert!(first.is_err());
    assert_eq!((second, third), (failed, failed));
    assert_eq!((begin.elapsed().as_secs(), cluster.stats.upstream_cx_connect_timeout.get()), (6, 2));
    assert_eq!((cluster.stats.upstream_cx_total.get(), cluster.stats.upstream_cx_active.get()), (3, 0));
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

#[test]
fn an_old_connection_carries_no_further_request() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (behind, _requests) = upstream(EMPTY, false);
        let (setup, between) = (Setup::new(), Setup::new());
        let to_host = cluster(&setup.stats, &[behind], UpstreamTransport::Plaintext);
        let last = manager(&setup, to_host, None);
        let last = run(setup, last);
        let mut aging = cluster(&between.stats, &[last.address], UpstreamTransport::Plaintext);
        let settings = Arc::get_mut(&mut Arc::get_mut(&mut aging).unwrap().connection).unwrap();
        settings.protocol = protocol;
        settings.max_connection_duration = Some(Duration::from_millis(40));
        let manager = manager(&between, aging, None);
        let proxy = run(between, manager);
        let stats = proxy.stats.cluster("upstream");
        for number in 1..=3 {
            expect_200(get(&proxy));
            assert_eq!(stats.upstream_cx_total.get(), number, "{protocol:?}");
            let begin = std::time::Instant::now();
            wait_until("it is old", || begin.elapsed() > Duration::from_millis(40));
        }
        wait_until("the old ones are gone", || stats.upstream_cx_active.get() <= 1);
        assert!(stats.upstream_cx_max_duration_reached.get() >= 2, "{protocol:?}");
        assert_eq!(stats.upstream_rq_completed.get(), 3);
        proxy.finish();
        last.finish();
    }
}
