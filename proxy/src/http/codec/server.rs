//! Downstream connections: which HTTP they speak; and those of HTTP/2, each request handed to a service of the worker.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::frame_watch::FrameWatch;
use super::http1::BadHead;
use super::io::{Follow, Io, Side};
use super::late_head::{self, HeadWatch, LateHead};
use super::switched::Switched;
use super::{Incoming, flow};
use crate::http::CodecType;
use crate::http::LiveConnectionManager;
use crate::http::body::{Aborted, ResponseBody};
use crate::http::downstream::DownstreamConnection;
use crate::net::Stream;
use crate::transport_socket::TlsInfo;
use crate::worker::LocalExecutor;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl From<Version> for http::Version {
    fn from(version: Version) -> Self {
        match version {
            Version::Http1 => http::Version::HTTP_11,
            Version::Http2 => http::Version::HTTP_2,
        }
    }
}

/// How a connection ended when it did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServeError {
    /// The client left in the middle of a head.
    Incomplete,
    /// The connection broke.
    Io,
}

/// How serving a connection ended when it ended well.
#[derive(Debug)]
pub(crate) enum Served {
    Closed,
    /// The connection has left HTTP.
    Switched(Switched),
    /// A head did not come in time.
    Late(LateHead),
    /// A head cannot be read.
    Bad(BadHead),
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Finds out what the client speaks: by configuration, by ALPN, else by its first bytes, which are returned. When these do not come
/// in time, HTTP/1 has an answer to that.
pub(crate) async fn detect(
    live: &LiveConnectionManager,
    tls: Option<&TlsInfo>,
    stream: &mut Stream,
) -> std::io::Result<(Version, Bytes)> {
    match live.connection.codec {
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
    let mut deadline = None;
    loop {
        let known = first.len().min(PREFACE.len());
        if first[..known] != PREFACE[..known] {
            return Ok((Version::Http1, first.freeze()));
        }
        if known == PREFACE.len() {
            return Ok((Version::Http2, first.freeze()));
        }
        let read = stream.read_buf(&mut first);
        let read = match deadline {
            None => read.await,
            Some(deadline) => timeout_at(deadline, read).await.unwrap_or(Ok(0)),
        };
        if read? == 0 {
            return Ok((Version::Http1, first.freeze()));
        }
        if deadline.is_none() {
            deadline = late_head::limit(live).map(|(limit, _)| Instant::now() + limit);
        }
    }
}

/// How often a connection with a late head is looked at while streams keep it.
const LATE_AGAIN: Duration = Duration::from_millis(500);

/// Serves one HTTP/2 connection to its end, or until a head is late and no stream is left. When `handle` drains, GOAWAY is sent and streams in flight finish.
pub(crate) async fn serve_http2<F>(
    stream: Stream,
    read_ahead: Bytes,
    downstream: &DownstreamConnection,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<Served, ServeError>
where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>> + 'static,
{
    let DownstreamConnection { stats, handle, .. } = downstream;
    let options = &downstream.live.connection;
    let frames = FrameWatch::new(options.http2.frames, downstream.worker.shared.stats.clone());
    let head_in_progress = frames.head_in_progress();
    let mut head = HeadWatch::default();
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
    let service = service_fn(|request: Request<_>| service(request.map(Incoming::Http2)));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = false;
    std::future::poll_fn(|cx| {
        handle.watch(cx);
        if (handle.is_draining() || handle.is_closing()) && !draining {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        if handle.is_killed() {
            return Poll::Ready(Ok(Served::Closed));
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended.map(|()| Served::Closed).map_err(|_| ServeError::Io));
        }
        match head.poll(cx, head_in_progress.get(), downstream) {
            Poll::Ready(failure) if handle.streams() == 0 && !handle.is_stalled() => {
                Poll::Ready(Ok(Served::Late(LateHead { failure, io: None })))
            }
            Poll::Ready(_) => {
                head.again_in(cx, LATE_AGAIN);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
