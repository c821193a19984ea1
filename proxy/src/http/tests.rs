//! Whole HTTP connections: a worker with a compiled listener, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use tokio::time::Instant;

use crate::config::configuration::Configuration;
use crate::config::listeners::Change;
use crate::config::testing::{inputs, resource};
use crate::http::http2_frames::{GOAWAY, Http2Peer};
use crate::net::Address;
use crate::stats::{HttpStats, Stats};
use crate::tcp::tests::{read_to_end, wait_until};
use crate::worker::{self, Command, Shared, WorkerHandle};

const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQUEST_DURATION%";

/// One worker with one listener; `/direct` is answered by the route, the rest goes to the cluster `up`.
struct Running {
    configuration: Configuration,
    stats: Arc<Stats>,
    address: SocketAddr,
    worker: WorkerHandle,
    folder: tempfile::TempDir,
}

/// Runs a connection manager with these further fields, and a cluster with these and this host.
fn run(manager: &str, cluster: &str, upstream: SocketAddr) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let listener = format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{{filters: [{{name: hcm, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
         HttpConnectionManager, stat_prefix: test, {manager} http_filters: [{{name: router, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], access_log: [{{name: file, typed_config: \
         {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '{}', log_format: \
         {{text_format_source: {{inline_string: \"{LOG}\\n\"}}}}}}}}], route_config: {{virtual_hosts: [{{name: v, domains: ['*'], \
         routes: [{{match: {{prefix: /direct}}, direct_response: {{status: 200}}}}, {{match: {{prefix: /}}, route: \
         {{cluster: up, timeout: 0s}}}}]}}]}}}}}}]}}]}}",
        log.display()
    );
    let cluster = format!(
        "{{name: up, {cluster} load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
         {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
        upstream.ip(),
        upstream.port()
    );
    let mut configuration = Configuration::new(inputs(), 1);
    let now = Instant::now();
    for (resource_type, yaml) in [(ResourceType::Cluster, &cluster), (ResourceType::Listener, &listener)] {
        configuration.apply_static(resource_type, &resource(resource_type, yaml), now).unwrap();
    }
    configuration.settle(now);
    let stats = configuration.inputs().stats.clone();
    let worker = worker::spawn(0, Shared::new(stats.clone())).unwrap();
    let Ok([Change::Listen { listener, addresses, mut sockets }]) =
        <[_; 1]>::try_from(configuration.take_changes())
    else {
        panic!("one listener");
    };
    let sockets = sockets.remove(0);
    let Address::Ip(address) = sockets[0].local_address().unwrap() else { panic!("not TCP") };
    worker.send(Command::Listen { listener, addresses, sockets });
    Running { configuration, stats, address, worker, folder }
}

impl Running {
    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    fn http(&self) -> Arc<HttpStats> {
        self.stats.http("test")
    }

    /// Waits until all connections are gone and gives the access log.
    fn finish(self) -> String {
        let stats = self.stats.clone();
        wait_until("connections end", || stats.server().total_connections.get() == 0);
        self.worker.join();
        self.configuration.inputs().log_files.flush(Duration::from_secs(10));
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }
}

/// Reads a request's or a response's head.
pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Answers the requests of each connection with 200 and gives their heads; a request to `/silent` gets no answer.
fn upstream() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, heads) = (stream.unwrap(), heads.clone());
            std::thread::spawn(move || {
                loop {
                    let head = read_head(&mut stream);
                    let silent = head.contains(" /silent ");
                    if head.is_empty() || heads.send(head).is_err() {
                        return;
                    }
                    if !silent {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                    }
                }
            });
        }
    });
    (address, received)
}

/// An address at which nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_request_that_does_not_end_is_answered_with_408() {
    let (upstream, heads) = upstream();
    let running = run("request_timeout: 0.05s,", "", upstream);
    let mut client = running.client();
    client.write_all(b"POST /silent HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").unwrap();
    let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\nrequest timeout"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(heads.recv().unwrap().starts_with("POST /silent "));
    let http = running.http();
    // The whole request was received, so its timeout no longer counts; the client ends this one.
    let mut client = running.client();
    client.write_all(b"POST /silent HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "no answer within four timeouts");
    drop(client);
    let log = running.finish();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "408 - request_overall_timeout -");
    assert!(lines[1].starts_with("0 DC downstream_remote_disconnect "), "{log}");
    assert_eq!(http.downstream_rq_timeout.get(), 1);
    assert_eq!((http.downstream_cx_destroy_local.get(), http.downstream_cx_destroy_remote.get()), (1, 1));
}

#[test]
fn hosts_lose_their_port_and_responses_repeat_the_request_id() {
    let (upstream, heads) = upstream();
    let manager = "strip_any_host_port: true, always_set_request_id_in_response: true, http_protocol_options: \
                   {accept_http_10: true, default_host_for_http_10: d.example},";
    let running = run(manager, "", upstream);
    let mut client = running.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a:81\r\nx-request-id: 7\r\n\r\n").unwrap();
    let response = read_head(&mut client);
    assert!(response.contains("\r\nx-request-id: 7\r\n"), "{response}");
    let request = heads.recv().unwrap();
    assert!(request.contains("\r\nhost: a\r\n"), "{request}");
    // Also when the proxy answers.
    client.write_all(b"GET /direct HTTP/1.1\r\nhost: a\r\nx-request-id: 8\r\n\r\n").unwrap();
    let response = read_head(&mut client);
    assert!(response.contains("\r\nx-request-id: 8\r\n"), "{response}");
    drop(client);
    let mut client = running.client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    let request = heads.recv().unwrap();
    assert!(request.contains("\r\nhost: d.example\r\n"), "{request}");
    drop(client);
    running.finish();
}

#[test]
fn a_connection_ends_with_its_last_request() {
    let (upstream, _heads) = upstream();
    let options = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
                   type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
                   {http_protocol_options: {}}, common_http_protocol_options: {max_requests_per_connection: 1}}},";
    let running = run("common_http_protocol_options: {max_requests_per_connection: 2},", options, upstream);
    let (http, cluster) = (running.http(), running.stats.cluster("up"));
    let mut client = running.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(!read_head(&mut client).contains("connection: close"));
    assert_eq!(running.stats.server().total_connections.get(), 1);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(read_head(&mut client).contains("\r\nconnection: close\r\n"));
    assert_eq!(read_to_end(&mut client), b"");
    running.finish();
    assert_eq!(http.downstream_cx_max_requests_reached.get(), 1);
    assert_eq!((http.downstream_cx_destroy_local.get(), http.downstream_cx_destroy_remote.get()), (1, 0));
    assert_eq!((cluster.upstream_cx_total.get(), cluster.upstream_cx_max_requests.get()), (2, 2));
}

#[test]
fn an_http2_connection_goes_away_with_its_last_request() {
    let (upstream, _heads) = upstream();
    let running = run("common_http_protocol_options: {max_requests_per_connection: 2},", "", upstream);
    let http = running.http();
    let mut client = Http2Peer::client(running.client());
    client.get(1, "/");
    let frames = client.until_end_of(1);
    assert!(frames.iter().all(|frame| frame.kind != GOAWAY), "{frames:?}");
    // The second is the last; a third that is on its way before the client can know is served all the same.
    client.get(3, "/");
    client.get(5, "/");
    let frames = client.until_closed();
    let answered: BTreeSet<u32> = frames.iter().filter(|f| f.is_last()).map(|f| f.stream).collect();
    assert_eq!(answered, BTreeSet::from([3, 5]), "{frames:?}");
    let goaway: Vec<_> = frames.into_iter().filter(|f| f.kind == GOAWAY).map(|f| f.payload).collect();
    // First that nothing new is welcome, then which stream was the last; neither is an error (RFC 9113 section 6.8).
    assert_eq!(goaway, [[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], [0, 0, 0, 5, 0, 0, 0, 0]]);
    running.finish();
    assert_eq!(http.downstream_cx_max_requests_reached.get(), 1);
    assert_eq!((http.downstream_cx_destroy_local.get(), http.downstream_cx_destroy_remote.get()), (1, 0));
}

#[test]
fn a_refused_connection_is_told_in_envoys_words() {
    let running = run("", "", closed());
    let mut client = running.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 503 "));
    drop(client);
    assert_eq!(
        running.finish(),
        "503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} 0\n"
    );
}
