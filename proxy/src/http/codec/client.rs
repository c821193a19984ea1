//! Upstream connections: a sender per connection; the connection itself runs as a task of the worker.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::io::{Io, Side};
use super::switched::{Switched, Switching};
use super::wire::{Fate, Mark, Wire};
use super::{Incoming, flow};
use crate::cluster::{Cluster, ConnectionGuard, Host};
use crate::http::body::{BodyError, RequestBody};
use crate::http::error::Failure;
use crate::net::Stream;
use crate::worker::LocalExecutor;

/// Sends requests on one HTTP/1 connection, one at a time.
#[derive(Debug)]
pub(crate) struct Http1Sender {
    requests: http1::SendRequest<Http1Body>,
    /// `enable_trailers`.
    with_trailers: bool,
    /// Who gets the connection when it leaves HTTP.
    taker: Rc<RefCell<Option<oneshot::Sender<Switched>>>>,
    wire: Rc<Wire>,
}

/// A request's body as HTTP/1 takes it.
#[derive(Debug)]
struct Http1Body {
    body: RequestBody,
    with_trailers: bool,
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.filter(|frame| this.with_trailers || !frame.as_ref().is_ok_and(Frame::is_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sends requests on one HTTP/2 connection; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http2Sender {
    requests: http2::SendRequest<RequestBody>,
    /// The peer's SETTINGS_MAX_CONCURRENT_STREAMS, as last seen by the connection's task.
    peer_max_streams: Rc<Cell<usize>>,
    limits: HeadLimits,
    wire: Rc<Wire>,
}

/// How large the head of a response may be, as Envoy counts for HTTP/2: names and values, and the status as a field.
#[derive(Debug, Clone, Copy)]
struct HeadLimits {
    bytes: usize,
    fields: usize,
}

impl HeadLimits {
    /// What the engine is to refuse itself, for it keeps no more than this in memory: far enough away that what is between is
    /// answered as in Envoy. It counts 32 bytes more for each field.
    fn of_engine(self) -> u32 {
        u32::try_from(2 * self.bytes + 32 * self.fields).unwrap_or(u32::MAX)
    }

    fn allow(self, head: &HeaderMap) -> bool {
        let bytes = || head.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        head.len() < self.fields && bytes() <= self.bytes
    }
}

/// A request that failed before response headers. `unsent` gives it back when not a byte of it reached the upstream.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) failure: Failure,
    pub(crate) unsent: Option<Request<RequestBody>>,
    /// What became of it when its connection ended.
    pub(crate) fate: Fate,
}

impl SendError {
    fn new(failure: Failure, fate: Fate) -> Self {
        Self { failure, unsent: None, fate }
    }

    /// Of a request that began at `mark`.
    fn of(error: &hyper::Error, unsent: Option<Request<RequestBody>>, wire: &Wire, mark: Mark) -> Self {
        let failure = failure(error);
        let fate = match failure {
            Failure::ConnectionTermination => wire.fate(mark),
            // RFC 9113 sections 6.8 and 8.7.
            Failure::RemoteRefused => Fate::Unseen,
            _ => Fate::Unknown,
        };
        Self { failure, unsent, fate }
    }
}

/// Speaks HTTP/1 on a fresh connection, until `closes`. `guard` is held as long as the connection lives.
pub(crate) async fn connect_http1(
    cluster: &Cluster,
    host: &Arc<Host>,
    stream: Stream,
    closes: Option<Instant>,
    guard: impl Sized + 'static,
) -> Result<Http1Sender, Failure> {
    let wire = Wire::new(host.clone());
    let side = Side::Upstream(cluster.stats.clone(), Some(wire.clone()));
    let io = TokioIo::new(Io::new(stream, Default::default(), side));
    let settings = &cluster.connection;
    let head_bytes = settings.max_response_headers_bytes.unwrap_or(HTTP1_HEAD_BYTES);
    let (requests, mut connection) = http1::Builder::new()
        .preserve_header_case(settings.header_case.keeps)
        .title_case_headers(settings.header_case.proper)
        .max_headers(settings.max_response_headers_count as usize)
        .max_header_size(head_bytes as usize)
        .max_buf_size(flow::http1_buffer(settings.buffer_limit_bytes, head_bytes))
        .handshake(io)
        .await
        .map_err(|e| failure(&e))?;
    let (with_trailers, taker) = (settings.http1_trailers, Rc::default());
    let sender = Http1Sender { requests, with_trailers, taker, wire };
    let (taker, wire) = (sender.taker.clone(), sender.wire.clone());
    tokio::task::spawn_local(async move {
        // Requests in flight hear of the error themselves.
        let ended = until(closes, &mut connection).await;
        if ended.is_some() {
            wire.has_ended();
        }
        let taker = taker.take();
        if let (Some(Ok(())), Some(taker)) = (ended, taker) {
            let parts = connection.into_parts();
            let (read, io) = (parts.read_buf, parts.io.into_inner());
            // Who does not want it any more lets it go.
            let _ = taker.send(Switched::Http1 { read, io, _guard: Some(Box::new(guard)) });
        } else {
            drop(connection);
            drop(guard);
        }
    });
    Ok(sender)
}

/// Speaks HTTP/2 on a fresh connection, until `closes`. `guard` is held as long as the connection lives.
pub(crate) async fn connect_http2(
    cluster: &Cluster,
    host: &Arc<Host>,
    stream: Stream,
    closes: Option<Instant>,
    guard: ConnectionGuard,
) -> Result<Http2Sender, Failure> {
    let wire = Wire::new(host.clone());
    let side = Side::Upstream(cluster.stats.clone(), Some(wire.clone()));
    let io = TokioIo::new(Io::new(stream, Default::default(), side));
    let settings = &cluster.connection;
    let limits = HeadLimits {
        bytes: settings.max_response_headers_bytes.unwrap_or(HTTP2_HEAD_BYTES) as usize,
        fields: settings.max_response_headers_count as usize,
    };
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .max_header_list_size(limits.of_engine())
        .initial_stream_window_size(flow::http2_stream_window(
            settings.buffer_limit_bytes,
            settings.initial_stream_window_bytes,
        ))
        .max_send_buf_size(flow::http2_send_buffer(settings.buffer_limit_bytes))
        .initial_connection_window_size(settings.initial_connection_window_bytes)
        .handshake(io)
        .await
        .map_err(|e| failure(&e))?;
    let peer_max_streams = Rc::new(Cell::new(connection.current_max_send_streams()));
    let (seen, ending) = (peer_max_streams.clone(), wire.clone());
    tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            seen.set(connection.current_max_send_streams());
            ended
        });
        if until(closes, ended).await.is_some() {
            ending.has_ended();
        }
        drop(guard);
    });
    Ok(Http2Sender { requests: sender, peer_max_streams, limits, wire })
}

/// Runs a connection, but no longer than until `closes`.
async fn until<T>(closes: Option<Instant>, connection: impl Future<Output = T>) -> Option<T> {
    match closes {
        Some(at) => tokio::time::timeout_at(at.into(), connection).await.ok(),
        None => Some(connection.await),
    }
}

/// Envoy's defaults of `max_response_headers_kb`.
const HTTP1_HEAD_BYTES: u32 = 80 << 10;
const HTTP2_HEAD_BYTES: u32 = 60 << 10;

impl Http1Sender {
    /// What is seen of the connection.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Waits until the connection can take a request; false when it is gone.
    pub(crate) async fn ready(&mut self) -> bool {
        self.requests.ready().await.is_ok()
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let request = request.map(|body| Http1Body { body, with_trailers: self.with_trailers });
        let mark = self.wire.mark();
        self.requests.try_send_request(request).await.map_err(|mut e| {
            let unsent = e.take_message().map(|unsent| unsent.map(|body| body.body));
            SendError::of(&e.into_error(), unsent, &self.wire, mark)
        })
    }

    /// Sends a request with an `upgrade` header, or CONNECT: with the connection, when the upstream agrees (101; 2xx).
    pub(crate) async fn send_upgrade(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        let (taker, taken) = oneshot::channel();
        *self.taker.borrow_mut() = Some(taker);
        let connects = request.method() == Method::CONNECT;
        let response = self.send(request).await?;
        let agrees = match connects {
            true => response.status().is_success(),
            false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        };
        if !agrees {
            *self.taker.borrow_mut() = None;
            return Ok((response, None));
        }
        let gone = |_| SendError::new(Failure::ConnectionTermination, Fate::Unknown);
        Ok((response, Some(taken.await.map_err(gone)?)))
    }
}

impl Http2Sender {
    /// What is seen of the connection.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// How many streams the peer allows at once.
    pub(crate) fn peer_max_streams(&self) -> usize {
        self.peer_max_streams.get()
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let mark = self.wire.mark();
        let response = self.requests.try_send_request(request).await.map_err(|mut e| {
            let unsent = e.take_message();
            SendError::of(&e.into_error(), unsent, &self.wire, mark)
        })?;
        match self.limits.allow(response.headers()) {
            true => Ok(response),
            // As in Envoy, whose codec resets the stream by itself.
            false => Err(SendError::new(Failure::RemoteReset, Fate::Unknown)),
        }
    }

    /// Sends CONNECT, with a `:protocol` or without: with the stream, when the upstream agrees (2xx).
    pub(crate) async fn send_upgrade(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        let mut response = self.send(request).await?;
        if !response.status().is_success() {
            return Ok((response, None));
        }
        let gone = SendError::new(Failure::ConnectionTermination, Fate::Unknown);
        let switched = Switching::of(&mut response).done().await.ok_or(gone)?;
        Ok((response, Some(switched)))
    }
}

/// What it means that the request's body could not be read.
pub(crate) fn request_failure(error: &hyper::Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Failure::DownstreamProtocol,
                _ => Failure::Downstream,
            };
        }
        source = cause.source();
    }
    Failure::Downstream
}

/// What an engine error on the upstream side means.
pub(crate) fn failure(error: &hyper::Error) -> Failure {
    if error.is_user() {
        return request_failure(error);
    }
    if error.is_parse() {
        return Failure::Protocol;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                _ if h2.is_io() => Failure::ConnectionTermination,
                Some(h2::Reason::REFUSED_STREAM) if h2.is_remote() => Failure::RemoteRefused,
                // The connection ends before this stream.
                Some(_) if h2.is_remote() && h2.is_go_away() => Failure::RemoteRefused,
                Some(_) if h2.is_remote() => Failure::RemoteReset,
                Some(_) => Failure::Protocol,
                None => Failure::ConnectionTermination,
            };
        }
        if cause.downcast_ref::<io::Error>().is_some() {
            return Failure::ConnectionTermination;
        }
        source = cause.source();
    }
    Failure::ConnectionTermination
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn heads_are_counted_with_their_status() {
        let limits = HeadLimits { bytes: 6, fields: 3 };
        for (fields, allowed) in [
            (&[][..], true),
            (&[("a", "12"), ("b", "34")], true),
            (&[("a", "12"), ("b", "345")], false),
            (&[("a", ""), ("a", ""), ("b", "")], false),
        ] {
            let fields = fields.iter();
            let head: HeaderMap = fields
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(limits.allow(&head), allowed, "{head:?}");
        }
        let endless = HeadLimits { bytes: usize::MAX / 4, fields: 1 };
        assert_eq!((limits.of_engine(), endless.of_engine()), (108, u32::MAX));
    }
}
