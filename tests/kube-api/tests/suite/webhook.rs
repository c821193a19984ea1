//! An admission webhook of the tests: HTTPS with a certificate of its own authority, a scripted answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The answer to a review: HTTP status and body. `None`: never.
type Script = dyn Fn(&Value) -> Option<(u16, String)> + Send + Sync;

/// A running webhook.
pub struct Webhook {
    pub address: SocketAddr,
    /// For `caBundle`.
    pub authority: String,
    reviews: Arc<Mutex<Vec<(String, Value)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An `AdmissionReview` with this `response`; its `uid` is that of the request.
pub fn respond(review: &Value, mut response: Value) -> Option<(u16, String)> {
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let answer =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Some((200, answer.to_string()))
}

/// A `response` that allows with a patch.
pub fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

impl Webhook {
    pub async fn start(script: impl Fn(&Value) -> Option<(u16, String)> + Send + Sync + 'static) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "injector.mesh.svc".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reviews = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), reviews.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, script, seen) = (tls.clone(), script.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(script.clone(), seen.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Webhook { address, authority: STANDARD.encode(authority), reviews, task }
    }

    /// One that allows everything.
    pub async fn allowing() -> Self {
        Webhook::start(|review| respond(review, json!({"allowed": true}))).await
    }

    /// `url` and `caBundle`.
    pub fn client_config(&self) -> Value {
        json!({"url": format!("https://{}/mutate", self.address), "caBundle": self.authority})
    }

    /// Target and review of every request so far.
    pub fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.reviews.lock().unwrap())
    }
}

async fn answer(
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    request: http::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let target = request.uri().to_string();
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let answer = script(&review);
    seen.lock().unwrap().push((target, review));
    let Some((status, body)) = answer else { return std::future::pending().await };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}
