//! The whole mesh: a request through two sidecars, identities, metrics of both ends, live configuration.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;

use outrigger_tests::certs::spiffe;
use outrigger_tests::mesh::{APP_PORT, Mesh};
use outrigger_tests::prometheus_server::PrometheusServer;
use outrigger_tests::upstream::Reply;
use outrigger_tests::{RawClient, client, prometheus, wait};

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\n\
                      spec:\n  mtls: {mode: STRICT}\n";

fn pair() -> Mesh {
    let mesh = Mesh::start(&[("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1")], STRICT);
    wait::until("web reaches reviews", || {
        let answer = RawClient::connect(mesh.workload("web-0").outbound())
            .and_then(|mut client| client.get(&format!("reviews:{APP_PORT}"), "/"));
        answer.is_ok_and(|response| response.status == 200)
    });
    mesh
}

fn route(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  parentRefs:\n  - {{group: \"\", kind: Service, name: reviews, port: {APP_PORT}}}\n  rules:\n  \
         - backendRefs:\n    - {{name: reviews-v1, port: {APP_PORT}, weight: {v1}}}\n    \
         - {{name: reviews-v2, port: {APP_PORT}, weight: {v2}}}\n"
    )
}

#[test]
fn a_request_goes_through_both_sidecars_and_arrives_from_the_peer() {
    let mesh = pair();
    let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-v1-0"));
    reviews.upstream.take_requests();
    // As an application with `http_proxy=` sends it.
    let mut client = RawClient::connect(web.outbound()).unwrap();
    client.send(
        format!(
            "GET http://reviews:{APP_PORT}/path?q=1 HTTP/1.1\r\nhost: reviews:{APP_PORT}\r\nx-a: 1\r\n\r\n"
        )
        .as_bytes(),
    );
    let response = client.response().unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "reviews-v1-0"));
    let requests = reviews.upstream.take_requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].method.as_str(), requests[0].target.as_str()), ("GET", "/path?q=1"));
    assert_eq!(requests[0].headers.get("x-a"), Some("1"));
    assert_eq!(requests[0].peer.ip(), reviews.ip, "the last hop shows the workload's own address");
}

/// Off by default. The header names the sidecar at which it failed.
#[test]
fn a_failed_request_says_why_where_the_mesh_wants_it() {
    for wanted in ["false", "true"] {
        let pods = [("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1")];
        let mesh = Mesh::start_with_envs(&pods, STRICT, &[], &[("OUTRIGGER_PROXY_STATUS", wanted)]);
        let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-v1-0"));
        wait::until("web reaches reviews", || web.get("reviews").status == 200);
        reviews.upstream.answer_with(|_| Reply::Close);
        let response = web.get("reviews");
        assert_eq!(response.status, 503);
        let expected = format!(
            "sidecar~{}~reviews-v1-0.default~default.svc.cluster.local; error=connection_terminated; \
             details=\"upstream_reset_before_response_started{{connection_termination}}; UC\"",
            reviews.ip
        );
        let expected = (wanted == "true").then_some(expected.as_str());
        assert_eq!(response.headers.get("proxy-status"), expected);
    }
}

#[test]
fn a_stranger_is_refused() {
    let mesh = pair();
    let reviews = mesh.workload("reviews-v1-0");
    let before = reviews.upstream.recorded();
    let mut stranger = RawClient::connect(reviews.inbound()).unwrap();
    assert!(stranger.get(&format!("reviews:{APP_PORT}"), "/").is_err());
    assert_eq!(reviews.upstream.recorded(), before);
}

#[test]
fn a_sidecar_gets_only_what_its_token_proves() {
    let mesh = pair();
    let web = mesh.workload("web-0");
    // It says that it is web, with the token of reviews.
    let impostor = web.impostor();
    let sidecar = mesh.start_sidecar(&impostor, "reviews-v1-0");
    wait::until("it is refused", || sidecar.stderr().contains("web-0"));
    assert!(RawClient::connect(impostor.outbound()).is_err(), "it got a listener");
    assert_eq!(web.get("reviews").status, 200);
    let data = std::fs::metadata(mesh.folder().join("data")).unwrap();
    assert_eq!(data.permissions().mode() & 0o777, 0o700);
}

#[test]
fn both_ends_count_the_same_requests_and_a_real_prometheus_agrees() {
    let mesh = pair();
    let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-v1-0"));
    let Some(prometheus) = PrometheusServer::start(&[web.prometheus(), reviews.prometheus()]) else { return };
    prometheus.wait_up(2);
    let (source, destination) = ([("reporter", "source")], [("reporter", "destination")]);
    let before = (
        web.scrape().sum("istio_requests_total", &source),
        reviews.scrape().sum("istio_requests_total", &destination),
    );
    assert_eq!(before.0, before.1);
    for number in 0..60 {
        let status = if number % 3 == 0 { 404 } else { 200 };
        reviews.upstream.answer(Reply::status(status, "x"));
        assert_eq!(web.get("reviews").status, status);
    }
    for reporter in ["source", "destination"] {
        let total = before.0 + 60.0;
        prometheus.wait_for(&format!("sum(istio_requests_total{{reporter=\"{reporter}\"}})"), total);
        let code = format!("sum(istio_requests_total{{reporter=\"{reporter}\",response_code=\"404\"}})");
        prometheus.wait_for(&code, 20.0);
        let histogram = format!("sum(istio_request_duration_milliseconds_count{{reporter=\"{reporter}\"}})");
        prometheus.wait_for(&histogram, total);
    }
    let scrapes = [web.scrape(), reviews.scrape()];
    for (scrape, reporter) in scrapes.iter().zip(["source", "destination"]) {
        let ours = [("reporter", reporter), ("response_code", "404")];
        let sample = scrape.select("istio_requests_total", &ours).next().unwrap();
        let label = |name: &str| sample.labels.get(name).map(String::as_str);
        assert_eq!(label("source_principal"), Some(spiffe("web").as_str()), "{sample:?}");
        assert_eq!(label("destination_principal"), Some(spiffe("reviews").as_str()), "{sample:?}");
        assert_eq!(label("destination_service"), Some("reviews.default.svc.cluster.local"), "{sample:?}");
        assert_eq!(label("destination_service_name"), Some("reviews"), "{sample:?}");
        assert_eq!(label("response_flags"), Some("-"), "{sample:?}");
        // The destination knows it by its caller's certificate.
        assert_eq!(label("source_workload"), Some("web-0"), "{sample:?}");
        assert_eq!(label("destination_workload"), Some("reviews-v1-0"), "{sample:?}");
        let policy = if reporter == "destination" { "mutual_tls" } else { "unknown" };
        assert_eq!(label("connection_security_policy"), Some(policy), "{sample:?}");
    }
}

#[test]
fn promtool_finds_nothing_to_say_about_a_sidecar() {
    let mesh = pair();
    for workload in &mesh.workloads {
        let page = client::get(workload.prometheus(), "prometheus", "/stats/prometheus");
        let Some(complaints) = prometheus::complaints(&page.body) else { return };
        assert_eq!(complaints, Vec::<String>::new());
    }
}

#[test]
fn a_route_is_edited_live_and_a_broken_one_is_refused() {
    let pods = [("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1"), ("reviews-v2-0", "reviews", "v2")];
    let mesh = Mesh::start(&pods, STRICT);
    let web = mesh.workload("web-0");
    mesh.write("route.yaml", &route(100, 0));
    let mut client = RawClient::connect(web.outbound()).unwrap();
    let host = format!("reviews:{APP_PORT}");
    let mut answer = || client.get(&host, "/").unwrap();
    wait::until("all goes to v1", || (0..20).all(|_| answer().text() == "reviews-v1-0"));
    mesh.write("route.yaml", &route(0, 100));
    // One connection lives through all of it, and each request is answered.
    wait::until("all goes to v2", || {
        (0..20).all(|_| {
            let response = answer();
            assert_eq!(response.status, 200);
            response.text() == "reviews-v2-0"
        })
    });
    let broken = route(100, 0).replace(
        "rules:\n  -",
        "rules:\n  - matches:\n    - path: {type: RegularExpression, value: \"/a(\"}\n   ",
    );
    mesh.write("route.yaml", &broken);
    let rejection = wait::eventually("the control plane tells of it", || {
        let text = mesh.control_plane.page("/rejections").text();
        text.contains("route.yaml").then_some(text)
    });
    assert!(rejection.contains("reviews") && rejection.contains("value"), "{rejection}");
    for _ in 0..50 {
        assert_eq!(answer().text(), "reviews-v2-0");
    }
}

#[test]
fn traffic_goes_on_without_the_control_plane() {
    let mut mesh = pair();
    mesh.control_plane.kill();
    for _ in 0..50 {
        assert_eq!(mesh.workload("web-0").get("reviews").status, 200);
    }
    assert_eq!(mesh.workload("web-0").sidecar().admin("/ready").status, 200);
}
