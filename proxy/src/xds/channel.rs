//! A gRPC channel to a cluster: its hosts, its TLS, its timeouts, as for any other upstream connection.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{self, Cluster, ConnectError, ConnectionGuard};
use crate::net::{Stream, Target};
use crate::transport_socket::is_name_mismatch;

/// A control plane that does not answer a ping for this long is gone.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to one host of the cluster; `named` is its server, when that is known by a name.
pub(super) async fn connect(upstream: Arc<Cluster>, named: Option<&Target>) -> Result<Channel, String> {
    let scheme = match upstream.connection.transport {
        crate::transport_socket::UpstreamTransport::Plaintext => "http",
        crate::transport_socket::UpstreamTransport::Tls(_) => "https",
    };
    // The authority is the cluster's name, as in Envoy.
    let authority: String = upstream
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' })
        .collect();
    let origin = format!("{scheme}://{authority}").parse().map_err(|e| format!("{authority}: {e}"))?;
    // What the requests say is the origin; TLS, if any, is done by the connection already.
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| e.to_string())?
        .origin(origin)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // Connected once, before the channel: a channel that lost its connection is replaced together with its stream.
    let connection = open(&upstream, named).await?;
    endpoint.connect_with_connector(Connector(Some(connection))).await.map_err(|e| text_of(&e))
}

/// Hands over the connection that is there already.
#[derive(Debug)]
struct Connector(Option<Connection>);

impl tonic::codegen::Service<::http::Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Connection>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: ::http::Uri) -> Self::Future {
        let connection = self.0.take().map(TokioIo::new);
        ready(connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    }
}

/// As many hosts as there are, one after the other: a name may have addresses that lead nowhere from here.
async fn open(upstream: &Arc<Cluster>, named: Option<&Target>) -> Result<Connection, String> {
    let mut failures: Vec<String> = Vec::new();
    for _ in upstream.hosts() {
        let Some(host) = cluster::lb::pick(upstream, Default::default()) else { break };
        match cluster::connect(upstream, &host, false, false).await {
            Ok(connected) => return Ok(Connection { stream: connected.stream, _guard: connected.guard }),
            Err(error) => failures.push(match error {
                ConnectError::Overflow => "the connection limit is reached".to_owned(),
                ConnectError::Timeout => format!("{}: connect timeout", host.address),
                ConnectError::Failed(reason) => format!("{}: {reason}{}", host.address, hint(&reason, named)),
            }),
        }
    }
    if failures.is_empty() { Err("no healthy upstream".to_owned()) } else { Err(failures.join("; ")) }
}

/// Envoy's words for a wrong name say neither that it is one nor which was expected.
fn hint(reason: &str, named: Option<&Target>) -> String {
    match named.and_then(|target| target.at().certificate_name()) {
        Some(name) if is_name_mismatch(reason) => format!(": its certificate is not valid for '{name}'"),
        _ => String::new(),
    }
}

/// An error with its causes.
pub(super) fn text_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A stream that counts as an upstream connection while it lives.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    _guard: ConnectionGuard,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
