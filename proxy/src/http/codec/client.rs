//! Upstream connections: a sender per connection; the connection itself runs as a task of the worker.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::io::{Io, Side};
use super::switched::{Switched, Switching};
use super::{Incoming, flow};
use crate::cluster::{Cluster, ConnectionGuard};
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
}

/// A request that failed before response headers. `unsent` gives it back when not a byte of it reached the upstream.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) failure: Failure,
    pub(crate) unsent: Option<Request<RequestBody>>,
}

/// Speaks HTTP/1 on a fresh connection, until `closes`. `guard` is held as long as the connection lives.
pub(crate) async fn connect_http1(
    cluster: &Cluster,
    stream: Stream,
    closes: Option<Instant>,
    guard: impl Sized + 'static,
) -> Result<Http1Sender, Failure> {
    let io = TokioIo::new(Io::new(stream, Default::default(), Side::Upstream(cluster.stats.clone())));
    let settings = &cluster.connection;
    let (requests, mut connection) = http1::Builder::new()
        .preserve_header_case(settings.header_case.keeps)
        .title_case_headers(settings.header_case.proper)
        .max_headers(MAX_RESPONSE_HEADERS)
        .max_buf_size(flow::http1_buffer(settings.buffer_limit_bytes, MAX_RESPONSE_HEADERS_BYTES))
        .handshake(io)
        .await
        .map_err(|e| failure(&e))?;
    let sender = Http1Sender { requests, with_trailers: settings.http1_trailers, taker: Rc::default() };
    let taker = sender.taker.clone();
    tokio::task::spawn_local(async move {
        // Requests in flight hear of the error themselves.
        let ended = until(closes, &mut connection).await;
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
    stream: Stream,
    closes: Option<Instant>,
    guard: ConnectionGuard,
) -> Result<Http2Sender, Failure> {
    let io = TokioIo::new(Io::new(stream, Default::default(), Side::Upstream(cluster.stats.clone())));
    let settings = &cluster.connection;
    let (sender, connection) = http2::Builder::new(LocalExecutor)
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
    let seen = peer_max_streams.clone();
    tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            seen.set(connection.current_max_send_streams());
            ended
        });
        let _ = until(closes, ended).await;
        drop(guard);
    });
    Ok(Http2Sender { requests: sender, peer_max_streams })
}

/// Runs a connection, but no longer than until `closes`.
async fn until<T>(closes: Option<Instant>, connection: impl Future<Output = T>) -> Option<T> {
    match closes {
        Some(at) => tokio::time::timeout_at(at.into(), connection).await.ok(),
        None => Some(connection.await),
    }
}

/// Envoy's default `max_headers_count` for responses.
const MAX_RESPONSE_HEADERS: usize = 100;
/// A head of this size fits into the buffer of a connection, however small its limit.
const MAX_RESPONSE_HEADERS_BYTES: u32 = 60 << 10;

impl Http1Sender {
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
        self.requests.try_send_request(request).await.map_err(|mut e| SendError {
            unsent: e.take_message().map(|unsent| unsent.map(|body| body.body)),
            failure: failure(&e.into_error()),
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
        let gone = |_| SendError { failure: Failure::ConnectionTermination, unsent: None };
        Ok((response, Some(taken.await.map_err(gone)?)))
    }
}

impl Http2Sender {
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
        self.requests
            .try_send_request(request)
            .await
            .map_err(|mut e| SendError { unsent: e.take_message(), failure: failure(&e.into_error()) })
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
        let gone = SendError { failure: Failure::ConnectionTermination, unsent: None };
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
                Some(_) if h2.is_remote() && h2.is_go_away() => Failure::ConnectionTermination,
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
