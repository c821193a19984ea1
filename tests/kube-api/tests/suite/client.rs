//! A plain HTTPS client: one connection a request, JSON in and out.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use outrigger_kube_api::ApiServer;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a test waits for what should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client with a token.
pub struct Client<'a> {
    server: &'a ApiServer,
    token: String,
    accept: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The body, null if it is no JSON.
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// Status code, `reason` and `message` of a `Status`.
    pub fn failure(&self) -> (u16, &str, &str) {
        assert_eq!(self.body["kind"], "Status", "{}", self.text);
        assert_eq!(self.body["code"], self.status);
        let text = |key: &str| self.body[key].as_str().unwrap_or_default();
        (self.status, text("reason"), text("message"))
    }

    /// Field and message of each cause.
    pub fn causes(&self) -> Vec<(&str, &str)> {
        let causes = self.body["details"]["causes"].as_array().expect("causes");
        causes
            .iter()
            .map(|cause| (cause["field"].as_str().unwrap_or_default(), cause["message"].as_str().unwrap()))
            .collect()
    }

    /// The body of a request that must have worked.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status < 300, "{}: {}", self.status, self.text);
        self.body
    }

    /// The names in a list.
    pub fn names(&self) -> Vec<&str> {
        let items = self.body["items"].as_array().unwrap_or_else(|| panic!("no list: {}", self.text));
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
    }
}

/// The events of a watch.
pub struct Events {
    body: Incoming,
    rest: String,
}

impl Events {
    /// The next event; `None` at a clean end, an error text when the stream breaks.
    pub async fn next(&mut self) -> Result<Option<Value>, String> {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let event = serde_json::from_str(line).expect("an event is JSON");
                self.rest = rest.to_owned();
                return Ok(Some(event));
            }
            match tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("waited for an event") {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    let data = frame.into_data().expect("no trailers");
                    self.rest.push_str(std::str::from_utf8(&data).unwrap());
                }
            }
        }
    }

    /// Type and name of the next event.
    pub async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.unwrap().expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }

    /// All events until a clean end.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await.unwrap() {
            events.push(event);
        }
        events
    }
}

impl<'a> Client<'a> {
    /// The administrator.
    pub fn new(server: &'a ApiServer) -> Self {
        Client::with_token(server, server.administrator_token())
    }

    /// Somebody else; an empty token means none.
    pub fn with_token(server: &'a ApiServer, token: &str) -> Self {
        Client { server, token: token.to_owned(), accept: "application/json".to_owned() }
    }

    pub fn accepting(mut self, accept: &str) -> Self {
        self.accept = accept.to_owned();
        self
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", "").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, "", "").await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.send(Method::DELETE, path, "application/json", &options.to_string()).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", &object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send(Method::PUT, path, "application/json", &object.to_string()).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.patch(path, "merge-patch+json", patch).await
    }

    /// `kind` is for instance `json-patch+json`.
    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        self.send(Method::PATCH, path, &format!("application/{kind}"), &patch.to_string()).await
    }

    /// Creates a namespace.
    pub async fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.post("/api/v1/namespaces", &object).await.ok();
    }

    pub async fn send(&self, method: Method, path: &str, content_type: &str, body: &str) -> Answer {
        let (parts, body) = self.request(method, path, content_type, body).await.unwrap().into_parts();
        let bytes = tokio::time::timeout(PATIENCE, body.collect()).await.expect("waited").unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text, body }
    }

    /// Starts a watch, which must be answered with 200.
    pub async fn watch(&self, path: &str) -> Events {
        let response = self.request(Method::GET, path, "", "").await.unwrap();
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), rest: String::new() }
    }

    /// One request on a connection of its own; an error when the connection fails.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &str,
    ) -> Result<http::Response<Incoming>, String> {
        let attempt = async {
            let stream =
                TcpStream::connect(self.server.address()).await.map_err(|error| error.to_string())?;
            let name = ServerName::try_from("localhost").unwrap();
            let stream =
                connector(self.server).connect(name, stream).await.map_err(|error| error.to_string())?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
            for (name, value) in [("accept", self.accept.as_str()), ("content-type", content_type)] {
                if !value.is_empty() {
                    request = request.header(name, value);
                }
            }
            if !self.token.is_empty() {
                request = request.header("authorization", format!("Bearer {}", self.token));
            }
            let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
            sender.send_request(request).await.map_err(|error| error.to_string())
        };
        tokio::time::timeout(PATIENCE, attempt).await.expect("waited for an answer")
    }
}

fn connector(server: &ApiServer) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.authority().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Looks until `probe` gives a value.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A ConfigMap.
pub fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A Service with one port.
pub fn service(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
           "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}
