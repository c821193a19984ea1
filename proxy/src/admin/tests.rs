//! The endpoints over a server of our own, and once over a real connection.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::cluster::lb::LbPolicy;
use crate::cluster::{
    Balancing, CircuitBreakers, ConnectionSettings, EndpointSet, HostSpec, MeshDestination, Thresholds,
    UpstreamProtocol,
};
use crate::config::live::Live;
use crate::transport_socket::{CertificateDetails, UpstreamTransport};

/// A server that does nothing but remember.
struct Server {
    clusters: Vec<ClusterEntry>,
    state: Mutex<ServerState>,
    done: Mutex<Vec<String>>,
    /// Why it should get no traffic.
    reason: Mutex<Option<String>>,
}

impl AdminView for Server {
    fn state(&self) -> ServerState {
        *self.state.lock().unwrap()
    }

    fn unready_reason(&self) -> Option<String> {
        self.reason.lock().unwrap().clone()
    }

    fn clusters(&self) -> Vec<ClusterEntry> {
        self.clusters.clone()
    }

    fn listeners(&self) -> Vec<ListenerEntry> {
        let addresses = ["127.0.0.1:10001", "[::1]:10002"].map(|a| Address::Ip(a.parse().unwrap()));
        vec![
            ListenerEntry { name: "ingress".into(), addresses: addresses.to_vec() },
            ListenerEntry {
                name: "unix".into(),
                addresses: vec![Address::Pipe(Arc::new("/run/l.sock".into()))],
            },
        ]
    }

    fn config_dump(&self, include_eds: bool) -> Value {
        let mut dump = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "static_secrets": [{"name": "s", "secret": {"tls_certificate": {"private_key": {"inline_string": "KEY"}}}}],
        }]});
        if include_eds {
            let endpoints = json!({"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump"});
            dump["configs"].as_array_mut().unwrap().push(endpoints);
        }
        dump
    }

    fn certs(&self) -> Vec<CertificateEntry> {
        let certificate = |days: u64| CertificateDetails {
            description: None,
            serial: "1".into(),
            sans: Vec::new(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::now() + Duration::from_secs(days * 86_400 + 3_600),
        };
        let (chain, ca) = (vec![certificate(9)], vec![certificate(30)]);
        vec![CertificateEntry { chain_path: "default".into(), chain, ca_path: "ROOTCA".into(), ca }]
    }

    fn command_line_options(&self) -> Value {
        json!({"concurrency": 2})
    }

    fn node(&self) -> Value {
        json!({"id": "n"})
    }

    fn set_healthy(&self, healthy: bool) {
        *self.state.lock().unwrap() = if healthy { ServerState::Live } else { ServerState::Draining };
    }

    fn drain(&self, drain: Drain) {
        self.done.lock().unwrap().push(format!("{drain:?}"));
    }

    fn quit(&self) {
        self.done.lock().unwrap().push("quit".into());
    }
}

struct Admin {
    server: Arc<Server>,
    state: AdminState,
}

fn admin() -> Admin {
    let stats = Stats::new();
    let server = Arc::new(Server {
        clusters: vec![ClusterEntry { cluster: cluster(&stats), added_via_api: true }],
        state: Mutex::new(ServerState::Initializing),
        done: Mutex::default(),
        reason: Mutex::default(),
    });
    let state = AdminState {
        view: server.clone(),
        log_files: LogFiles::new(stats.clone()),
        logging: Arc::new(Logging::detached()),
        stats,
    };
    Admin { server, state }
}

/// A cluster with one host that has served something and is ejected.
fn cluster(stats: &Arc<Stats>) -> Arc<Cluster> {
    let spec = HostSpec {
        hostname: "reviews".into(),
        weight: 3,
        ..HostSpec::at(Address::Ip("10.0.0.9:9080".parse().unwrap()))
    };
    let set = EndpointSet::build(None, vec![spec], 140, Balancing::default());
    let host = set.hosts().next().unwrap();
    host.requests_total.store(10, Relaxed);
    host.requests_error.store(2, Relaxed);
    host.active_requests.store(1, Relaxed);
    host.connections_total.store(4, Relaxed);
    host.ejected.store(true, Relaxed);
    let cluster_stats = stats.cluster("up");
    let limits = Thresholds::default();
    Arc::new(Cluster {
        name: "up".into(),
        lb: LbPolicy::RoundRobin,
        endpoints: Live::with("up", set.clone()),
        connection: Arc::new(ConnectionSettings {
            errors: None,
            connect_timeout: Duration::from_secs(5),
            transport: UpstreamTransport::Plaintext,
            protocol: UpstreamProtocol::Http1,
            max_connection_duration: None,
            max_stream_duration: None,
            idle_timeout: None,
            max_requests_per_connection: 0,
            max_response_headers_bytes: None,
            max_response_headers_count: 100,
            max_concurrent_streams: 1024,
            buffer_limit_bytes: 1 << 20,
            initial_stream_window_bytes: 1 << 16,
            initial_connection_window_bytes: 1 << 16,
            http2_keep_alive: None,
            http1_trailers: false,
            header_case: Default::default(),
            source_address: None,
            tcp_keepalive: None,
            happy_eyeballs: Default::default(),
            peer_certificate_grace: None,
        }),
        circuit_breakers: CircuitBreakers::new(cluster_stats.clone(), limits, limits),
        outlier: None,
        stats: cluster_stats,
        destination: Arc::new(MeshDestination::default()),
        metadata: None,
    })
}

impl Admin {
    fn ask(&self, method: Method, target: &str) -> (StatusCode, HeaderMap, String) {
        let uri: http::Uri = target.parse().unwrap();
        let (head, body) = endpoints::respond(&self.state, &method, uri.path(), uri.query()).into_parts();
        let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(body.collect());
        (head.status, head.headers, String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap())
    }

    fn get(&self, target: &str) -> (u16, String) {
        let (status, _, body) = self.ask(Method::GET, target);
        (status.as_u16(), body)
    }

    fn post(&self, target: &str) -> (u16, String) {
        let (status, _, body) = self.ask(Method::POST, target);
        (status.as_u16(), body)
    }

    fn json(&self, target: &str) -> Value {
        let (status, headers, body) = self.ask(Method::GET, target);
        assert_eq!(
            (status, headers["content-type"].as_bytes()),
            (StatusCode::OK, &b"application/json"[..]),
            "{body}"
        );
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn ready_says_the_state() {
    let admin = admin();
    assert_eq!(admin.get("/ready"), (503, "INITIALIZING\n".into()));
    assert_eq!(admin.post("/healthcheck/ok"), (200, "OK\n".into()));
    assert_eq!(admin.get("/ready"), (200, "LIVE\n".into()));
    *admin.server.reason.lock().unwrap() = Some("too old".into());
    assert_eq!(admin.get("/ready"), (503, "too old\n".into()));
    assert_eq!(admin.post("/healthcheck/fail"), (200, "OK\n".into()));
    assert_eq!(admin.get("/ready"), (503, "DRAINING\n".into()));
}

#[test]
fn what_changes_something_wants_post() {
    let admin = admin();
    for path in [
        "/quitquitquit",
        "/drain_listeners",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/logging",
        "/reopen_logs",
    ] {
        assert_eq!(admin.get(path), (405, "Method GET not allowed, POST required.".into()), "{path}");
    }
    assert!(admin.server.done.lock().unwrap().is_empty());
    assert_eq!(admin.post("/drain_listeners?graceful&inboundonly"), (200, "OK\n".into()));
    assert_eq!(admin.post("/quitquitquit"), (200, "OK\n".into()));
    assert_eq!(
        *admin.server.done.lock().unwrap(),
        ["Drain { inbound_only: true, graceful: true, skip_exit: false }", "quit"]
    );
}

#[test]
fn clusters_have_envoys_lines() {
    let admin = admin();
    assert_eq!(
        admin.get("/clusters"),
        (
            200,
            "up::observability_name::up\n\
             up::default_priority::max_connections::1024\n\
             up::default_priority::max_pending_requests::1024\n\
             up::default_priority::max_requests::1024\n\
             up::default_priority::max_retries::3\n\
             up::high_priority::max_connections::1024\n\
             up::high_priority::max_pending_requests::1024\n\
             up::high_priority::max_requests::1024\n\
             up::high_priority::max_retries::3\n\
             up::added_via_api::true\n\
             up::10.0.0.9:9080::cx_active::0\n\
             up::10.0.0.9:9080::cx_connect_fail::0\n\
             up::10.0.0.9:9080::cx_total::4\n\
             up::10.0.0.9:9080::rq_active::1\n\
             up::10.0.0.9:9080::rq_error::2\n\
             up::10.0.0.9:9080::rq_success::7\n\
             up::10.0.0.9:9080::rq_total::10\n\
             up::10.0.0.9:9080::hostname::reviews\n\
             up::10.0.0.9:9080::health_flags::/failed_outlier_check\n\
             up::10.0.0.9:9080::weight::3\n\
             up::10.0.0.9:9080::region::\n\
             up::10.0.0.9:9080::zone::\n\
             up::10.0.0.9:9080::sub_zone::\n\
             up::10.0.0.9:9080::canary::false\n\
             up::10.0.0.9:9080::priority::0\n\
             up::10.0.0.9:9080::success_rate::-1\n\
             up::10.0.0.9:9080::local_origin_success_rate::-1\n"
                .into()
        )
    );
    let json = admin.json("/clusters?format=json");
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"], json!({"socket_address": {"address": "10.0.0.9", "port_value": 9080}}));
    assert_eq!(host["health_status"], json!({"eds_health_status": "HEALTHY", "failed_outlier_check": true}));
    assert_eq!(host["stats"][6], json!({"name": "rq_total", "value": "10"}));
    assert_eq!(admin.get("/clusters?filter=other"), (200, String::new()));
}

#[test]
fn listeners() {
    let admin = admin();
    assert_eq!(
        admin.get("/listeners"),
        (200, "ingress::127.0.0.1:10001\ningress::[::1]:10002\nunix::/run/l.sock\n".into())
    );
    let json = admin.json("/listeners?format=json");
    let second = json!({"socket_address": {"address": "::1", "port_value": 10002}});
    assert_eq!(json["listener_statuses"][0]["additional_local_addresses"], json!([second]));
    assert_eq!(json["listener_statuses"][1]["local_address"], json!({"pipe": {"path": "/run/l.sock"}}));
}

#[test]
fn config_dump_is_redacted_and_selected() {
    let admin = admin();
    let (status, body) = admin.get("/config_dump");
    assert!(
        status == 200 && body.contains("[redacted]") && !body.contains("KEY") && !body.contains("Endpoints"),
        "{body}"
    );
    assert!(admin.get("/config_dump?include_eds").1.contains("EndpointsConfigDump"));
    assert_eq!(admin.json("/config_dump?resource=static_secrets")["configs"][0]["name"], "s");
    assert_eq!(admin.json("/config_dump?resource=static_secrets&name_regex=x")["configs"], json!([]));
    assert_eq!(admin.get("/config_dump?resource=nope"), (404, "nope not found in config dump\n".into()));
    assert_eq!(admin.get("/config_dump?mask=x").0, 400);
}

#[test]
fn stats_in_three_formats() {
    let admin = admin();
    admin.server.clusters[0].cluster.stats.upstream_rq_total.inc();
    let filter = "usedonly&filter=upstream_rq_total";
    assert_eq!(admin.get(&format!("/stats?{filter}")), (200, "cluster.up.upstream_rq_total: 1\n".into()));
    let stats = json!({"stats": [{"name": "cluster.up.upstream_rq_total", "value": 1}]});
    assert_eq!(admin.json(&format!("/stats?format=json&{filter}")), stats);
    let page = admin.get(&format!("/stats/prometheus?{filter}"));
    assert!(page.1.ends_with("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"up\"} 1\n"), "{page:?}");
    assert_eq!(admin.get(&format!("/stats?format=prometheus&{filter}")), page);
    assert_eq!(
        admin.get("/stats?format=html"),
        (400, "usage: /stats?format=(json|prometheus|text)\n".into())
    );
    assert!(admin.get("/stats?filter=%5B").1.starts_with("Invalid regex: "));
    assert_eq!(admin.get("/stats/prometheus?filter=%5B").0, 400);
}

#[test]
fn logging_levels_change() {
    let admin = admin();
    let (status, body) = admin.post("/logging");
    assert!(status == 200 && body.starts_with("active loggers:\n  admin: info\n"), "{body}");
    assert!(admin.post("/logging?level=debug").1.contains("  upstream: debug\n"));
    assert!(admin.post("/logging?upstream=error").1.contains("  upstream: error\n"));
    assert!(admin.post("/logging?paths=upstream:trace,http:off").1.contains("  http: off\n"));
    for (query, error) in [
        ("level=loud", "error: unknown logger level\n"),
        ("nope=info", "error: unknown logger name\n"),
        ("a=info&b=info", "error: invalid number of parameters\n"),
    ] {
        let (status, body) = admin.post(&format!("/logging?{query}"));
        assert!(status == 400 && body.starts_with(error), "{body}");
    }
    assert!(admin.post("/logging").1.contains("  upstream: trace\n"));
}

#[test]
fn help_home_and_unknown_paths() {
    let admin = admin();
    let (status, body) = admin.get("/help");
    assert!(status == 200 && body.starts_with("admin commands are:\n  /: Admin home page\n"), "{body}");
    assert!(body.contains("\n  /quitquitquit (POST): exit the server\n"));
    assert!(admin.get("/").1.contains("<a href=\"/clusters\">"));
    let (status, body) = admin.get("/nope");
    assert!(status == 404 && body.starts_with("invalid path. admin commands are:\n"), "{body}");
}

#[test]
fn facts_of_the_process() {
    let admin = admin();
    let info = admin.json("/server_info");
    assert_eq!(info["state"], "INITIALIZING");
    assert_eq!(info["command_line_options"]["concurrency"], 2);
    assert_eq!(info["node"]["id"], "n");
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'));
    let resident: u64 = admin.json("/memory")["total_physical_bytes"].as_str().unwrap().parse().unwrap();
    assert!(resident > 1 << 20);
    let certs = &admin.json("/certs")["certificates"][0];
    assert_eq!(certs["cert_chain"][0]["days_until_expiration"], "9");
    assert_eq!(certs["ca_cert"][0]["path"], "ROOTCA");
    let filter = "filter=server.(state|live|days)";
    assert_eq!(
        admin.get(&format!("/stats?{filter}")).1,
        "server.days_until_first_cert_expiring: 9\nserver.live: 0\nserver.state: 3\n"
    );
    admin.post("/healthcheck/ok");
    assert!(admin.get(&format!("/stats/prometheus?{filter}")).1.contains("\nenvoy_server_live 1\n"));
}

#[test]
fn answers_are_never_cached_nor_guessed_at() {
    let (_, headers, _) = admin().ask(Method::GET, "/ready");
    assert_eq!(headers["cache-control"], "no-cache, max-age=0");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn three_ports_over_real_connections() {
    let admin = admin();
    admin.server.set_healthy(true);
    let mut addresses = Vec::new();
    let mut listen = async || {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        listener
    };
    tokio::spawn(serve(listen().await, admin.state.clone()));
    tokio::spawn(serve_prometheus(listen().await, admin.state.clone()));
    tokio::spawn(serve_readiness(listen().await, admin.state.clone()));
    assert!(fetch(addresses[0], "/ready").await.ends_with("\r\n\r\nLIVE\n"));
    assert!(fetch(addresses[1], "/stats/prometheus?usedonly").await.contains("envoy_server_uptime"));
    assert!(fetch(addresses[1], "/quitquitquit").await.starts_with("HTTP/1.1 404 "));
    assert!(fetch(addresses[2], "/healthz/ready").await.starts_with("HTTP/1.1 200 "));
    assert!(fetch(addresses[2], "/config_dump").await.starts_with("HTTP/1.1 404 "));
}
