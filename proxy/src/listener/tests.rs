//! Whole connections: a worker with a listener, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::live::Live;
use crate::stats::{SslStats, Stats};
use crate::tcp::TcpProxy;
use crate::tcp::tests::{
    Running, Setup, chain, cluster, proxy_to, read_to_end, reversing_server, wait_until,
};
use crate::transport_socket::test_certificates::mutual;
use crate::transport_socket::{DownstreamTransport, UpstreamTls, UpstreamTransport};

const TLS_INSPECTOR: ListenerFilter = ListenerFilter {
    kind: ListenerFilterKind::TlsInspector(tls_fingerprint::Fingerprinting { ja3: false, ja4: false }),
    disabled: None,
};

/// A proxy to a new reversing server.
fn proxy(stats: &Stats) -> TcpProxy {
    let cluster = cluster(stats, &[reversing_server()], UpstreamTransport::Plaintext);
    proxy_to(stats, Live::with("upstream", cluster))
}

fn tls_only(chain: Arc<FilterChain>) -> FilterChains {
    let criteria = FilterChainMatch { transport_protocol: "tls".into(), ..FilterChainMatch::default() };
    FilterChains::build(vec![(criteria, chain)], None).unwrap()
}

fn reversed(running: &Running) -> Vec<u8> {
    let mut client = running.client();
    // It may be closed already.
    let _ = client.write_all(b"hello").and_then(|()| client.shutdown(std::net::Shutdown::Write));
    read_to_end(&mut client)
}

#[test]
fn a_connection_without_a_chain_is_closed_counted_and_logged() {
    let setup = Setup::new();
    let chains = tls_only(chain("tls", DownstreamTransport::Plaintext, proxy(&setup.stats)));
    let mut listener = setup.listener(chains);
    listener.filters = vec![TLS_INSPECTOR];
    listener.access_logs.logs.push(setup.access_log("%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"));
    let running = setup.run(listener);
    assert_eq!(reversed(&running), b"");
    let stats = running.stats.listener("test");
    assert_eq!(running.finish(), "NR filter_chain_not_found\n");
    assert_eq!(stats.no_filter_chain_match.get(), 1);
    // As in Envoy: it was never a connection of a filter chain.
    assert_eq!((stats.downstream_cx_total.get(), stats.downstream_cx_active.get()), (0, 0));
}

#[test]
fn new_content_is_used_by_the_next_connection_on_the_same_socket() {
    let setup = Setup::new();
    let missing = proxy_to(&setup.stats, Live::empty("missing"));
    let with =
        |proxy| FilterChains::build(Vec::new(), Some(chain("c", DownstreamTransport::Plaintext, proxy)));
    let first = setup.listener(with(missing).unwrap());
    let second = setup.listener(with(proxy(&setup.stats)).unwrap());
    let running = setup.run(first);
    assert_eq!(reversed(&running), b"");
    running.listener.publish(Arc::new(second));
    assert_eq!(reversed(&running), b"olleh");
    running.listener.withdraw();
    assert_eq!(reversed(&running), b"");
    let server = running.stats.server();
    assert_eq!((server.listener_create_success.get(), server.listener_create_failure.get()), (1, 0));
    running.finish();
}

#[test]
fn mutual_tls_from_listener_to_upstream() {
    // client → (plain) first proxy → (mutual TLS) second proxy → server
    let (server, client): (_, UpstreamTls) = mutual();
    let setup = Setup::new();
    let mut inner = proxy(&setup.stats);
    inner.access_logs.logs.push(setup.access_log("%DOWNSTREAM_PEER_URI_SAN% %REQUESTED_SERVER_NAME%\n"));
    let mut listener =
        setup.listener(tls_only(chain("tls", DownstreamTransport::Tls(Arc::new(server)), inner)));
    listener.filters = vec![TLS_INSPECTOR];
    let second = setup.run(listener);

    let setup = Setup::new();
    let upstream = cluster(&setup.stats, &[second.address], UpstreamTransport::Tls(Arc::new(client)));
    let outer = proxy_to(&setup.stats, Live::with("upstream", upstream.clone()));
    let chains =
        FilterChains::build(Vec::new(), Some(chain("plain", DownstreamTransport::Plaintext, outer))).unwrap();
    let listener = setup.listener(chains);
    let first = setup.run(listener);

    assert_eq!(reversed(&first), b"olleh");
    first.finish();
    let ssl: &SslStats = &second.stats.listener("test").ssl;
    assert_eq!(ssl.handshake.get(), 1);
    assert_eq!(upstream.stats.ssl.handshake.get(), 1);
    assert_eq!(
        second.finish(),
        "spiffe://test/ns/default/sa/web outbound_.8080_._.reviews.default.svc.cluster.local\n"
    );
}

#[test]
fn a_silent_client_runs_into_the_listener_filters_timeout() {
    for (continues, answer) in [(false, &b""[..]), (true, b"\x03\x16")] {
        let setup = Setup::new();
        let chains = FilterChains::build(
            Vec::new(),
            Some(chain("c", DownstreamTransport::Plaintext, proxy(&setup.stats))),
        );
        let mut listener = setup.listener(chains.unwrap());
        listener.filters = vec![TLS_INSPECTOR];
        listener.listener_filters_timeout = Some(Duration::from_millis(20));
        listener.continue_on_timeout = continues;
        let running = setup.run(listener);
        let stats = running.stats.listener("test");
        let mut client = running.client();
        // Looks like TLS, and then nothing more.
        client.write_all(b"\x16\x03").unwrap();
        wait_until("the timeout", || stats.downstream_pre_cx_timeout.get() == 1);
        let _ = client.shutdown(std::net::Shutdown::Write);
        assert_eq!(read_to_end(&mut client), answer, "what was looked at is still there");
        running.finish();
        assert_eq!(stats.downstream_pre_cx_active.get(), 0);
    }
}

#[test]
fn a_client_that_goes_away_before_it_says_hello() {
    let setup = Setup::new();
    let mut listener =
        setup.listener(tls_only(chain("tls", DownstreamTransport::Plaintext, proxy(&setup.stats))));
    listener.filters = vec![TLS_INSPECTOR];
    let running = setup.run(listener);
    drop(running.client());
    let stats = running.stats.listener("test");
    wait_until("it is noticed", || stats.downstream_listener_filter_remote_close.get() == 1);
    running.finish();
}

#[test]
fn a_handshake_has_its_time() {
    let (server, _) = mutual();
    let setup = Setup::new();
    let only = chain("tls", DownstreamTransport::Tls(Arc::new(server)), proxy(&setup.stats));
    let limited = Arc::new(FilterChain {
        id: FilterChain::next_id(),
        name: only.name.clone(),
        transport: only.transport.clone(),
        handshake_timeout: Some(Duration::from_millis(20)),
        peer_certificate_grace: None,
        filter: only.filter.clone(),
    });
    let listener = setup.listener(FilterChains::build(Vec::new(), Some(limited)).unwrap());
    let running = setup.run(listener);
    assert_eq!(read_to_end(&mut running.client()), b"");
    let stats = running.stats.listener("test");
    wait_until("it is counted", || stats.downstream_cx_transport_socket_connect_timeout.get() == 1);
    running.finish();
}

/// Out of file descriptors, in a process of its own because the limit is the process's.
#[test]
fn more_connections_than_descriptors() {
    const CHILD: &str = "OUTRIGGER_TEST_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "listener::tests::more_connections_than_descriptors";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let setup = Setup::new();
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = cluster(&setup.stats, &[upstream.local_addr().unwrap()], UpstreamTransport::Plaintext);
    let proxy = proxy_to(&setup.stats, Live::with("upstream", cluster));
    let only = chain("c", DownstreamTransport::Plaintext, proxy);
    let listener = setup.listener(FilterChains::build(Vec::new(), Some(only)).unwrap());
    let running = setup.run(listener);
    let server_stats = running.stats.server();
    let one_byte = |from: &mut std::net::TcpStream, to: &mut std::net::TcpStream| {
        let mut byte = [0];
        from.write_all(b"x").unwrap();
        to.read_exact(&mut byte).unwrap();
    };

    let mut served = running.client();
    let (mut server, _) = upstream.accept().unwrap();
    one_byte(&mut served, &mut server);
    let late = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // All below the lowest free number are in use.
    let free = std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap()) as u64;
    let full = rustix::process::Rlimit { current: Some(free), ..before };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, full).unwrap();

    late.connect(&running.address.into()).unwrap();
    let begin = std::time::Instant::now();
    wait_until("accepting was tried again", || server_stats.connections_refused_fd_total.get() >= 4);
    assert!(begin.elapsed() >= Duration::from_millis(250), "accepting must pause between tries");
    one_byte(&mut served, &mut server);
    one_byte(&mut server, &mut served);

    // A connection that ends makes room for the one that waits.
    drop((served, server));
    let mut late: std::net::TcpStream = late.into();
    let (mut server, _) = upstream.accept().unwrap();
    one_byte(&mut late, &mut server);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, before).unwrap();
    drop((late, server));
    running.finish();
}
