//! One HTTP/1 exchange over a connection that is there already: a socket, TLS, a forwarded port of a Pod.

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends a request and gives the body of a 200, of at most `limit` bytes.
///
/// # Errors
/// The connection broke, the body is longer, or the status is another one; the body is then in the error.
pub(crate) async fn exchange(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = handshake(TokioIo::new(connection)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), limit).collect().await;
    connection.abort();
    let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?.to_bytes();
    ensure!(status == StatusCode::OK, "answers {status}: {}", String::from_utf8_lossy(&body).trim());
    Ok(body)
}
