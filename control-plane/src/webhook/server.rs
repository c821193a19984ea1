//! HTTPS: connections, limits, deadlines, and the way from a request to a review and back.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Webhooks, inject, review, validate};

/// How long a client may take for its TLS handshake, for the head and for the body of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request for so long is asked for a sign of life, and closed without one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body. An API server takes objects of up to 3 MiB, and an update's review holds two.
const BODY_MAX: usize = 8 * 1024 * 1024;
/// Most connections at once. An API server needs a few; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// After a failed accept the next comes after this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves the webhooks until the task is dropped. The certificate is asked for at each handshake.
pub async fn serve(listener: TcpListener, certificate: Arc<dyn ResolvesServerCert>, webhooks: Arc<Webhooks>) {
    let acceptor = match acceptor(certificate) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "webhooks: TLS");
            return;
        }
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "webhooks: accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (acceptor, webhooks) = (acceptor.clone(), Arc::clone(&webhooks));
        tokio::spawn(async move {
            match handshake(&acceptor, stream).await {
                Ok(stream) => connection(stream, webhooks).await,
                Err(error) => tracing::info!(%address, %error, "webhooks: TLS handshake failed"),
            }
            drop(permit);
        });
    }
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. An API server shows no certificate unless it is told to; what is answered here is
/// no secret.
fn acceptor(certificate: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await?
}

async fn connection(stream: TlsStream<TcpStream>, webhooks: Arc<Webhooks>) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let webhooks = Arc::clone(&webhooks);
        async move { Ok::<_, Infallible>(answer(request, &webhooks).await) }
    });
    let stream = TokioIo::new(stream);
    let served = if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(stream, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(stream, service)
            .await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "webhook connection");
    }
}

/// A request that is no review: its status, its reason in metrics, and what is said.
struct Bad(StatusCode, &'static str, String);

async fn answer(request: Request<Incoming>, webhooks: &Webhooks) -> Response<Full<Bytes>> {
    match reviewed(request, webhooks).await {
        Ok(review) => respond(StatusCode::OK, "application/json", review.to_string()),
        Err(Bad(status, reason, text)) => {
            webhooks.metrics.bad_requests.with_label_values(&[reason]).inc();
            tracing::warn!(%status, text, "webhooks: bad request");
            respond(status, "text/plain; charset=utf-8", format!("{text}\n"))
        }
    }
}

async fn reviewed(request: Request<Incoming>, webhooks: &Webhooks) -> Result<serde_json::Value, Bad> {
    let (head, body) = request.into_parts();
    let answer_of = match head.uri.path() {
        "/inject" => inject::answer,
        "/validate" => validate::answer,
        _ => return Err(Bad(StatusCode::NOT_FOUND, "path", "only /inject and /validate".to_owned())),
    };
    if head.method != Method::POST {
        return Err(Bad(StatusCode::METHOD_NOT_ALLOWED, "method", "only POST".to_owned()));
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    if media_type != Some("application/json") {
        let text = "only Content-Type: application/json".to_owned();
        return Err(Bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", text));
    }
    let body = read(body).await?;
    let request = review::read(&body).map_err(|text| Bad(StatusCode::BAD_REQUEST, "review", text))?;
    Ok(answer_of(&request, webhooks).review(&request.uid))
}

/// The whole body, of a limited length and within a limited time.
async fn read(body: Incoming) -> Result<Bytes, Bad> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("the body is longer than {BODY_MAX} bytes");
            Err(Bad(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text))
        }
        Ok(Err(error)) => Err(Bad(StatusCode::BAD_REQUEST, "body", format!("the body: {error}"))),
        Err(_) => {
            let text = "the body did not come in time".to_owned();
            Err(Bad(StatusCode::REQUEST_TIMEOUT, "timeout", text))
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}
