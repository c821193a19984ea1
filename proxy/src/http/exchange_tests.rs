//! Whole exchanges: a worker with one listener, a scripted upstream, a client that speaks raw bytes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::http2_frames::{Http2Peer, block};
use super::*;
use crate::access_log::AccessLogs;
use crate::cluster::{CircuitBreakers, Cluster, Thresholds, UpstreamProtocol};
use crate::config::live::Live;
use crate::listener::{FilterChain, FilterChains, NetworkFilter};
use crate::route::{
    Action, Clusters, DirectResponse, DomainIndex, PathMatcher, RequireTls, Route, RouteAction,
    RouteConfiguration, RouteMatch, Upgrade, Upgrades, VirtualHost,
};
use crate::tcp::tests::{Running, Setup, cluster, read_to_end, wait_until};
use crate::transport_socket::{DownstreamTransport, UpstreamTransport};

const LOG: &str = "%REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";

/// `/direct` answers "hello", all else goes to the cluster.
pub(super) fn manager(
    setup: &Setup,
    cluster: Arc<Cluster>,
    timeout: Option<Duration>,
) -> HttpConnectionManager {
    let route = |prefix: &str, action| {
        Arc::new(Route::new(RouteMatch::of_path(PathMatcher::Prefix(prefix.into())), action))
    };
    let direct =
        DirectResponse { status: StatusCode::OK, body: "hello".into(), headers: http::HeaderMap::default() };
    let cluster = Clusters::Single(Live::with("upstream", cluster));
    let forward = RouteAction { timeout, ..RouteAction::to(cluster) };
    let routes =
        vec![route("/direct", Action::DirectResponse(direct)), route("", Action::Route(Box::new(forward)))];
    let virtual_host = VirtualHost::new("all".into(), vec!["*".into()], routes, RequireTls::None, 0);
    HttpConnectionManager {
        stat_prefix: "test".into(),
        stats: setup.stats.http("test"),
        routes: RouteSource::Inline(Arc::new(RouteConfiguration {
            name: "routes".into(),
            domains: DomainIndex::build([["*"]]).unwrap(),
            virtual_hosts: vec![Arc::new(virtual_host)],
            ignore_port: false,
            ignore_path_parameters: false,
            vhost_header: None,
            internal_only_headers: [].into(),
            version: "".into(),
            vhds: None,
        })),
        access_logs: AccessLogs { logs: vec![setup.access_log(LOG)], ..AccessLogs::default() },
        log_on_new_request: false,
        log_on_tunnel: false,
        local_replies: None,
        append_local_overload: false,
        proxy_status: None,
        server_name: HeaderValue::from_static("envoy"),
        server_header: ServerHeader::Overwrite,
        use_remote_address: false,
        skip_xff_append: false,
        asks_address: true,
        xff_num_trusted_hops: 0,
        internal_addresses: InternalAddresses::default(),
        append_x_forwarded_port: false,
        via: None,
        proxy_100_continue: false,
        strip_trailing_host_dot: false,
        generate_request_id: false,
        preserve_external_request_id: false,
        always_set_request_id_in_response: false,
        filters: Default::default(),
        suppress_envoy_headers: true,
        respect_expected_timeout: false,
        path: Default::default(),
        strip_host_port: None,
        limits: StreamLimits { request_timeout: None, stream_idle_timeout: None, max_stream_duration: None },
        http1: HttpOptions1 { allow_absolute_url: true, enable_trailers: true, ..Default::default() },
        underscores: Underscores::Allow,
        upgrades: Upgrades::new(vec![Upgrade { name: "websocket".into(), enabled: true, terminates: false }]),
        reporter: None,
    }
}

/// What its connections are opened with.
fn connection(manager: &HttpConnectionManager) -> ConnectionOptions {
    ConnectionOptions {
        codec: CodecType::Auto,
        idle_timeout: None,
        max_duration: None,
        drain_timeout: Duration::from_secs(5),
        delayed_close: Some(Duration::from_secs(1)),
        stall_timeout: manager.limits.stream_idle_timeout,
        max_requests: 0,
        request_headers_timeout: None,
        max_request_headers_bytes: 60 << 10,
        max_headers_count: 100,
        buffer_limit_bytes: 1 << 20,
        http2: HttpOptions2 {
            keep_alive: None,
            max_concurrent_streams: 100,
            initial_stream_window_bytes: 1 << 20,
            initial_connection_window_bytes: 1 << 20,
            allow_connect: true,
            frames: FrameLimits::default(),
        },
        header_case: Default::default(),
        forward_client_cert: ForwardClientCert::Sanitize,
    }
}

pub(super) fn run(setup: Setup, manager: HttpConnectionManager) -> Running {
    run_over(DownstreamTransport::Plaintext, setup, manager)
}

pub(super) fn run_over(
    transport: DownstreamTransport,
    setup: Setup,
    manager: HttpConnectionManager,
) -> Running {
    let connection = connection(&manager);
    run_opened(transport, connection, setup, manager)
}

fn run_opened(
    transport: DownstreamTransport,
    connection: ConnectionOptions,
    setup: Setup,
    manager: HttpConnectionManager,
) -> Running {
    let chain = Arc::new(FilterChain {
        id: FilterChain::next_id(),
        name: "only".into(),
        transport,
        handshake_timeout: None,
        peer_certificate_grace: None,
        filter: NetworkFilter::Http(Arc::new(LiveConnectionManager::new(connection, Arc::new(manager)))),
    });
    let listener = setup.listener(FilterChains::build(Vec::new(), Some(chain)).unwrap());
    setup.run(listener)
}

/// A proxy in front of this host, with default circuit breakers and no timeout.
fn proxy_to(host: SocketAddr) -> Running {
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[host], UpstreamTransport::Plaintext);
    let manager = manager(&setup, cluster, None);
    run(setup, manager)
}

/// Answers each request of each connection with these bytes and says what it received (head, and body of a chunked request).
pub(super) fn upstream(answer: &'static [u8], close: bool) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), seen.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut request = String::new();
                    while !request.ends_with("\r\n\r\n") {
                        if lines.read_line(&mut request).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    if request.contains("transfer-encoding: chunked") {
                        while !request.ends_with("0\r\n\r\n") {
                            lines.read_line(&mut request).unwrap();
                        }
                    }
                    let _ = seen.send(request);
                    let _ = stream.write_all(answer);
                    if close {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

pub(super) const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Sends bytes on a connection of their own and gives all that comes back.
fn exchange(proxy: &Running, bytes: &[u8]) -> String {
    let mut client = proxy.client();
    client.write_all(bytes).unwrap();
    String::from_utf8_lossy(&read_to_end(&mut client)).into_owned()
}

#[test]
fn requests_that_wait_for_a_connection_wake_when_one_is_closed() {
    let (host, _seen) = upstream(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", true);
    let setup = Setup::new();
    let mut cluster = cluster(&setup.stats, &[host], UpstreamTransport::Plaintext);
    let one = Thresholds { max_connections: 1, ..Thresholds::default() };
    Arc::get_mut(&mut cluster).unwrap().circuit_breakers =
        CircuitBreakers::new(setup.stats.cluster("upstream"), one, one);
    let manager = manager(&setup, cluster, None);
    let proxy = run(setup, manager);
    let clients: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut client = proxy.client();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
            client
        })
        .collect();
    for mut client in clients {
        assert!(read_to_end(&mut client).starts_with(b"HTTP/1.1 200"));
    }
    proxy.finish();
}

#[test]
fn waiting_for_a_connection_counts_towards_the_timeout_of_a_request_with_a_body() {
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new();
    let mut cluster = cluster(&setup.stats, &[silent.local_addr().unwrap()], UpstreamTransport::Plaintext);
    let one = Thresholds { max_connections: 1, ..Thresholds::default() };
    Arc::get_mut(&mut cluster).unwrap().circuit_breakers =
        CircuitBreakers::new(setup.stats.cluster("upstream"), one, one);
    let mut manager = manager(&setup, cluster, Some(Duration::from_millis(50)));
    manager.limits.stream_idle_timeout = Some(Duration::from_secs(5));
    let proxy = run(setup, manager);
    // The first takes the connection, its body never ends: no timeout yet.
    let mut first = proxy.client();
    first.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx").unwrap();
    let stats = proxy.stats.cluster("upstream");
    wait_until("it has a connection", || stats.upstream_cx_http1_total.get() == 1);
    let answer =
        exchange(&proxy, b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx");
    assert!(answer.ends_with("upstream request timeout"), "{answer}");
    assert_eq!(stats.upstream_cx_total.get(), 1);
    drop(first);
    proxy.finish();
}

#[test]
fn a_response_with_trailers_is_complete() {
    let (host, _seen) = upstream(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        false,
    );
    let proxy = proxy_to(host);
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n");
    assert!(answer.ends_with("0\r\nx-t: 1\r\n\r\n"), "{answer}");
    let stats = proxy.stats.clone();
    assert_eq!(proxy.finish(), "GET 200 - via_upstream\n");
    assert_eq!(stats.cluster("upstream").upstream_rq_active.get(), 0);
}

#[test]
fn a_local_reply_to_head_has_no_body_and_is_complete() {
    let proxy = proxy_to("127.0.0.1:1".parse().unwrap());
    let answer = exchange(&proxy, b"HEAD /direct HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(proxy.finish(), "HEAD 200 - direct_response\n");
}

/// Opens HTTP/2 with one request whose header block is given, and reads the frames (kind, flags) of its stream until the last.
fn http2_frames(proxy: &Running, block: &[u8]) -> Vec<(u8, u8)> {
    let mut client = Http2Peer::client(proxy.client());
    client.send_headers(1, block);
    let frames = client.until_end_of(1);
    frames.iter().filter(|frame| frame.stream == 1).map(|frame| (frame.kind, frame.flags)).collect()
}

#[test]
fn a_local_reply_to_head_over_http2_is_headers_only() {
    let proxy = proxy_to("127.0.0.1:1".parse().unwrap());
    let head = block(&[(":method", "HEAD"), (":path", "/direct"), (":scheme", "http"), (":authority", "a")]);
    // HEADERS with END_HEADERS and END_STREAM, and no DATA.
    assert_eq!(http2_frames(&proxy, &head), [(1, 5)]);
    assert_eq!(proxy.finish(), "HEAD 200 - direct_response\n");
}

#[test]
fn cookies_that_http2_split_arrive_as_one_header() {
    let (host, seen) = upstream(EMPTY, false);
    let proxy = proxy_to(host);
    let request = block(&[
        (":method", "GET"),
        (":path", "/"),
        (":scheme", "http"),
        (":authority", "a"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ]);
    http2_frames(&proxy, &request);
    let request = seen.recv().unwrap();
    assert!(request.contains("cookie: a=1; b=2\r\n"), "{request}");
    proxy.finish();
}

#[test]
fn the_body_of_a_get_is_forwarded() {
    let (host, seen) = upstream(EMPTY, false);
    let proxy = proxy_to(host);
    exchange(
        &proxy,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let request = seen.recv().unwrap();
    assert!(request.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{request}");
    proxy.finish();
}

#[test]
fn the_headers_timeout_is_for_heads_that_have_begun() {
    let (host, _seen) = upstream(EMPTY, false);
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[host], UpstreamTransport::Plaintext);
    let manager = manager(&setup, cluster, None);
    let request_headers_timeout = Some(Duration::from_millis(50));
    let connection = ConnectionOptions { request_headers_timeout, ..connection(&manager) };
    let proxy = run_opened(DownstreamTransport::Plaintext, connection, setup, manager);
    let mut idle = proxy.client();
    let mut answered = |last: &str| {
        idle.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{last}\r\n").as_bytes()).unwrap();
        let mut status = [0; 15];
        idle.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        let mut head = status.to_vec();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            idle.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
    };
    answered("");
    // Younger than the idle one, and ended before it is used again.
    let mut slow = proxy.client();
    slow.write_all(b"GET / HTTP/1.1\r\nhost").unwrap();
    assert!(read_to_end(&mut slow).starts_with(b"HTTP/1.1 408 Request Timeout\r\n"));
    answered("connection: close\r\n");
    drop(idle);
    assert_eq!(proxy.stats.http("test").downstream_rq_header_timeout.get(), 1);
    proxy.finish();
}

/// An HTTP/2 upstream that opens the connection and then only reads.
fn silent_http2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        Http2Peer::server(listener.accept().unwrap().0).until_closed();
    });
    address
}

#[test]
fn a_client_that_leaves_in_its_body_is_not_held_against_an_http2_upstream() {
    let setup = Setup::new();
    let mut cluster = cluster(&setup.stats, &[silent_http2()], UpstreamTransport::Plaintext);
    let settings = &mut Arc::get_mut(&mut cluster).unwrap().connection;
    Arc::get_mut(settings).unwrap().protocol = UpstreamProtocol::Http2;
    let manager = manager(&setup, cluster, None);
    let proxy = run(setup, manager);
    let mut client = proxy.client();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    read_to_end(&mut client);
    drop(client);
    let stats = proxy.stats.clone();
    assert_eq!(proxy.finish(), "POST 0 DC downstream_remote_disconnect\n");
    assert_eq!(stats.cluster("upstream").upstream_cx_protocol_error.get(), 0);
}

#[test]
fn a_client_that_takes_nothing_is_let_go_after_the_stream_idle_timeout() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n".to_vec();
    answer.resize(answer.len() + (32 << 20), b'x');
    let (host, _seen) = upstream(answer.leak(), false);
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[host], UpstreamTransport::Plaintext);
    let mut manager = manager(&setup, cluster, None);
    manager.limits.stream_idle_timeout = Some(Duration::from_millis(500));
    let proxy = run(setup, manager);
    let mut client = proxy.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let stats = proxy.stats.clone();
    let upstream_stats = stats.cluster("upstream");
    wait_until("the response has begun", || upstream_stats.upstream_cx_rx_bytes_total.get() > 1 << 16);
    // Waits until the connection has ended.
    assert!(proxy.finish().starts_with("GET 200 "));
    assert_eq!(stats.cluster("upstream").upstream_rq_active.get(), 0);
    drop(client);
}

#[test]
fn what_the_upstream_must_not_be_told() {
    for (request, absent) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n"[..], "expect"),
        (b"GET http://me:secret@a/ HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n", "secret"),
    ] {
        let (host, seen) = upstream(EMPTY, false);
        let proxy = proxy_to(host);
        exchange(&proxy, request);
        let request = seen.recv().unwrap();
        assert!(request.contains("host: a\r\n") && !request.contains(absent), "{request}");
        proxy.finish();
    }
}

#[test]
fn connect_matches_no_ordinary_route() {
    let (host, _seen) = upstream(EMPTY, false);
    let proxy = proxy_to(host);
    let answer = exchange(&proxy, b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(proxy.finish(), "CONNECT 404 NR route_not_found\n");
}

#[test]
fn what_is_refused() {
    for (request, log) in [
        (
            &b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n"[..],
            "- 400 DPE http.invalid_authority",
        ),
        (b"GET / HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n", "- 400 DPE http.invalid_authority"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close, host\r\n\r\n", "GET 400 - missing_host_header"),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
            "GET 400 DPE http1.codec_error",
        ),
    ] {
        let (host, _seen) = upstream(EMPTY, false);
        let proxy = proxy_to(host);
        let answer = exchange(&proxy, request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(proxy.finish(), format!("{log}\n"));
    }
}
