//! Certificates come, are replaced and run out: no request fails for it, and nobody is believed for longer than he may be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use outrigger_tests::ads::FakeAds;
use outrigger_tests::bootstrap::{
    any_host, cluster, http_connection_manager, overlay, tcp_proxy, to, type_url,
};
use outrigger_tests::certs::{Authority, Leaf, Pki};
use outrigger_tests::load::Load;
use outrigger_tests::mesh::{APP_PORT, Mesh, Workload};
use outrigger_tests::resources::{ads_bootstrap, tls_secret};
use outrigger_tests::{Bootstrap, Proxy, RawClient, Tls, Upstream, addr, bootstrap, wait};
use serde_json::{Value, json};

const PODS: [(&str, &str, &str); 2] = [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1")];
const PAIR: [&str; 2] = ["web-0", "reviews-0"];
/// Certificates that are renewed every few seconds, and still live long enough to be verified on a slow machine.
const SHORT: (&str, &str) = ("OUTRIGGER_WORKLOAD_CERT_TTL", "8s");

fn renewals(workload: &Workload) -> f64 {
    workload.scrape().sum("outrigger_identity_renewals_total", &[])
}

/// Waits until both have so many more certificates.
fn wait_renewed(mesh: &Mesh, times: f64) {
    for pod in PAIR {
        let goal = renewals(mesh.workload(pod)) + times;
        wait::until("renewals", || renewals(mesh.workload(pod)) >= goal);
    }
}

fn load(mesh: &Mesh) -> Load {
    Load::start(mesh.workload("web-0").outbound(), &format!("reviews:{APP_PORT}"), 2)
}

#[test]
fn the_mesh_renews_its_certificates_under_load() {
    let mesh = Mesh::start_with_envs(&PODS, "", &[], &[SHORT]);
    let load = load(&mesh);
    let opened = || mesh.workload("web-0").scrape().sum("envoy_cluster_upstream_cx_http2_total", &[]);
    let (first, before) = (serial(mesh.workload("reviews-0").sidecar()), opened());
    wait_renewed(&mesh, 3.0);
    load.more(100);
    load.finish();
    assert_ne!(serial(mesh.workload("reviews-0").sidecar()), first);
    // The connections between the sidecars did not outlive the certificates.
    assert!(opened() > before);
    for pod in PAIR {
        let failures = mesh.workload(pod).scrape().sum("outrigger_identity_renewal_failures_total", &[]);
        assert_eq!(failures, 0.0);
    }
}

#[test]
fn the_root_is_replaced_under_load() {
    let pki = Pki::new();
    let (old, new) = (&pki.trusted, &pki.foreign);
    let more = pki.folder().join("more.pem");
    fs::copy(&old.root, &more).unwrap();
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    let env = [
        SHORT,
        ("OUTRIGGER_CA_CERT", &file(&old.root)),
        ("OUTRIGGER_CA_KEY", &file(&old.key)),
        ("OUTRIGGER_TRUSTED_ROOTS", &file(&more)),
    ];
    let mut mesh = Mesh::start_with_envs(&PODS, "", &[], &env);
    let load = load(&mesh);
    let trust = |roots: &[&Authority]| {
        let pem: String = roots.iter().map(|root| fs::read_to_string(&root.root).unwrap()).collect();
        fs::write(pki.folder().join("part"), pem).unwrap();
        fs::rename(pki.folder().join("part"), &more).unwrap();
    };
    let wait_roots = |mesh: &Mesh, number: usize| {
        let of = |pod| roots(mesh.workload(pod).sidecar());
        wait::until("the roots", || PAIR.iter().all(|pod| of(pod).len() == number));
        of("web-0")
    };
    let first = wait_roots(&mesh, 1);
    trust(&[old, new]);
    let mut both = wait_roots(&mesh, 2);
    both.retain(|root| !first.contains(root));
    // The roots of peers come with the certificates, those of the control plane from the file.
    wait_renewed(&mesh, 2.0);
    // Everybody trusts both: the new one may sign.
    trust(&[new, old]);
    mesh.control_plane.set_env("OUTRIGGER_CA_CERT", &file(&new.root));
    mesh.control_plane.set_env("OUTRIGGER_CA_KEY", &file(&new.key));
    mesh.control_plane.start_again();
    wait_renewed(&mesh, 2.0);
    trust(&[new]);
    assert_eq!(wait_roots(&mesh, 1), both);
    load.more(100);
    load.finish();
}

#[test]
fn a_workload_near_its_end_says_so() {
    let minimum = ("OUTRIGGER_MINIMUM_CERTIFICATE_LIFE_S", "20");
    let mut mesh = Mesh::start_with_envs(&PODS, "", &[minimum], &[("OUTRIGGER_WORKLOAD_CERT_TTL", "25s")]);
    let load = load(&mesh);
    mesh.control_plane.kill();
    let web = mesh.workload("web-0");
    let told = wait::eventually("web says so", || {
        let answer =
            RawClient::connect((web.ip, 15021).into()).ok()?.get("kubelet", "/healthz/ready").ok()?;
        (answer.status == 503).then(|| answer.text())
    });
    assert!(told.contains("certificate of the workload expires in"), "{told}");
    wait::until("failures are counted", || {
        web.scrape().sum("outrigger_identity_renewal_failures_total", &[]) >= 1.0
    });
    // It serves on as long as it can.
    load.more(100);
    mesh.control_plane.start_again();
    wait::until("web is ready again", || mesh.workload("web-0").is_ready());
    load.finish();
}

/// Serial number of the certificate that a sidecar shows.
fn serial(sidecar: &Proxy) -> Value {
    own(sidecar)["cert_chain"][0]["serial_number"].clone()
}

fn own(sidecar: &Proxy) -> Value {
    let page: Value = serde_json::from_str(&sidecar.admin("/certs").text()).unwrap();
    let mut all = page["certificates"].as_array().unwrap().iter();
    all.find(|entry| !entry["cert_chain"].as_array().unwrap().is_empty()).unwrap().clone()
}

/// The serial numbers of the roots that a sidecar believes, in order.
fn roots(sidecar: &Proxy) -> Vec<String> {
    let page: Value = serde_json::from_str(&sidecar.admin("/certs").text()).unwrap();
    let all = page["certificates"].as_array().unwrap().iter().filter_map(|entry| entry["ca_cert"].as_array());
    let mut roots: Vec<String> = all.flatten().map(|root| root["serial_number"].to_string()).collect();
    roots.sort();
    roots.dedup();
    roots
}

fn downstream_tls(common: Value, more: Value) -> Value {
    let mut context = json!({
        "@type": type_url("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": common,
    });
    overlay(&mut context, more);
    json!({"name": "tls", "typed_config": context})
}

fn files(leaf: &Leaf) -> Value {
    json!({"certificate_chain": {"filename": leaf.chain}, "private_key": {"filename": leaf.key}})
}

fn grace(seconds: u32) -> Value {
    json!({"metadata": {"filter_metadata": {"outrigger.dev": {"peer_certificate_grace_seconds": seconds}}}})
}

/// A connection by which `Load` goes on while the certificate of its server is replaced again and again.
#[test]
fn secrets_are_replaced_under_load() {
    let (pki, upstream, at) = (Pki::new(), Upstream::start(), addr::free_addr());
    let ads = FakeAds::start();
    ads.set("pair", tls_secret("pair", &pki.trusted.leaf("first")));
    let mut bootstrap = ads_bootstrap(ads.addr());
    let sds = json!({"tls_certificate_sds_secret_configs": [{"name": "pair", "sds_config": {"ads": {}, "resource_api_version": "V3"}}]});
    let mut listener = bootstrap::listener("l", at, http_connection_manager(any_host(to("u")), json!({})));
    listener["filter_chains"][0]["transport_socket"] = downstream_tls(sds, json!({}));
    bootstrap["static_resources"]["listeners"] = json!([listener]);
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().unwrap();
    clusters.push(cluster("u", &[upstream.addr()], json!({})));
    let file = Bootstrap::new();
    file.write_value(&bootstrap);
    let proxy = Proxy::outrigger(&file);
    let tls = |authority: &Authority, name: &str| {
        Tls::trusting(authority, &format!("{name}.default.svc.cluster.local"))
    };
    wait::until("the first", || RawClient::connect_tls(at, &tls(&pki.trusted, "first")).is_ok());
    let mut client = RawClient::connect_tls(at, &tls(&pki.trusted, "first")).unwrap();
    for round in 0..50 {
        let name = format!("round-{round}");
        ads.set("pair", tls_secret("pair", &pki.foreign.leaf(&name)));
        assert_eq!(client.get("h", "/").unwrap().status, 200, "an old connection goes on");
        wait::until("the new one", || {
            let fresh = RawClient::connect_tls(at, &tls(&pki.foreign, &name));
            fresh.and_then(|mut client| client.get("h", "/")).is_ok_and(|answer| answer.status == 200)
        });
    }
    // One that is no good leaves the last one.
    ads.clear_verdicts();
    ads.set("pair", tls_secret("pair", &pki.foreign.mismatched("broken")));
    ads.wait_nack(&type_url("extensions.transport_sockets.tls.v3.Secret"));
    assert!(RawClient::connect_tls(at, &tls(&pki.foreign, "round-49")).is_ok());
    assert_eq!(client.get("h", "/").unwrap().status, 200);
    assert_eq!(proxy.stat("http.s.downstream_cx_destroy_remote"), None);
}

#[test]
fn files_are_replaced_under_load() {
    let (pki, upstream, at) = (Pki::new(), Upstream::start(), addr::free_addr());
    let live = Leaf { chain: pki.folder().join("live.pem"), key: pki.folder().join("live.key") };
    let install = |leaf: &Leaf| {
        fs::copy(&leaf.key, &live.key).unwrap();
        fs::copy(&leaf.chain, &live.chain).unwrap();
    };
    install(&pki.trusted.leaf("first"));
    let mut listener = bootstrap::listener("l", at, http_connection_manager(any_host(to("u")), json!({})));
    listener["filter_chains"][0]["transport_socket"] =
        downstream_tls(json!({"tls_certificates": [files(&live)]}), json!({}));
    let file = Bootstrap::of(&[listener], &[cluster("u", &[upstream.addr()], json!({}))]);
    let _proxy = Proxy::outrigger(&file);
    let tls = |name: &str| Tls::trusting(&pki.trusted, &format!("{name}.default.svc.cluster.local"));
    let mut client = RawClient::connect_tls(at, &tls("first")).unwrap();
    for round in 0..10 {
        let name = format!("round-{round}");
        install(&pki.trusted.leaf(&name));
        wait::until("the new one", || RawClient::connect_tls(at, &tls(&name)).is_ok());
        assert_eq!(client.get("h", "/").unwrap().status, 200, "an old connection goes on");
    }
}

/// A listener that wants certificates of the trusted root, with a grace for connections whose certificate runs out.
fn strict_listener(pki: &Pki, at: SocketAddr, filter: Value, seconds: u32) -> Value {
    let mut listener = bootstrap::listener("l", at, filter);
    let common = json!({
        "tls_certificates": [files(&pki.trusted.leaf("server"))],
        "validation_context": {"trusted_ca": {"filename": pki.trusted.root}},
    });
    listener["filter_chains"][0]["transport_socket"] =
        downstream_tls(common, json!({"require_client_certificate": true}));
    overlay(&mut listener, grace(seconds));
    listener
}

const EXPIRED: &str = "outrigger.connections_closed_peer_certificate_expired_total";

#[test]
fn an_http_connection_ends_with_the_certificate_of_its_client() {
    let (pki, upstream, at) = (Pki::new(), Upstream::start(), addr::free_addr());
    let filter = http_connection_manager(any_host(to("u")), json!({}));
    let file = Bootstrap::of(
        &[strict_listener(&pki, at, filter, 60)],
        &[cluster("u", &[upstream.addr()], json!({}))],
    );
    let proxy = Proxy::outrigger(&file);
    let server = "server.default.svc.cluster.local";
    let tls = |leaf: Leaf| Tls::trusting(&pki.trusted, server).identity(&leaf);
    let short = pki.trusted.leaf_until("short", Duration::from_secs(4));
    let mut lasting = RawClient::connect_tls(at, &tls(pki.trusted.leaf("long"))).unwrap();
    let mut busy = RawClient::connect_tls(at, &tls(short)).unwrap();
    let answer = wait::eventually("the end is told", || {
        let answer = busy.get("h", "/").unwrap();
        assert_eq!(answer.status, 200);
        answer.headers.lists("connection", "close").then_some(answer)
    });
    assert_eq!(answer.status, 200);
    assert!(busy.get("h", "/").is_err());
    assert_eq!(proxy.stat(EXPIRED), Some(1));
    assert!(!lasting.get("h", "/").unwrap().headers.lists("connection", "close"));
    // Who comes with it now is turned away.
    let late =
        RawClient::connect_tls(at, &tls(pki.trusted.expired("late"))).and_then(|mut c| c.get("h", "/"));
    assert!(late.is_err());
}

#[test]
fn a_tcp_connection_ends_a_moment_after_the_certificate_of_its_client() {
    let (pki, at) = (Pki::new(), addr::free_addr());
    let echo = TcpListener::bind((addr::pod_ip(), 0)).unwrap();
    let echo_addr = echo.local_addr().unwrap();
    thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            thread::spawn(move || echo_back(&stream));
        }
    });
    let file = Bootstrap::of(
        &[strict_listener(&pki, at, tcp_proxy("u", json!({})), 1)],
        &[cluster("u", &[echo_addr], json!({}))],
    );
    let proxy = Proxy::outrigger(&file);
    let short = pki.trusted.leaf_until("short", Duration::from_secs(3));
    let tls = Tls::trusting(&pki.trusted, "server.default.svc.cluster.local").identity(&short);
    let mut stream = RawClient::connect_tls(at, &tls).unwrap();
    stream.send(b"a");
    wait::until("the stream is cut", || {
        stream.send(b"a");
        proxy.stat(EXPIRED) == Some(1) && proxy.stat("cluster.u.upstream_cx_active") == Some(0)
    });
}

fn echo_back(mut stream: &TcpStream) {
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn a_connection_to_an_upstream_ends_with_its_certificate() {
    let (pki, at) = (Pki::new(), addr::free_addr());
    let server = TlsServer::start(&pki.trusted.leaf_until("server", Duration::from_secs(4)));
    let mut upstream = cluster("u", &[server.addr], grace(60));
    upstream["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": type_url("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": pki.trusted.root}}},
    }});
    let filter = http_connection_manager(any_host(to("u")), json!({}));
    let file = Bootstrap::of(&[bootstrap::listener("l", at, filter)], &[upstream]);
    let _proxy = Proxy::outrigger(&file);
    let mut client = RawClient::connect(at).unwrap();
    assert_eq!(client.get("h", "/").unwrap().status, 200);
    assert_eq!(client.get("h", "/").unwrap().status, 200);
    assert_eq!(server.connections(), 1);
    // It is not used again, and a new one would not be believed.
    wait::until("the server is not believed", || client.get("h", "/").unwrap().status == 503);
    assert!(server.connections() >= 2);
}

/// An HTTP server behind TLS that answers each request with 200.
struct TlsServer {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl TlsServer {
    fn start(leaf: &Leaf) -> Self {
        let listener = TcpListener::bind((addr::pod_ip(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(leaf.chain_der(), leaf.key_der())
            .unwrap();
        let (config, connections) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let counter = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::AcqRel);
                let session = rustls::ServerConnection::new(config.clone()).unwrap();
                thread::spawn(move || {
                    let mut stream = rustls::StreamOwned::new(session, stream);
                    let mut request = [0; 4096];
                    while let Ok(1..) = stream.read(&mut request) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                    }
                });
            }
        });
        Self { addr, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}
