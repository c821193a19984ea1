//! The admin pages: HTTP/1 on the admin address, read-only.
//!
//! `/ready`, `/metrics`, `/proxies`, `/rejections`, `/version`. Nothing here shows a secret. Runs on the main runtime.

mod pages;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ads::proxies::Proxies;
use crate::metrics::Metrics;
use crate::server::Lifecycle;
use crate::snapshot::Snapshot;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept the next comes after this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the pages show.
pub struct Admin {
    /// Whether the source is read and the process is not stopping.
    pub lifecycle: Lifecycle,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// The connected proxies.
    pub proxies: Arc<Proxies>,
    /// The published configuration, for what is wrong with the source's objects.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What the first configuration waits for.
    pub progress: watch::Receiver<String>,
}

/// Serves the pages until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin: accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.answer(&request)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection");
            }
        });
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => text(StatusCode::OK, "/ready\n/metrics\n/proxies\n/rejections\n/version\n"),
            "/ready" if self.lifecycle.is_serving() => text(StatusCode::OK, "ready\n"),
            "/ready" if self.lifecycle.is_stopping() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping\n")
            }
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", *self.progress.borrow())),
            "/metrics" => match self.metrics.encode() {
                Ok(encoded) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, encoded),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            "/proxies" => json(&pages::proxies(&self.proxies.list())),
            "/rejections" => json(&pages::rejections(&self.snapshots.borrow())),
            "/version" => json(&pages::version()),
            _ => text(StatusCode::NOT_FOUND, "no such page; see /\n"),
        }
    }
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", format!("{value:#}\n").into_bytes())
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
