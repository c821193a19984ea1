//! Downstream connections: HTTP/1 or HTTP/2 over a stream, each request handed to a service of the worker.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::{Sleep, sleep};

use super::frame_watch::FrameWatch;
use super::framing::Framing;
use super::io::{Follow, Io, Side};
use super::rest::rest;
use super::switched::Switched;
use super::{Incoming, flow};
use crate::http::CodecType;
use crate::http::body::{Aborted, ResponseBody};
use crate::http::downstream::DownstreamConnection;
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
    /// The client left in the middle of a head.
    Incomplete,
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

/// Serves one HTTP/1 connection to its end, or until it has left HTTP: then it is given back. When `handle` drains and nothing is in
/// flight, the connection is closed.
pub(crate) async fn serve_http1<F>(
    stream: Stream,
    read_ahead: Bytes,
    downstream: &DownstreamConnection,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<Option<Switched>, ServeError>
where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>>,
{
    let DownstreamConnection { stats, handle, framing, .. } = downstream;
    let side = Side::Downstream(stats.clone(), handle.clone(), Follow::Http1(framing.clone()));
    let mut io = Io::new(stream, read_ahead, side);
    loop {
        // Boxed, so that a connection at rest does not hold the room for it.
        match Box::pin(run_http1(io, downstream, &service)).await? {
            Http1End::Closed => return Ok(None),
            Http1End::Switched(switched) => return Ok(Some(switched)),
            Http1End::Idle(idle) => match rest(idle, handle).await {
                Some(woken) => io = woken,
                None => return Ok(None),
            },
        }
    }
}

/// What the engine leaves behind.
enum Http1End {
    Closed,
    /// The connection is HTTP no more.
    Switched(Switched),
    /// Nothing has happened for a while, and nothing is on its way.
    Idle(Io),
}

/// Runs the engine until its connection ends, leaves HTTP, or is idle for long enough to do without.
async fn run_http1<F>(
    io: Io,
    downstream: &DownstreamConnection,
    service: &impl Fn(Request<Incoming>) -> F,
) -> Result<Http1End, ServeError>
where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>>,
{
    let DownstreamConnection { handle, framing, .. } = downstream;
    let options = &downstream.live.connection;
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(options.max_request_headers_bytes as usize)
        .max_headers(options.max_headers_count as usize)
        .max_buf_size(flow::http1_buffer(options.buffer_limit_bytes, options.max_request_headers_bytes));
    let mut connection = builder.serve_connection(TokioIo::new(io), service_fn(service));
    let mut head = HeadWatch { timeout: options.request_headers_timeout, timer: None };
    let mut closing = false;
    let ended = std::future::poll_fn(|cx| {
        handle.watch(cx);
        if handle.is_closing() && !closing {
            closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if handle.is_killed() {
            return Poll::Ready(Ok(Engine::Stopped));
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Err(error)) if framing.is_in_head() && !error.is_parse() => {
                Poll::Ready(Err(ServeError::Incomplete))
            }
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| Engine::Finished).map_err(|e| serve_error(&e))),
            Poll::Pending if handle.may_rest() && framing.is_between_messages() => {
                Poll::Ready(Ok(Engine::Idle))
            }
            Poll::Pending => head.poll(cx, framing, handle).map_ok(|()| Engine::Stopped),
        }
    })
    .await?;
    let parts = match ended {
        Engine::Stopped => return Ok(Http1End::Closed),
        Engine::Finished | Engine::Idle => connection.into_parts(),
    };
    let mut io = parts.io.into_inner();
    if matches!(ended, Engine::Idle) {
        // An empty line behind the last message, perhaps.
        io.put_back(parts.read_buf);
        return Ok(Http1End::Idle(io));
    }
    Ok(Http1End::Switched(Switched::Http1 { read: parts.read_buf, io: io.end_of_http(), _guard: None }))
}

enum Engine {
    /// It has nothing more to do.
    Finished,
    /// It waits for a message that has not begun.
    Idle,
    /// It was given up.
    Stopped,
}

/// Watches a head that has begun. The engine's own timer would also end connections that are idle, and its graceful shutdown waits
/// for a head however long it takes.
struct HeadWatch {
    /// `request_headers_timeout`.
    timeout: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    /// To be called when the engine has done what it could. Ready when the head is late, or the connection is to be closed.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        framing: &Framing,
        handle: &ConnectionHandle,
    ) -> Poll<Result<(), ServeError>> {
        if !framing.is_in_head() {
            self.timer = None;
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
    downstream: &DownstreamConnection,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>> + 'static,
{
    let DownstreamConnection { stats, handle, .. } = downstream;
    let options = &downstream.live.connection;
    let frames = FrameWatch::new(options.http2.frames, downstream.worker.shared.stats.clone());
    let side = Side::Downstream(stats.clone(), handle.clone(), Follow::Http2(Box::new(frames)));
    let io = TokioIo::new(Io::new(stream, read_ahead, side));
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .max_concurrent_streams(options.http2.max_concurrent_streams)
        .initial_stream_window_size(flow::http2_stream_window(
            options.buffer_limit_bytes,
            options.http2.initial_stream_window_bytes,
        ))
        .max_send_buf_size(flow::http2_send_buffer(options.buffer_limit_bytes))
        .initial_connection_window_size(options.http2.initial_connection_window_bytes)
        .max_header_list_size(options.max_request_headers_bytes);
    if options.http2.allow_connect {
        builder.enable_connect_protocol();
    }
    let mut connection = pin!(builder.serve_connection(io, service_fn(service)));
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
