//! Sockets: TLS, HTTP/1.1 and HTTP/2, one task a connection.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::respond::Body;
use crate::cluster::Cluster;
use crate::dispatch;

/// Accepts until it is dropped.
pub(crate) async fn serve(listener: TcpListener, tls: TlsAcceptor, cluster: Arc<Cluster>) {
    loop {
        // Out of file descriptors, or a connection that was gone before it was taken: the next one may work.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(connection(stream, tls.clone(), cluster.clone()));
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, cluster: Arc<Cluster>) {
    let _ = stream.set_nodelay(true);
    // A client that breaks the handshake or the connection off is its own business.
    let Ok(stream) = tls.accept(stream).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let cluster = cluster.clone();
        async move { Ok::<Response<Body>, Infallible>(dispatch::handle(cluster, request).await) }
    });
    let io = TokioIo::new(stream);
    let _ = if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(io, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(io, service)
            .with_upgrades()
            .await
    };
}
