//! The admin pages: HTTP/1 on the admin address, read-only.
//!
//! `/ready`, `/metrics`, `/proxies`, `/rejections`, `/config_dump`, `/version`. Nothing here shows a secret. Runs on the main
//! runtime; a dump, which may be large, is made on its blocking pool.

mod config_dump;
mod pages;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
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
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
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
                async move { Ok::<_, Infallible>(admin.answer(&request, peer).await) }
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
    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => text(
                StatusCode::OK,
                "/ready\n/metrics\n/proxies\n/rejections\n/config_dump?proxy=ID\n/version\n",
            ),
            "/ready" if self.lifecycle.is_serving() => text(StatusCode::OK, "ready\n"),
            "/ready" if self.lifecycle.is_stopping() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping\n")
            }
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", *self.progress.borrow())),
            "/metrics" => self.metrics(),
            "/proxies" => json(&pages::proxies(&self.proxies.list(), &self.snapshots.borrow())),
            "/rejections" => json(&pages::rejections(&self.snapshots.borrow(), &self.proxies.list())),
            "/config_dump" => self.config_dump(request.uri().query().unwrap_or_default(), peer).await,
            "/version" => json(&pages::version()),
            _ => text(StatusCode::NOT_FOUND, "no such page; see /\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.proxies.count_refusals();
        match self.metrics.encode() {
            Ok(encoded) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, encoded),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    /// The whole configuration of a proxy. It shows how the mesh is laid out, so it is for who may enter the control plane's
    /// Pod, by port-forward for instance, and not for every Pod that reaches the port (as in Istio).
    async fn config_dump(&self, query: &str, peer: SocketAddr) -> Response<Full<Bytes>> {
        if !is_local(peer.ip()) {
            return text(StatusCode::FORBIDDEN, "only from the same host or Pod; use kubectl port-forward\n");
        }
        let proxy = match config_dump::ProxyName::of_query(query) {
            Ok(proxy) => proxy,
            Err(reason) => return text(StatusCode::BAD_REQUEST, &format!("{reason}\n")),
        };
        let snapshot = Arc::clone(&self.snapshots.borrow());
        match tokio::task::spawn_blocking(move || config_dump::dump(&snapshot, &proxy)).await {
            Ok(Some(dump)) => json(&dump),
            Ok(None) => text(StatusCode::NOT_FOUND, "there is no such Pod with a sidecar in the mesh\n"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

/// Whether a caller is on this host, or in this Pod.
fn is_local(caller: IpAddr) -> bool {
    caller.to_canonical().is_loopback()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn local_callers() {
        for (caller, expected) in [
            ("127.0.0.1", true),
            ("127.1.0.3", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_local(caller.parse().unwrap()), expected, "{caller}");
        }
    }
}
