//! Listening: HTTP/1 over TCP, one task a connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::AdminState;
use super::endpoints::{self, Reply};

/// Between two attempts to accept when that fails (no file descriptor left).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves the admin interface until it is dropped.
pub async fn serve(listener: TcpListener, state: AdminState) {
    accept(listener, move |request| {
        let uri = request.uri();
        endpoints::respond(&state, request.method(), uri.path(), uri.query())
    })
    .await;
}

/// Serves `/stats/prometheus` and nothing else, until it is dropped.
pub async fn serve_prometheus(listener: TcpListener, state: AdminState) {
    accept(listener, move |request| {
        endpoints::respond_prometheus(&state, request.uri().path(), request.uri().query())
    })
    .await;
}

/// Serves `/healthz/ready` and nothing else, until it is dropped.
pub async fn serve_readiness(listener: TcpListener, state: AdminState) {
    accept(listener, move |request| endpoints::respond_readiness(&state, request.uri().path())).await;
}

async fn accept(
    listener: TcpListener,
    respond: impl Fn(http::Request<Incoming>) -> Reply + Send + Sync + 'static,
) {
    let respond = Arc::new(respond);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept: {error}");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let respond = respond.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = respond(request);
                async move { Ok::<_, Infallible>(reply) }
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
