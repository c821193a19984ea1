//! A sidecar that knows its control plane by a DNS name, as an injected pod does: search domains, both IP versions, a name that
//! moves, a DNS server that is away, a certificate for another name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use outrigger_tests::addr::{free_addr, pod_ip};
use outrigger_tests::ads::FakeAds;
use outrigger_tests::certs::Pki;
use outrigger_tests::dns::FakeDns;
use outrigger_tests::proxy::binary;
use outrigger_tests::wait;

/// As the injector writes it.
const NAME: &str = "outrigger-control-plane.outrigger-system.svc";
/// What it is in full.
const FULL_NAME: &str = "outrigger-control-plane.outrigger-system.svc.cluster.local";

/// A pod of the namespace `shop`, its DNS server, and the certificates of its control plane.
struct Pod {
    dns: FakeDns,
    pki: Pki,
    sidecar: Option<Child>,
}

impl Pod {
    fn new() -> Self {
        Pod { dns: FakeDns::start(), pki: Pki::new(), sidecar: None }
    }

    /// A control plane that proves `NAME`.
    fn control_plane(&self, at: SocketAddr) -> FakeAds {
        FakeAds::start_tls_at(at, &self.pki.trusted.leaf_named("control-plane", NAME))
    }

    fn start_sidecar(&mut self, port: u16) {
        let folder = self.pki.folder();
        let dns = self.dns.addr();
        let resolv_conf = folder.join("resolv.conf");
        let text = format!(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver {}\n\
             options ndots:5 timeout:1 attempts:1\n",
            dns.ip()
        );
        fs::write(&resolv_conf, text).unwrap();
        fs::write(folder.join("token"), "a-token").unwrap();
        let sidecar = Command::new(binary("outrigger-proxy"))
            .args(["sidecar", "--concurrency", "1", "--xds-address", &format!("{NAME}:{port}")])
            .arg("--ca-root-cert")
            .arg(&self.pki.trusted.root)
            .arg("--token-file")
            .arg(folder.join("token"))
            .arg("--resolv-conf")
            .arg(resolv_conf)
            .args(["--dns-port", &dns.port().to_string()])
            .env("INSTANCE_IP", pod_ip().to_string())
            .envs([("POD_NAME", "web-0"), ("POD_NAMESPACE", "shop")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        self.sidecar = Some(sidecar);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.pki.folder().join("log")).unwrap()
    }

    #[track_caller]
    fn wait_for_log(&mut self, parts: &[&str]) {
        let log = || fs::read_to_string(self.pki.folder().join("log")).unwrap();
        let said = wait::within(wait::PATIENCE, || {
            log().lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
        });
        assert!(said.is_some(), "no line with {parts:?}:\n{}", log());
        let ended = self.sidecar.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "the sidecar ended with {ended:?}:\n{}", log());
    }

    #[track_caller]
    fn wait_for_stream(&self, ads: &FakeAds) {
        let opened = wait::within(wait::PATIENCE, || (ads.streams() > 0).then_some(()));
        assert!(opened.is_some(), "no stream:\n{}", self.log());
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(mut sidecar) = self.sidecar.take() {
            let _ = sidecar.kill();
            let _ = sidecar.wait();
        }
    }
}

#[test]
fn a_sidecar_waits_for_dns_and_finds_the_name_by_search_domains() {
    let mut pod = Pod::new();
    let at = free_addr();
    let ads = pod.control_plane(at);
    pod.dns.silent(true);
    pod.start_sidecar(at.port());
    pod.wait_for_log(&["[config]", "cannot resolve", NAME, "again in"]);
    pod.dns.silent(false);
    pod.wait_for_log(&["[config]", "cannot resolve", NAME, "there is no such name"]);
    // Nobody is at the IPv6 address, and both are tried.
    pod.dns.set(FULL_NAME, &[Ipv6Addr::LOCALHOST.into(), at.ip()]);
    pod.wait_for_stream(&ads);
    let asked = pod.dns.asked();
    for domain in ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"] {
        let name = format!("{NAME}.{domain}");
        assert!(asked.contains(&name), "{name} is not in {asked:?}");
    }
    // The certificate service is at the same name: it was reached, and is none.
    pod.wait_for_log(&["no certificate for", &format!("{NAME}:{}", at.port()), "Unimplemented"]);
    assert!(!pod.log().contains("a-token"));
}

#[test]
fn a_control_plane_that_moves_is_found_again() {
    let mut pod = Pod::new();
    let first = free_addr();
    let second = SocketAddr::new(IpAddr::from(pod_ip()), first.port());
    let ads = pod.control_plane(first);
    pod.dns.set(FULL_NAME, &[first.ip()]);
    pod.start_sidecar(first.port());
    pod.wait_for_stream(&ads);
    let moved = pod.control_plane(second);
    pod.dns.set(FULL_NAME, &[second.ip()]);
    assert_eq!(moved.streams(), 0);
    drop(ads);
    pod.wait_for_stream(&moved);
}

#[test]
fn the_last_answer_counts_while_dns_is_away() {
    let mut pod = Pod::new();
    let at = free_addr();
    let ads = pod.control_plane(at);
    pod.dns.set(FULL_NAME, &[at.ip()]);
    pod.start_sidecar(at.port());
    pod.wait_for_stream(&ads);
    pod.dns.silent(true);
    drop(ads);
    let again = pod.control_plane(at);
    pod.wait_for_stream(&again);
    pod.wait_for_log(&["cannot resolve", NAME, "trying the last answer", &at.ip().to_string()]);
}

#[test]
fn a_certificate_for_another_name_is_refused_with_the_reason() {
    let mut pod = Pod::new();
    let at = free_addr();
    // In full, which is not how the sidecar was told to call it.
    let ads = FakeAds::start_tls_at(at, &pod.pki.trusted.leaf_named("control-plane", FULL_NAME));
    pod.dns.set(FULL_NAME, &[at.ip()]);
    pod.start_sidecar(at.port());
    let (name, address) = (format!("its certificate is not valid for '{NAME}'"), at.to_string());
    pod.wait_for_log(&["control plane 'xds-grpc'", &address, &name]);
    pod.wait_for_log(&["no certificate for", &address, &format!("not valid for name \"{NAME}\"")]);
    assert_eq!(ads.streams(), 0);
}
