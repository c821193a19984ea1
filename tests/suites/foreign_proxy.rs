//! A real Envoy as one workload's sidecar, in both variants of xDS, beside sidecars of ours: the demo's traffic is split, edited
//! and ejected as with ours, and each end knows the other by its identity.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use outrigger_tests::certs::spiffe;
use outrigger_tests::envoy_sidecar::{EnvoySidecar, Variant};
use outrigger_tests::load::Load;
use outrigger_tests::mesh::{APP_PORT, Mesh, Workload};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, wait};
use serde_json::Value;

const WEB: (&str, &str, &str) = ("web-0", "web", "v1");
const V1_A: (&str, &str, &str) = ("reviews-v1-a", "reviews", "v1");
const V1_B: (&str, &str, &str) = ("reviews-v1-b", "reviews", "v1");
const V2: (&str, &str, &str) = ("reviews-v2-a", "reviews", "v2");

/// What the demo has beside Pods, Services and routes; an ejected instance stays away for the whole test.
const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: default }
spec: { mtls: { mode: STRICT } }
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews-v1, namespace: default }
spec:
  host: reviews-v1
  trafficPolicy:
    outlierDetection:
      { consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 600s, maxEjectionPercent: 50 }
";

/// The HTTPRoute of `reviews`, split by these weights.
fn route(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: reviews, namespace: default }}\n\
         spec:\n  parentRefs:\n  - {{ group: \"\", kind: Service, name: reviews, port: {APP_PORT} }}\n  rules:\n  \
         - backendRefs:\n    - {{ name: reviews-v1, port: {APP_PORT}, weight: {v1} }}\n    \
         - {{ name: reviews-v2, port: {APP_PORT}, weight: {v2} }}\n"
    )
}

fn host() -> String {
    format!("reviews:{APP_PORT}")
}

/// The part of the answers that came from v1, by the pods' names.
fn share_of_v1(bodies: &BTreeMap<String, usize>) -> f64 {
    let v1: usize = bodies.iter().filter(|(pod, _)| pod.contains("-v1-")).map(|(_, count)| count).sum();
    v1 as f64 / bodies.values().sum::<usize>() as f64
}

/// Sends requests until their split is `expected`, and then checks it on fresh ones.
#[track_caller]
fn wait_for_share(load: &Load, expected: f64) {
    wait::until("the new split", || {
        load.take_bodies();
        load.more(200);
        (share_of_v1(&load.take_bodies()) - expected).abs() < 0.15
    });
    load.more(3_000);
    let bodies = load.take_bodies();
    let count = bodies.values().sum::<usize>() as f64;
    // Five standard deviations of a binomial distribution.
    let margin = 5.0 * (expected * (1.0 - expected) / count).sqrt();
    let share = share_of_v1(&bodies);
    assert!((share - expected).abs() <= margin, "{share} of v1, expected {expected} ± {margin}: {bodies:?}");
}

/// Waits until the application of `workload` reaches `reviews`.
#[track_caller]
fn wait_for_reviews(workload: &Workload, log: impl Fn() -> String) {
    let answer = wait::within(wait::PATIENCE, || {
        let mut client = RawClient::connect(workload.outbound()).ok()?;
        client.get(&host(), "/").is_ok_and(|response| response.status == 200).then_some(())
    });
    assert!(answer.is_some(), "{}", log());
}

/// Every proxy has accepted what it was sent last, and nothing was ever refused.
#[track_caller]
fn check_synced(mesh: &Mesh, variant: Variant) {
    let page = wait::eventually("all are synced", || {
        let page: Value = serde_json::from_str(&mesh.control_plane.page("/proxies").text()).unwrap();
        let rows = page["proxies"].as_array().unwrap().clone();
        let mut states = rows.iter().flat_map(|row| row["types"].as_object().unwrap().values());
        states.all(|status| status["state"] == "synced" || status["state"] == "never_sent").then_some(rows)
    });
    let expected = if variant == Variant::Sotw { "sotw" } else { "delta" };
    assert_eq!(page.len(), mesh.workloads.len(), "{page:?}");
    assert!(page.iter().any(|row| row["variant"] == expected), "{page:?}");
    let log = mesh.control_plane.log();
    assert!(!log.contains("NACK"), "{log}");
}

/// Envoy's copy of a resource has our own metadata, so that this test is about something.
#[track_caller]
fn check_own_metadata(envoy: &EnvoySidecar) {
    let dump = envoy.envoy.admin("/config_dump").text();
    assert!(dump.contains("\"outrigger.dev\""), "{dump}");
}

fn envoy_calls(variant: Variant) {
    let mesh = Mesh::start_around(&[WEB, V1_A, V1_B, V2], POLICIES, &["web-0"]);
    mesh.write("route.yaml", &route(90, 10));
    let web = mesh.workload("web-0");
    let Some(envoy) = EnvoySidecar::start(&mesh, web, variant) else { return };
    wait_for_reviews(web, || envoy.envoy.stderr());
    check_own_metadata(&envoy);

    let load = Load::start(web.outbound(), &host(), 2);
    wait_for_share(&load, 0.9);
    mesh.write("route.yaml", &route(50, 50));
    wait_for_share(&load, 0.5);
    load.finish();

    // The callees' sidecars, which are ours, know the caller by its certificate.
    for pod in ["reviews-v1-a", "reviews-v2-a"] {
        let scrape = mesh.workload(pod).scrape();
        let source = spiffe("web");
        let labels = [
            ("reporter", "destination"),
            ("source_principal", source.as_str()),
            ("source_workload", "web-0"),
            ("connection_security_policy", "mutual_tls"),
        ];
        let all = scrape.sum("istio_requests_total", &[("reporter", "destination")]);
        assert_eq!(scrape.sum("istio_requests_total", &labels), all, "{pod}");
        assert!(all > 0.0, "{pod}");
    }

    // One instance of v1 breaks. After three answers in a row the Envoy's worker tells its main thread, which ejects it.
    mesh.write("route.yaml", &route(100, 0));
    let mut client = RawClient::connect(web.outbound()).unwrap();
    let mut answer = || client.get(&host(), "/").unwrap();
    wait::until("all goes to v1", || (0..50).all(|_| answer().text().contains("-v1-")));
    mesh.workload("reviews-v1-a").upstream.answer(Reply::status(500, "broken"));
    let cluster = format!("cluster.outbound|{APP_PORT}||reviews-v1.default.svc.cluster.local");
    let ejected = || envoy.envoy.stat(&format!("{cluster}.outlier_detection.ejections_active"));
    let mut errors = 0;
    wait::until("an ejection", || {
        errors += (0..10).filter(|_| answer().status == 500).count();
        ejected() == Some(1)
    });
    assert!((3..20).contains(&errors), "{errors}");
    assert!((0..300).all(|_| answer().text() == "reviews-v1-b"));
    check_synced(&mesh, variant);
}

fn envoy_is_called(variant: Variant) {
    let mesh = Mesh::start_around(&[WEB, V1_A, V1_B, V2], POLICIES, &["reviews-v1-a", "reviews-v2-a"]);
    mesh.write("route.yaml", &route(90, 10));
    let (web, callee) = (mesh.workload("web-0"), mesh.workload("reviews-v1-a"));
    let Some(v1) = EnvoySidecar::start(&mesh, callee, variant) else { return };
    let Some(v2) = EnvoySidecar::start(&mesh, mesh.workload("reviews-v2-a"), variant) else { return };
    wait_for_reviews(web, || v1.envoy.stderr() + &v2.envoy.stderr());
    check_own_metadata(&v1);

    let load = Load::start(web.outbound(), &host(), 2);
    wait_for_share(&load, 0.9);
    mesh.write("route.yaml", &route(50, 50));
    wait_for_share(&load, 0.5);
    load.finish();

    // The caller's sidecar, which is ours, demanded the identity of the callee and saw it.
    let scrape = web.scrape();
    let (source, destination) = (spiffe("web"), spiffe("reviews"));
    for pod in ["reviews-v1-a", "reviews-v2-a"] {
        let labels = [
            ("reporter", "source"),
            ("destination_workload", pod),
            ("source_principal", source.as_str()),
            ("destination_principal", destination.as_str()),
        ];
        let all =
            scrape.sum("istio_requests_total", &[("reporter", "source"), ("destination_workload", pod)]);
        assert_eq!(scrape.sum("istio_requests_total", &labels), all, "{pod}");
        assert!(all > 0.0, "{pod}");
    }
    // The Envoy took nothing but mutual TLS, and its application saw the workload's own address.
    let stat = |name: &str| v1.envoy.stat(&format!("listener.{}_15006.ssl.{name}", callee.ip));
    assert!(stat("handshake").unwrap() > 0);
    assert_eq!(stat("no_certificate"), Some(0));
    let requests = callee.upstream.take_requests();
    assert!(requests.iter().all(|request| request.peer.ip() == callee.ip));
    let mut stranger = RawClient::connect(callee.inbound()).unwrap();
    assert!(stranger.get(&host(), "/").is_err(), "a stranger was answered");
    assert!(callee.upstream.take_requests().is_empty());
    check_synced(&mesh, variant);
}

#[test]
fn an_envoy_calls_in_the_state_of_the_world() {
    envoy_calls(Variant::Sotw);
}

#[test]
fn an_envoy_calls_in_the_incremental_variant() {
    envoy_calls(Variant::Delta);
}

#[test]
fn an_envoy_is_called_in_the_state_of_the_world() {
    envoy_is_called(Variant::Sotw);
}

#[test]
fn an_envoy_is_called_in_the_incremental_variant() {
    envoy_is_called(Variant::Delta);
}
