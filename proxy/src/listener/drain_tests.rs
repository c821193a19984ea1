//! Filter chains that go: an update of the listener drains the connections of a chain that is removed, or that opens its connections
//! otherwise, at the next request boundary, and touches no other; what serves a chain changes below its connections. A worker with
//! a listener over ADS, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use tokio::time::Instant;

use crate::config::configuration::Configuration;
use crate::config::testing::{apply, inputs, remove};
use crate::http::http2_frames::{DATA, GOAWAY, Http2Peer};
use crate::http::tests::read_head;
use crate::net::Address;
use crate::server::tell;
use crate::tcp::tests::{read_to_end, wait_until};
use crate::worker::{self, Shared, WorkerHandle};

/// Requests that reached the upstream: each waits until its stream is answered.
pub(crate) type Held = Receiver<TcpStream>;

/// Takes a request on each connection.
pub(crate) fn holding_upstream() -> (SocketAddr, Held) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (held, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, held) = (stream.unwrap(), held.clone());
            std::thread::spawn(move || {
                read_head(&mut stream);
                // The test may have ended.
                let _ = held.send(stream);
            });
        }
    });
    (address, received)
}

pub(crate) fn answer(mut request: TcpStream) {
    request.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
}

/// A chain without a name for the connections to this address: `/held` goes to the upstream, the rest is answered in place.
fn chain(address: Ipv4Addr, server_name: &str) -> String {
    chain_with(address, &format!("server_name: {server_name},"))
}

/// The same with these fields of its connection manager.
fn chain_with(address: Ipv4Addr, manager: &str) -> String {
    chain_of(address, manager, "")
}

/// The same with these filters before the router, each with a comma behind it.
pub(crate) fn chain_of(address: Ipv4Addr, manager: &str, filters: &str) -> String {
    format!(
        "{{filter_chain_match: {{prefix_ranges: [{{address_prefix: {address}, prefix_len: 32}}]}}, filters: [{{name: hcm, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
         HttpConnectionManager, stat_prefix: test, {manager} http_filters: [{filters} {{name: router, typed_config: \
         {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], route_config: {{virtual_hosts: \
         [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /held}}, route: {{cluster: up}}}}, {{match: {{prefix: /}}, \
         direct_response: {{status: 204}}}}]}}]}}}}}}]}}"
    )
}

/// A proxy with one worker.
pub(crate) struct Proxy {
    pub(crate) configuration: Configuration,
    workers: [WorkerHandle; 1],
    port: u16,
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr, chains: &[String]) -> Self {
        let mut configuration = Configuration::new(inputs(), 1);
        let cluster = format!(
            "{{name: up, load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
             {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
            upstream.ip(),
            upstream.port()
        );
        assert_eq!(apply(&mut configuration, ResourceType::Cluster, "up", &cluster, Instant::now()), []);
        let worker = worker::spawn(0, Shared::new(configuration.inputs().stats.clone())).unwrap();
        let mut proxy = Self { configuration, workers: [worker], port: 0 };
        proxy.update(chains);
        let version = proxy.configuration.listeners().get("l").unwrap().newest().unwrap();
        let Address::Ip(address) = version.bound()[0].local_address() else { panic!("not TCP") };
        proxy.port = address.port();
        proxy
    }

    /// LDS: the listener has these chains now.
    fn update(&mut self, chains: &[String]) {
        let listener = format!(
            "{{name: l, address: {{socket_address: {{address: 0.0.0.0, port_value: 0}}}}, filter_chains: [{}]}}",
            chains.join(", ")
        );
        assert_eq!(
            apply(&mut self.configuration, ResourceType::Listener, "l", &listener, Instant::now()),
            []
        );
        self.tell();
    }

    pub(crate) fn tell(&mut self) {
        self.configuration.take_changes().into_iter().for_each(|change| tell(&self.workers, change));
    }

    pub(crate) fn connect(&self, address: Ipv4Addr) -> TcpStream {
        let client = TcpStream::connect((address, self.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// Waits until all connections are gone.
    pub(crate) fn finish(self) {
        let stats = self.configuration.inputs().stats.clone();
        wait_until("connections end", || stats.server().total_connections.get() == 0);
        let [worker] = self.workers;
        worker.join();
    }
}

pub(crate) fn get(client: &mut TcpStream, path: &str) {
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
}

/// The next response's head and body.
pub(crate) fn read_response(client: &mut TcpStream) -> String {
    let mut response = read_head(client);
    if response.contains("\r\ncontent-length: 2\r\n") {
        let mut body = [0; 2];
        client.read_exact(&mut body).unwrap();
        response.push_str(std::str::from_utf8(&body).unwrap());
    }
    response
}

/// The clients of one chain: one with a request in flight and one that is idle, of either HTTP version.
struct Clients {
    http1_busy: TcpStream,
    http1_idle: TcpStream,
    http2_busy: Http2Peer,
    http2_idle: Http2Peer,
    in_flight: [TcpStream; 2],
}

impl Clients {
    fn connect(proxy: &Proxy, address: Ipv4Addr, held: &Held) -> Self {
        let mut http1_busy = proxy.connect(address);
        get(&mut http1_busy, "/held");
        let mut http2_busy = Http2Peer::client(proxy.connect(address));
        http2_busy.get(1, "/held");
        let in_flight = [(); 2].map(|()| held.recv_timeout(Duration::from_secs(10)).unwrap());
        let mut http1_idle = proxy.connect(address);
        get(&mut http1_idle, "/");
        read_response(&mut http1_idle);
        let mut http2_idle = Http2Peer::client(proxy.connect(address));
        http2_idle.get(1, "/");
        http2_idle.until_end_of(1);
        Self { http1_busy, http1_idle, http2_busy, http2_idle, in_flight }
    }

    /// Each finishes what is in flight, is told that it was the last, and is closed.
    fn expect_drained(mut self) {
        // The worker drains all connections of a chain at once: who has heard of it knows it of the others.
        self.http2_idle.await_kind(GOAWAY);
        self.http2_idle.until_closed();
        self.http2_busy.await_kind(GOAWAY);
        self.in_flight.into_iter().for_each(answer);
        let body: Vec<u8> = self
            .http2_busy
            .until_closed()
            .into_iter()
            .filter(|f| f.kind == DATA)
            .flat_map(|f| f.payload)
            .collect();
        assert_eq!(body, b"ok");
        // The boundary of an idle connection is its next request; the chain that it came to serves it.
        get(&mut self.http1_idle, "/");
        for (client, status) in [(&mut self.http1_busy, "200"), (&mut self.http1_idle, "204")] {
            let response = String::from_utf8(read_to_end(client)).unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
            assert!(response.contains("\r\nserver: old\r\n"), "{response}");
        }
    }

    /// Nobody notices anything, whatever was in flight, and further requests are served: by this server.
    fn expect_untouched(mut self, server: &str) {
        self.in_flight.into_iter().for_each(answer);
        self.http2_busy.until_end_of(1);
        for client in [&mut self.http2_busy, &mut self.http2_idle] {
            client.get(3, "/");
            let frames = client.until_end_of(3);
            assert!(frames.iter().all(|frame| frame.kind != GOAWAY), "{frames:?}");
        }
        // A request keeps to its end what it began with.
        let mut responses = vec![("old", read_response(&mut self.http1_busy))];
        for client in [&mut self.http1_busy, &mut self.http1_idle] {
            get(client, "/");
            responses.push((server, read_response(client)));
        }
        for (server, response) in responses {
            assert!(
                response.starts_with("HTTP/1.1 20") && !response.contains("connection: close"),
                "{response}"
            );
            assert!(response.contains(&format!("\r\nserver: {server}\r\n")), "{response}");
        }
    }
}

const STAYS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CHANGES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const GOES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

#[test]
fn chains_that_change_or_go_drain_and_no_other() {
    let (upstream, held) = holding_upstream();
    let chains = [chain(GOES, "old"), chain(CHANGES, "old"), chain(STAYS, "old")];
    let mut proxy = Proxy::start(upstream, &chains);
    let [stays, changes, goes] =
        [STAYS, CHANGES, GOES].map(|address| Clients::connect(&proxy, address, &held));

    let opened_otherwise = chain_with(CHANGES, "server_name: new, max_request_headers_kb: 30,");
    proxy.update(&[opened_otherwise, chain(STAYS, "old")]);
    changes.expect_drained();
    goes.expect_drained();
    stays.expect_untouched("old");

    // New connections find what is configured now.
    for (address, server) in [(STAYS, Some("old")), (CHANGES, Some("new")), (GOES, None)] {
        let mut client = proxy.connect(address);
        // Without a chain it is closed already, perhaps.
        let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let response = String::from_utf8(read_to_end(&mut client)).unwrap();
        match server {
            Some(server) => assert!(response.contains(&format!("\r\nserver: {server}\r\n")), "{response}"),
            None => assert_eq!(response, ""),
        }
    }
    proxy.finish();
}

#[test]
fn what_serves_a_chain_changes_below_its_connections() {
    let (upstream, held) = holding_upstream();
    let mut proxy = Proxy::start(upstream, &[chain(STAYS, "old"), chain(CHANGES, "old")]);
    let [stays, changes] = [STAYS, CHANGES].map(|address| Clients::connect(&proxy, address, &held));
    let filters = "server_name: new, request_timeout: 10s,";
    proxy.update(&[chain(STAYS, "old"), chain_with(CHANGES, filters)]);
    stays.expect_untouched("old");
    changes.expect_untouched("new");
    proxy.finish();
}

/// What a connection keeps of its filters goes with them.
#[test]
fn buckets_of_a_connection_are_made_anew_with_their_filter() {
    let limit = |tokens: u32| {
        let filter = format!(
            "{{name: limit, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.\
             LocalRateLimit, stat_prefix: s, local_rate_limit_per_downstream_connection: true, token_bucket: {{max_tokens: \
             {tokens}, fill_interval: 3600s}}, filter_enabled: {{default_value: {{numerator: 100}}}}, filter_enforced: \
             {{default_value: {{numerator: 100}}}}}}}},"
        );
        chain_of(STAYS, "", &filter)
    };
    let (upstream, _held) = holding_upstream();
    let mut proxy = Proxy::start(upstream, &[limit(1)]);
    let mut client = proxy.connect(STAYS);
    let mut statuses = |count: usize| -> Vec<String> {
        let status = |_| {
            get(&mut client, "/");
            let head = read_head(&mut client);
            // The body of an answer of the filter.
            let body = if head.contains("\r\ncontent-length: 18\r\n") { 18 } else { 0 };
            client.read_exact(&mut vec![0; body]).unwrap();
            head.split(' ').nth(1).unwrap().to_owned()
        };
        (0..count).map(status).collect()
    };
    assert_eq!(statuses(2), ["204", "429"]);
    proxy.update(&[limit(2)]);
    assert_eq!(statuses(3), ["204", "204", "429"]);
    drop(client);
    proxy.finish();
}

/// Which addresses a chain takes is a part of it: who came to it by a rule that is gone has to come again.
#[test]
fn a_chain_that_is_matched_otherwise_drains() {
    let (upstream, held) = holding_upstream();
    let mut proxy = Proxy::start(upstream, &[chain(CHANGES, "old")]);
    let clients = Clients::connect(&proxy, CHANGES, &held);
    proxy.update(&[chain(STAYS, "old")]);
    clients.expect_drained();
    proxy.finish();
}

#[test]
fn a_removed_listener_drains_its_connections() {
    let (upstream, held) = holding_upstream();
    let mut proxy = Proxy::start(upstream, &[chain(GOES, "old")]);
    let clients = Clients::connect(&proxy, GOES, &held);
    remove(&mut proxy.configuration, ResourceType::Listener, "l", Instant::now());
    proxy.tell();
    clients.expect_drained();
    proxy.finish();
}
