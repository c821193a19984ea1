//! Downstream connections: HTTP/1 or HTTP/2 over a stream, each request handed to a service of the worker.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::{Sleep, sleep};

use super::Incoming;
use super::io::{ByteCount, Io};
use crate::http::body::ResponseBody;
use crate::http::{CodecType, HttpConnectionManager};
use crate::net::Stream;
use crate::transport_socket::TlsInfo;
use crate::worker::{ConnectionHandle, LocalExecutor};

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// How a connection ended when it did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServeError {
    /// The client's bytes are not HTTP; the engine answered with this status (0: it just closed).
    Protocol { status: u16 },
    /// The client's headers did not arrive in time.
    HeaderTimeout,
    /// The connection broke.
    Io,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Finds out what the client speaks: by configuration, by ALPN, else by its first bytes, which are returned.
pub(crate) async fn detect(
    codec: CodecType,
    tls: Option<&TlsInfo>,
    stream: &mut Stream,
) -> std::io::Result<(Version, Bytes)> {
    match codec {
        CodecType::Http1 => return Ok((Version::Http1, Bytes::new())),
        CodecType::Http2 => return Ok((Version::Http2, Bytes::new())),
        CodecType::Auto => {}
    }
    match tls.and_then(|t| t.alpn.as_deref()) {
        Some("h2") => return Ok((Version::Http2, Bytes::new())),
        Some("http/1.1" | "http/1.0") => return Ok((Version::Http1, Bytes::new())),
        _ => {}
    }
    let mut first = BytesMut::with_capacity(1024);
    loop {
        let known = first.len().min(PREFACE.len());
        if first[..known] != PREFACE[..known] {
            return Ok((Version::Http1, first.freeze()));
        }
        if known == PREFACE.len() {
            return Ok((Version::Http2, first.freeze()));
        }
        if stream.read_buf(&mut first).await? == 0 {
            return Ok((Version::Http1, first.freeze()));
        }
    }
}

/// Serves one HTTP/1 connection to its end. When `handle` drains and nothing is in flight, the connection is closed.
pub(crate) async fn serve_http1<F>(
    stream: Stream,
    read_ahead: Bytes,
    hcm: &HttpConnectionManager,
    handle: &Rc<ConnectionHandle>,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = Response<ResponseBody>>,
{
    let mut head = HeadWatch::new(handle, hcm.limits.request_headers_timeout);
    let io = Io::new(stream, read_ahead, ByteCount::Downstream(hcm.stats.clone()));
    let io = TokioIo::new(io.received_into(head.received.clone()).of_client(handle.clone()));
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(hcm.limits.max_request_headers_bytes as usize)
        .max_headers(hcm.limits.max_headers_count as usize);
    let service = service_fn(|request| {
        let response = service(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut closing = false;
    std::future::poll_fn(|cx| {
        handle.watch(cx);
        if handle.is_closing() && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        if handle.is_killed() {
            return Poll::Ready(Ok(()));
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map_err(|e| serve_error(&e))),
            Poll::Pending => head.poll(cx, handle),
        }
    })
    .await
}

/// Whether a request's head is on its way, and since when. The engine's own timer would also end connections that are idle, and
/// its graceful shutdown waits for a head that has begun, however long it takes.
struct HeadWatch {
    /// Bytes that the engine has taken.
    received: Rc<Cell<u64>>,
    /// `received` at the end of the last request; more than that is the beginning of the next one.
    boundary: u64,
    /// When the last request ended.
    idle_since: Instant,
    /// `request_headers_timeout`.
    timeout: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    fn new(handle: &ConnectionHandle, timeout: Option<Duration>) -> Self {
        let idle_since = handle.idle_since();
        Self { received: Rc::default(), boundary: 0, idle_since, timeout, timer: None }
    }

    /// To be called when the engine has done what it could. Ready when the head is late, or the connection is to be closed.
    fn poll(&mut self, cx: &mut Context<'_>, handle: &ConnectionHandle) -> Poll<Result<(), ServeError>> {
        let idle_since = handle.idle_since();
        if handle.streams() > 0 || idle_since != self.idle_since {
            self.boundary = self.received.get();
            self.idle_since = idle_since;
            self.timer = None;
        }
        if self.received.get() == self.boundary {
            return Poll::Pending;
        }
        if handle.is_closing() {
            return Poll::Ready(Ok(()));
        }
        let Some(timeout) = self.timeout else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| Err(ServeError::HeaderTimeout))
    }
}

/// Serves one HTTP/2 connection to its end. When `handle` drains, GOAWAY is sent and streams in flight finish.
pub(crate) async fn serve_http2<F>(
    stream: Stream,
    read_ahead: Bytes,
    hcm: &HttpConnectionManager,
    handle: &Rc<ConnectionHandle>,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let io = Io::new(stream, read_ahead, ByteCount::Downstream(hcm.stats.clone()));
    let io = TokioIo::new(io.of_client(handle.clone()));
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .max_concurrent_streams(hcm.http2.max_concurrent_streams)
        .initial_stream_window_size(hcm.http2.initial_stream_window_bytes)
        .initial_connection_window_size(hcm.http2.initial_connection_window_bytes)
        .max_header_list_size(hcm.limits.max_request_headers_bytes);
    let service = service_fn(|request| {
        let response = service(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = false;
    std::future::poll_fn(|cx| {
        handle.watch(cx);
        if (handle.is_draining() || handle.is_closing()) && !draining {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        if handle.is_killed() {
            return Poll::Ready(Ok(()));
        }
        connection.as_mut().poll(cx)
    })
    .await
    .map_err(|e| serve_error(&e))
}

fn serve_error(error: &hyper::Error) -> ServeError {
    if error.is_parse_too_large() {
        ServeError::Protocol { status: 431 }
    } else if error.is_parse() {
        ServeError::Protocol { status: 400 }
    } else if error.is_timeout() {
        ServeError::HeaderTimeout
    } else {
        ServeError::Io
    }
}
