//! The webhooks as an API server calls them: over TLS, in HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus::Registry;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::ca::root::Root;
use crate::ca::serving::{DNS_NAMES, ServingCertificate};

struct Server {
    address: SocketAddr,
    root: CertificateDer<'static>,
    certificate: Arc<ServingCertificate>,
    metrics: Arc<WebhookMetrics>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let root = Root::open_or_create(dir.path(), "cluster.local", now).unwrap();
        let authority = Arc::new(
            CertificateAuthority::new(root, None, "cluster.local", Duration::from_secs(3600)).unwrap(),
        );
        let root = authority.root_certificate().clone();
        assert_eq!(ca_bundle(&authority), to_pem(&root));
        let addresses = vec![[127, 0, 0, 1].into()];
        let names = DNS_NAMES.map(str::to_owned).to_vec();
        let (certificate, _) = ServingCertificate::issue(authority, names, addresses, now).unwrap();
        let metrics = Arc::new(WebhookMetrics::register(&Registry::new()).unwrap());
        let webhooks = Arc::new(Webhooks {
            injection: InjectionSettings::default(),
            mesh: MeshSettings::default(),
            metrics: Arc::clone(&metrics),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&certificate) as _, webhooks));
        Self { address, root, certificate, metrics, _dir: dir }
    }

    async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        // As the API server names a Service.
        let name = ServerName::try_from("outrigger-control-plane.outrigger-system.svc").unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let stream = TokioIo::new(self.connect(b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "webhook")
            .header("content-type", content_type)
            .body(Full::<bytes::Bytes>::from(body))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.send("POST", path, "application/json", body.to_vec()).await
    }

    /// Asks about an object and gives the `response` of the answer.
    async fn review(&self, path: &str, request: Value) -> Value {
        let review =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let (status, body) = self.post(&format!("{path}?timeout=10s"), review.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], "7f1a");
        answer["response"].clone()
    }
}

fn request(group: &str, version: &str, kind: &str, operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "uid": "7f1a",
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": "x"},
        "namespace": "shop",
        "operation": operation,
        "userInfo": {"username": "somebody"},
        "object": object,
        "oldObject": old,
        "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    })
}

fn pod_request(pod: &Value) -> Value {
    request("", "v1", "Pod", "CREATE", pod, &Value::Null)
}

/// A Pod as a ReplicaSet makes it: no name yet.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-5d4f8-", "labels": {"app": "web", "pod-template-hash": "5d4f8"}},
        "spec": {"containers": [{"name": "app", "image": "app:1", "resources": {}}], "restartPolicy": "Always"},
        "status": {},
    })
}

fn patched(object: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

#[tokio::test]
async fn a_pod_is_injected() {
    let server = Server::start().await;
    let response = server.review("/inject", pod_request(&pod())).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response.get("warnings"), None);
    let pod = patched(&pod(), &response);
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "outrigger-proxy");
    assert_eq!(server.metrics.injected.get(), 1);

    // What it gives is injected already.
    let again = server.review("/inject", pod_request(&pod)).await;
    assert_eq!(again, json!({"uid": "7f1a", "allowed": true}));
    assert_eq!(server.metrics.injection_skipped.with_label_values(&["already_injected"]).get(), 1);
    assert_eq!(server.metrics.injection_requests.get(), 2);
}

#[tokio::test]
async fn warnings_reach_the_user() {
    let server = Server::start().await;
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/statsInclusionRegexps": "x"});
    let response = server.review("/inject", pod_request(&pod)).await;
    assert!(response["warnings"][0].as_str().unwrap().contains("no effect"), "{response}");
}

#[tokio::test]
async fn a_pod_that_cannot_be_injected_is_refused() {
    let server = Server::start().await;
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/proxyCPU": "much"});
    let response = server.review("/inject", pod_request(&pod)).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(response["status"]["reason"], "Invalid");
    let cause = &response["status"]["details"]["causes"][0];
    assert_eq!(cause["field"], "metadata.annotations[\"sidecar.istio.io/proxyCPU\"]");
    assert!(response["status"]["message"].as_str().unwrap().starts_with(cause["field"].as_str().unwrap()));
    assert_eq!(response.get("patch"), None);
    assert_eq!(server.metrics.injection_refused.get(), 1);

    let other =
        server.review("/inject", request("apps", "v1", "Deployment", "CREATE", &pod, &Value::Null)).await;
    assert_eq!(other["allowed"], false);
    let lie = server.review("/inject", pod_request(&json!({"apiVersion": "v1", "kind": "Service"}))).await;
    assert_eq!(lie["allowed"], false);
}

#[tokio::test]
async fn only_creation_is_injected() {
    let server = Server::start().await;
    for operation in ["UPDATE", "DELETE", "CONNECT"] {
        let response = server.review("/inject", request("", "v1", "Pod", operation, &pod(), &pod())).await;
        assert_eq!(response, json!({"uid": "7f1a", "allowed": true}), "{operation}");
    }
    let mut ephemeral = pod_request(&pod());
    ephemeral["subResource"] = "ephemeralcontainers".into();
    assert_eq!(server.review("/inject", ephemeral).await.get("patch"), None);
}

#[tokio::test]
async fn what_is_no_review_gets_an_error() {
    let server = Server::start().await;
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": pod_request(&pod())});
    let with = |pointer: &str, value: Value| {
        let mut review = review.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    for (body, part) in [
        (String::new(), "EOF"),
        ("{".to_owned(), "EOF"),
        ("{}".to_owned(), "missing field"),
        (review.to_string() + "x", "something follows"),
        (with("/apiVersion", "admission.k8s.io/v1beta1".into()), "is no AdmissionReview of"),
        (with("/kind", "Pod".into()), "is no AdmissionReview of"),
        (with("/request/uid", "".into()), "request.uid"),
        (with("/request/operation", "SECRET".into()), "request.operation: has the wrong"),
        (with("/request", Value::Null), "request: has the wrong"),
    ] {
        let (status, text) = server.post("/inject", body.as_bytes()).await;
        let text = String::from_utf8(text).unwrap();
        assert_eq!(status, 400, "{body}");
        assert!(text.contains(part) && !text.contains("SECRET"), "{body}: {text}");
    }
    let body = review.to_string().into_bytes();
    let send = |method: &'static str, path: &'static str, content_type: &'static str| {
        server.send(method, path, content_type, body.clone())
    };
    assert_eq!(send("POST", "/", "application/json").await.0, 404);
    assert_eq!(send("PUT", "/inject", "application/json").await.0, 405);
    assert_eq!(send("POST", "/inject", "text/json").await.0, 415);
    assert_eq!(send("POST", "/inject", "application/json; charset=utf-8").await.0, 200);
    assert_eq!(server.post("/validate", &vec![b' '; 8 * 1024 * 1024 + 1]).await.0, 413);
    assert_eq!(server.metrics.bad_requests.with_label_values(&["review"]).get(), 9);
    assert_eq!(server.metrics.bad_requests.with_label_values(&["too_large"]).get(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start().await;
    let mut stream = server.connect(b"http/1.1").await;
    let head = "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\
                expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 25];
    // The server says so when it begins to wait for the body.
    stream.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&answer));
    tokio::time::pause();
    let waiting = tokio::time::Instant::now();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    assert!(waiting.elapsed() <= Duration::from_secs(11), "{:?}", waiting.elapsed());
}

#[tokio::test]
async fn http2_is_spoken() {
    let server = Server::start().await;
    let stream = TokioIo::new(server.connect(b"h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": pod_request(&pod())});
    let request = http::Request::post("https://webhook/inject")
        .header("content-type", "application/json")
        .body(Full::<bytes::Bytes>::from(review.to_string()))
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let server = Server::start().await;
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let mut old = server.connect(b"http/1.1").await;
    server.certificate.renew(OffsetDateTime::now_utc()).unwrap();
    let new = server.connect(b"http/1.1").await;
    assert_ne!(shown(&old), shown(&new));
    // Who is connected stays so.
    old.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    old.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");
}

fn route(weight: i64) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "reviews", "namespace": "shop", "managedFields": [{"manager": "x"}]},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "reviews", "port": null}],
            "rules": [{"backendRefs": [{"name": "v1", "port": 80, "weight": weight}]}]},
    })
}

fn rule_request(operation: &str, object: &Value, old: &Value) -> Value {
    request("gateway.networking.k8s.io", "v1", "HTTPRoute", operation, object, old)
}

#[tokio::test]
async fn a_broken_rule_is_refused_by_the_code_that_translates_it() {
    let server = Server::start().await;
    let good = server.review("/validate", rule_request("CREATE", &route(1), &Value::Null)).await;
    assert_eq!(good, json!({"uid": "7f1a", "allowed": true}));
    let broken = server.review("/validate", rule_request("CREATE", &route(-1), &Value::Null)).await;
    assert_eq!(broken["allowed"], false);
    let cause = &broken["status"]["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.rules[0].backendRefs[0].weight");

    for (group, version, kind, spec, field) in [
        ("networking.istio.io", "v1", "DestinationRule", json!({"host": "*"}), "spec.host"),
        (
            "security.istio.io",
            "v1",
            "PeerAuthentication",
            json!({"mtls": {"mode": "SOMETIMES"}}),
            "spec.mtls.mode",
        ),
        ("networking.istio.io", "v1", "EnvoyFilter", json!({}), "kind"),
        (
            "outrigger.dev",
            "v1alpha1",
            "TrafficPolicy",
            json!({"targetRefs": [{"group": "", "kind": "Service", "name": "a"}], "rateLimit": {"requests": 0}}),
            "spec.rateLimit.requests",
        ),
        ("networking.istio.io", "v2", "DestinationRule", json!({"host": "a"}), "apiVersion"),
    ] {
        let object = json!({"apiVersion": format!("{group}/{version}"), "kind": kind,
            "metadata": {"generateName": "a-"}, "spec": spec});
        let response =
            server.review("/validate", request(group, version, kind, "CREATE", &object, &Value::Null)).await;
        assert_eq!(response["status"]["details"]["causes"][0]["field"], field, "{kind}: {response}");
    }
    assert_eq!((server.metrics.validated.get(), server.metrics.validation_refused.get()), (1, 6));
}

#[tokio::test]
async fn nothing_keeps_a_user_from_cleaning_up() {
    let server = Server::start().await;
    let allowed = json!({"uid": "7f1a", "allowed": true});
    let deletion = rule_request("DELETE", &Value::Null, &route(-1));
    assert_eq!(server.review("/validate", deletion).await, allowed);
    let mut going = route(-1);
    going["metadata"]["deletionTimestamp"] = "2026-11-21T08:00:00Z".into();
    going["metadata"]["finalizers"] = json!([]);
    assert_eq!(server.review("/validate", rule_request("UPDATE", &going, &route(-1))).await, allowed);
    // A broken rule that was stored before us may get a label, but no other broken rule.
    let mut labelled = route(-1);
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(server.review("/validate", rule_request("UPDATE", &labelled, &route(-1))).await, allowed);
    let worse = server.review("/validate", rule_request("UPDATE", &route(-2), &route(-1))).await;
    assert_eq!(worse["allowed"], false);
    let mut status = rule_request("UPDATE", &route(-2), &route(-1));
    status["subResource"] = "status".into();
    assert_eq!(server.review("/validate", status).await, allowed);
}
