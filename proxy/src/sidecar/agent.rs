//! Port 15020, where Istio's agent is expected: metrics of sidecar and application, readiness, the application's probes, `/drain`
//! and `/quitquitquit`. HTTP/1, one task a connection, on main. Never captured, so that the kubelet and Prometheus need no identity.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::application::Application;
use super::metrics::{self, ApplicationMetrics, Format};
use super::probes::Probes;
use super::probing;
use crate::admin::{self, AdminState};
use crate::server::ShutdownHandle;

/// Between two attempts to accept when that fails (no file descriptor left).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const PLAIN: &str = "text/plain; charset=utf-8";

/// What the agent knows of its pod.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod's address, where probes go.
    pub instance_ip: IpAddr,
    /// Where probes come from, when the pod is captured.
    pub source: Option<IpAddr>,
    /// Where the application's metrics are, if they are to be merged.
    pub metrics: Option<ApplicationMetrics>,
    /// The application's probes.
    pub probes: Probes,
}

/// The running agent.
pub struct Agent {
    options: AgentOptions,
    state: AdminState,
    shutdown: ShutdownHandle,
}

type Reply = Response<Full<Bytes>>;

impl Agent {
    /// An agent of this process.
    pub fn new(options: AgentOptions, state: AdminState, shutdown: ShutdownHandle) -> Self {
        Self { options, state, shutdown }
    }

    /// Serves until it is dropped.
    pub async fn serve(mut self, listener: TcpListener) {
        // With the port that the system picked.
        self.options.address = listener.local_addr().unwrap_or(self.options.address);
        let agent = Arc::new(self);
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let agent = agent.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let agent = agent.clone();
                    async move { Ok::<_, Infallible>(agent.respond(&request, peer.ip()).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!("connection ended: {error}");
                }
            });
        }
    }

    async fn respond(&self, request: &Request<Incoming>, peer: IpAddr) -> Reply {
        match request.uri().path() {
            "/healthz/ready" => admin::ready(&self.state),
            // The second as in Istio.
            "/stats/prometheus" | "/metrics" => self.metrics(request).await,
            "/drain" => self.ordered(request, peer, ShutdownHandle::drain),
            "/quitquitquit" => self.ordered(request, peer, ShutdownHandle::quit),
            path if path.starts_with("/app-health/") => self.probe(request, path).await,
            _ => reply(StatusCode::NOT_FOUND, PLAIN, "no such page\n"),
        }
    }

    /// What changes the pod's life comes from the pod, and not from a link.
    fn ordered(&self, request: &Request<Incoming>, peer: IpAddr, order: fn(&ShutdownHandle)) -> Reply {
        let peer = peer.to_canonical();
        if !peer.is_loopback() && peer != self.options.instance_ip {
            return reply(StatusCode::FORBIDDEN, PLAIN, "only requests from the pod itself are allowed\n");
        }
        if request.method() != Method::POST {
            return reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "POST required\n");
        }
        tracing::info!(target: "main", "POST {}", request.uri().path());
        order(&self.shutdown);
        reply(StatusCode::OK, PLAIN, "OK\n")
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Reply {
        let own = match self.state.prometheus(request.uri().query()) {
            Ok(own) => own,
            Err(error) => return reply(StatusCode::BAD_REQUEST, PLAIN, error),
        };
        let text = Format::Text.content_type();
        let Some(application) = &self.options.metrics else {
            return reply(StatusCode::OK, text, own);
        };
        match application.fetch(self.options.instance_ip, request.headers()).await {
            Ok((page, format)) => {
                reply(StatusCode::OK, format.content_type(), metrics::merge(own, &page, format))
            }
            Err(error) => {
                self.state.stats.server().application_scrape_failures_total.inc();
                tracing::warn!("the application's metrics are missing: {error}");
                reply(StatusCode::OK, text, own)
            }
        }
    }

    async fn probe(&self, request: &Request<Incoming>, path: &str) -> Reply {
        let AgentOptions { address, instance_ip, source, probes, .. } = &self.options;
        let Some(probe) = probes.get(path) else {
            // Istio's status.
            return reply(StatusCode::BAD_REQUEST, PLAIN, format!("no probe is configured for {path}\n"));
        };
        let application = Application { address: *instance_ip, source: *source };
        let (status, body) = probing::probe(&application, probe, request.headers(), address.port()).await;
        if !status.is_success() {
            tracing::debug!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        reply(status, PLAIN, body)
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    response
}
