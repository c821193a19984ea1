//! A mesh on an API server: real sidecars with service account tokens, and what goes on while the API server is away.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_kube_api::Cut;
use outrigger_tests::certs::spiffe;
use outrigger_tests::mesh::{APP_PORT, Mesh};
use outrigger_tests::{RawClient, wait};

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\n\
                      spec:\n  mtls: {mode: STRICT}\n";

/// The route of `reviews` to one of its versions.
fn route(version: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  parentRefs:\n  - {{group: \"\", kind: Service, name: reviews, port: {APP_PORT}}}\n  rules:\n  \
         - backendRefs:\n    - {{name: reviews-{version}, port: {APP_PORT}}}\n"
    )
}

fn mesh() -> Mesh {
    let pods = [("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1"), ("reviews-v2-0", "reviews", "v2")];
    let mesh = Mesh::start_on_cluster(&pods, &format!("{STRICT}---\n{}", route("v1")));
    arrives_at(&mesh, "reviews-v1-0");
    mesh
}

/// Waits until a request of web to reviews arrives at this pod.
#[track_caller]
fn arrives_at(mesh: &Mesh, pod: &str) {
    let web = mesh.workload("web-0").outbound();
    wait::until(&format!("web reaches {pod}"), || {
        let answer =
            RawClient::connect(web).and_then(|mut client| client.get(&format!("reviews:{APP_PORT}"), "/"));
        answer.is_ok_and(|response| response.status == 200 && response.text() == pod)
    });
}

#[test]
fn workloads_prove_themselves_with_service_account_tokens() {
    let mesh = mesh();
    let reviews = mesh.workload("reviews-v1-0");
    let ours = [("reporter", "destination"), ("response_code", "200")];
    let scrape = reviews.scrape();
    let sample = scrape.select("istio_requests_total", &ours).next().unwrap();
    let label = |name: &str| sample.labels.get(name).map(String::as_str);
    assert_eq!(label("source_principal"), Some(spiffe("web").as_str()), "{sample:?}");
    assert_eq!(label("connection_security_policy"), Some("mutual_tls"), "{sample:?}");
    mesh.cluster().put(&route("v2"));
    arrives_at(&mesh, "reviews-v2-0");

    // It says that it is web, with the token of reviews.
    let impostor = mesh.workload("web-0").impostor();
    let sidecar = mesh.start_sidecar(&impostor, "reviews-v1-0");
    wait::until("it is refused", || sidecar.stderr().contains("web-0"));
    assert!(RawClient::connect(impostor.outbound()).is_err(), "it got a listener");
}

#[test]
fn traffic_goes_on_while_the_api_server_is_away_and_nothing_is_lost() {
    let mesh = mesh();
    let (web, server) = (mesh.workload("web-0"), &mesh.cluster().server);
    server.cut_watches(None, Cut::Reset);
    server.kill();
    for _ in 0..50 {
        let response = web.get("reviews");
        assert_eq!((response.status, response.text().as_str()), (200, "reviews-v1-0"));
    }
    // A sidecar that starts now waits: its token cannot be checked.
    let late = web.impostor();
    let sidecar = mesh.start_sidecar(&late, "web-0");
    wait::until("it is told to come again", || sidecar.stderr().contains("cannot be checked now"));
    assert!(!late.is_ready());

    mesh.cluster().put(&route("v2"));
    server.compact_history();
    assert_eq!(web.get("reviews").text(), "reviews-v1-0");
    server.restart().unwrap();
    arrives_at(&mesh, "reviews-v2-0");
}
