#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::*;
use crate::access_log::{AccessLog, AccessLogs, LogFiles, Sink};
use crate::cluster::lb::LbPolicy;
use crate::cluster::{
    Balancing, CircuitBreakers, Cluster, ConnectionSettings, EndpointSet, HostSpec, Thresholds,
    UpstreamProtocol,
};
use crate::config::live::Live;
use crate::formatter::CapturePlan;
use crate::formatter::Format;
use crate::listener::{FilterChain, FilterChains, Listener, NetworkFilter};
use crate::net::{Address, bind_listeners};
use crate::route::ClusterRef;
use crate::stats::Stats;
use crate::transport_socket::{DownstreamTransport, UpstreamTransport};
use crate::worker::{self, Command, Shared, WorkerHandle};

/// A TCP proxy with default settings.
pub(crate) fn proxy_to(stats: &Stats, cluster: ClusterRef) -> TcpProxy {
    TcpProxy {
        stat_prefix: "test".into(),
        clusters: Clusters::Single(cluster),
        criteria: None,
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_connect_attempts: 1,
        hashes_source_ip: false,
        access_logs: AccessLogs::default(),
        log_on_connected: false,
        log_on_start: false,
        log_interval: None,
        stats: stats.tcp("test"),
        reporter: None,
    }
}

/// A cluster with these hosts.
pub(crate) fn cluster(stats: &Stats, hosts: &[SocketAddr], transport: UpstreamTransport) -> Arc<Cluster> {
    let specs = hosts
        .iter()
        .map(|address| HostSpec {
            workload: Some("reviews-v1;default;reviews;v1;Kubernetes".into()),
            ..HostSpec::at(Address::Ip(*address))
        })
        .collect();
    let scope = stats.cluster("upstream");
    Arc::new(Cluster {
        name: "upstream".into(),
        lb: LbPolicy::RoundRobin,
        endpoints: Live::with("upstream", EndpointSet::build(None, specs, 140, Balancing::default())),
        connection: Arc::new(ConnectionSettings {
            errors: None,
            connect_timeout: Duration::from_secs(5),
            transport,
            protocol: UpstreamProtocol::Http1,
            idle_timeout: None,
            max_connection_duration: None,
            max_stream_duration: None,
            max_requests_per_connection: 0,
            max_response_headers_bytes: None,
            max_response_headers_count: 100,
            max_concurrent_streams: 1024,
            buffer_limit_bytes: 1 << 20,
            initial_stream_window_bytes: 1 << 24,
            initial_connection_window_bytes: 1 << 24,
            http2_keep_alive: None,
            http1_trailers: true,
            header_case: Default::default(),
            source_address: None,
            tcp_keepalive: None,
            happy_eyeballs: Default::default(),
            peer_certificate_grace: None,
        }),
        circuit_breakers: CircuitBreakers::new(scope.clone(), Thresholds::default(), Thresholds::default()),
        outlier: None,
        stats: scope,
        destination: Arc::default(),
        metadata: None,
    })
}

/// A filter chain of this name.
pub(crate) fn chain(name: &str, transport: DownstreamTransport, proxy: TcpProxy) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        id: FilterChain::next_id(),
        name: name.into(),
        transport,
        handshake_timeout: None,
        peer_certificate_grace: None,
        filter: NetworkFilter::Tcp(Arc::new(ArcSwap::from_pointee(proxy))),
    })
}

/// Waits until it is so; fails after 10 s.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        std::thread::yield_now();
    }
}

/// One worker with one listener, and an access log.
pub(crate) struct Running {
    pub(crate) stats: Arc<Stats>,
    pub(crate) listener: Arc<Live<Listener>>,
    pub(crate) address: SocketAddr,
    files: Arc<LogFiles>,
    log: PathBuf,
    _folder: tempfile::TempDir,
    worker: WorkerHandle,
}

/// What a test listens with: statistics and access logs of the process, an address.
pub(crate) struct Setup {
    pub(crate) stats: Arc<Stats>,
    files: Arc<LogFiles>,
    folder: tempfile::TempDir,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let stats = Stats::new();
        Self { files: LogFiles::new(stats.clone()), stats, folder: tempfile::tempdir().unwrap() }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// An access log of this format.
    pub(crate) fn access_log(&self, format: &str) -> AccessLog {
        let format = Format::compile(format, &mut CapturePlan::default()).unwrap();
        AccessLog::new(format, None, self.files.open(Sink::File(self.log_path())).unwrap())
    }

    /// A plain listener whose every connection goes to this proxy.
    pub(crate) fn listener(&self, chains: FilterChains) -> Listener {
        Listener {
            name: "test".into(),
            addresses: Vec::new(),
            filter_chains: chains,
            ignores_connection_limit: false,
            bypasses_overload: false,
            is_bound: true,
            hands_over: false,
            filters: Vec::new(),
            listener_filters_timeout: Some(Duration::from_secs(15)),
            continue_on_timeout: false,
            backlog: 128,
            stats: self.stats.listener("test"),
            access_logs: AccessLogs::default(),
        }
    }

    pub(crate) fn run(self, listener: Listener) -> Running {
        let any = Address::Ip("127.0.0.1:0".parse().unwrap());
        let sockets = bind_listeners(&any, &Default::default(), 1).unwrap();
        let Address::Ip(address) = sockets[0].local_address().unwrap() else { panic!("not TCP") };
        let worker = worker::spawn(0, Shared::new(self.stats.clone())).unwrap();
        let listener = Live::with("test", Arc::new(listener));
        worker.send(Command::Listen { listener: listener.clone(), addresses: vec![address], sockets });
        let log = self.log_path();
        Running { stats: self.stats, listener, address, files: self.files, log, _folder: self.folder, worker }
    }
}

impl Running {
    pub(crate) fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// Ends the worker once its connections are gone, and gives the access log.
    pub(crate) fn finish(self) -> String {
        let stats = self.stats.listener("test");
        wait_until("connections end", || stats.downstream_cx_active.get() == 0);
        self.worker.join();
        self.files.flush(Duration::from_secs(10));
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Reads until the end; a reset counts as one.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
    }
    bytes
}

/// Answers each connection with its request in reverse, after the client has ended.
pub(crate) fn reversing_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = read_to_end(&mut stream);
                bytes.reverse();
                let _ = stream.write_all(&bytes);
            });
        }
    });
    address
}

const LOG: &str = "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n";

fn run(stats_and_files: Setup, change: impl FnOnce(&Setup, &mut TcpProxy), cluster: ClusterRef) -> Running {
    let setup = stats_and_files;
    let mut proxy = proxy_to(&setup.stats, cluster);
    proxy.access_logs.logs.push(setup.access_log(LOG));
    change(&setup, &mut proxy);
    let chains =
        FilterChains::build(Vec::new(), Some(chain("only", DownstreamTransport::Plaintext, proxy))).unwrap();
    let listener = setup.listener(chains);
    setup.run(listener)
}

#[test]
fn a_connection_is_proxied_counted_and_logged_once() {
    let upstream = reversing_server();
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[upstream], UpstreamTransport::Plaintext);
    let running = run(
        setup,
        |_, proxy| proxy.reporter = Some(Reporter::Source),
        Live::with("upstream", cluster.clone()),
    );
    let mut client = running.client();
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"olleh");
    let tcp = running.stats.tcp("test");
    let stats = running.stats.clone();
    assert_eq!(running.finish(), format!("- 5 5 upstream {upstream}\n"));
    assert_eq!((tcp.downstream_cx_rx_bytes_total.get(), tcp.downstream_cx_tx_bytes_total.get()), (5, 5));
    assert_eq!(cluster.stats.upstream_cx_total.get(), 1);
    assert_eq!(cluster.stats.upstream_cx_active.get(), 0);
    let scraped = stats.prometheus(&Default::default());
    let opened = scraped.lines().find(|l| l.starts_with("istio_tcp_connections_opened_total{")).unwrap();
    assert!(opened.contains(r#"destination_workload="reviews-v1""#) && opened.ends_with(" 1"), "{opened}");
}

#[test]
fn failures_have_their_flags() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (hosts, attempts, flags, line) in [
        (vec![], 1, "UH", "UH 0 0 upstream -\n".to_owned()),
        (vec![refused], 3, "UF,URX", format!("UF,URX 0 0 upstream {refused}\n")),
    ] {
        let setup = Setup::new();
        let cluster = cluster(&setup.stats, &hosts, UpstreamTransport::Plaintext);
        let running = run(
            setup,
            |_, proxy| {
                proxy.max_connect_attempts = attempts;
                proxy.reporter = Some(Reporter::Source);
            },
            Live::with("upstream", cluster.clone()),
        );
        let mut client = running.client();
        assert_eq!(read_to_end(&mut client), b"");
        let stats = running.stats.clone();
        assert_eq!(running.finish(), line);
        assert_eq!(cluster.stats.upstream_cx_connect_fail.get(), if hosts.is_empty() { 0 } else { 3 });
        let scraped = stats.prometheus(&Default::default());
        for what in ["opened", "closed"] {
            let name = format!("istio_tcp_connections_{what}_total{{");
            let counted = scraped.lines().find(|l| l.starts_with(&name)).unwrap();
            let label = format!(r#"response_flags="{flags}""#);
            assert!(counted.contains(&label) && counted.ends_with(" 1"), "{counted}");
        }
    }
}

#[test]
fn a_missing_cluster_and_a_full_one() {
    let running = run(Setup::new(), |_, _| {}, Live::empty("missing"));
    assert_eq!(read_to_end(&mut running.client()), b"");
    let tcp = running.stats.tcp("test");
    assert_eq!(running.finish(), "NC 0 0 - -\n");
    assert_eq!(tcp.downstream_cx_no_route.get(), 1);

    let upstream = reversing_server();
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[upstream], UpstreamTransport::Plaintext);
    cluster
        .circuit_breakers
        .set(Thresholds { max_connections: 1, ..Thresholds::default() }, Thresholds::default());
    let running = run(setup, |_, _| {}, Live::with("upstream", cluster.clone()));
    let first = running.client();
    wait_until("the first connection is up", || cluster.stats.upstream_cx_active.get() == 1);
    assert_eq!(read_to_end(&mut running.client()), b"");
    drop(first);
    let log = running.finish();
    assert_eq!(log.lines().next(), Some("UO 0 0 upstream -"));
    assert_eq!(log.lines().count(), 2);
}

#[test]
fn a_second_host_is_tried() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = reversing_server();
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[refused, upstream], UpstreamTransport::Plaintext);
    let running = run(setup, |_, proxy| proxy.max_connect_attempts = 2, Live::with("upstream", cluster));
    for _ in 0..2 {
        let mut client = running.client();
        client.write_all(b"ab").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client), b"ba");
    }
    let line = format!("- 2 2 upstream {upstream}\n");
    assert_eq!(running.finish(), line.repeat(2));
}

#[test]
fn the_end_of_the_worker_ends_the_connection() {
    let upstream = reversing_server();
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[upstream], UpstreamTransport::Plaintext);
    let running = run(setup, |_, _| {}, Live::with("upstream", cluster.clone()));
    let mut client = running.client();
    wait_until("the connection is up", || cluster.stats.upstream_cx_active.get() == 1);
    running.worker.send(Command::Exit);
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(running.finish(), format!("- 0 0 upstream {upstream}\n"));
}
