//! HTTP/2 connections to upstreams: a sender per connection, cloned for each request; the connection itself runs as a task of the worker.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;

use super::error::http2_failure;
use super::io::{Io, Side};
use super::switched::{Switched, Switching};
use super::wire::{Fate, Mark, Wire};
use super::{Incoming, flow};
use crate::cluster::{Cluster, ConnectionGuard, Host};
use crate::http::body::RequestBody;
use crate::http::error::Failure;
use crate::net::Stream;
use crate::worker::LocalExecutor;

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
    /// Its head, with HTTP/1: there it is written from where it is.
    pub(crate) head: Option<Box<Parts>>,
    /// What became of it when its connection ended.
    pub(crate) fate: Fate,
}

impl SendError {
    pub(super) fn new(failure: Failure, fate: Fate) -> Self {
        Self { failure, unsent: None, head: None, fate }
    }

    /// Of a request that began at `mark`.
    pub(super) fn of(failure: Failure, wire: &Wire, mark: Mark) -> Self {
        let fate = match failure {
            Failure::ConnectionTermination => wire.fate(mark),
            // RFC 9113 sections 6.8 and 8.7.
            Failure::RemoteRefused => Fate::Unseen,
            _ => Fate::Unknown,
        };
        Self::new(failure, fate)
    }
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
        .map_err(|e| http2_failure(&e))?;
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
pub(super) async fn until<T>(closes: Option<Instant>, connection: impl Future<Output = T>) -> Option<T> {
    match closes {
        Some(at) => tokio::time::timeout_at(at.into(), connection).await.ok(),
        None => Some(connection.await),
    }
}

/// Envoy's default of `max_response_headers_kb`.
const HTTP2_HEAD_BYTES: u32 = 60 << 10;

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
            SendError { unsent, ..SendError::of(http2_failure(&e.into_error()), &self.wire, mark) }
        })?;
        match self.limits.allow(response.headers()) {
            true => Ok(response.map(Incoming::Http2)),
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
