//! HTTP/2 connections to upstreams: a sender per connection, cloned for each request; the connection itself runs as a task of the worker.
//!
//! The task that sends a request sends its body too, until the response begins; what is left then goes on in a task of its own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;
use tokio::task::spawn_local;

use super::body::Http2Body;
use super::body_sender::{BodySendError, BodySender};
use super::head;
use super::keep_alive::KeepAlive;
use super::tunnel::Tunnel;
use crate::cluster::{Cluster, ConnectionGuard, Host};
use crate::http::body::{BodyError, RequestBody};
use crate::http::codec::client::{SendError, until};
use crate::http::codec::error::{http2_failure, http2_reason};
use crate::http::codec::interim::Interim;
use crate::http::codec::io::{Io, Side};
use crate::http::codec::wire::{Fate, Wire};
use crate::http::codec::{Incoming, Switched, flow, request_failure};
use crate::http::error::Failure;
use crate::net::Stream;

/// Sends requests on one connection; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http2Sender(Rc<Connection>);

#[derive(Debug)]
struct Connection {
    requests: RefCell<SendRequest<Bytes>>,
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

/// Envoy's default of `max_response_headers_kb`.
const HEAD_BYTES: u32 = 60 << 10;

/// Speaks HTTP/2 on a fresh connection, until `closes`. `guard` is held as long as the connection lives.
///
/// # Errors
/// The connection has ended before it began.
pub(crate) async fn connect_http2(
    cluster: &Cluster,
    host: &Arc<Host>,
    stream: Stream,
    closes: Option<Instant>,
    guard: ConnectionGuard,
) -> Result<Http2Sender, Failure> {
    let wire = Wire::new(host.clone());
    let io = Io::new(stream, Default::default(), Side::Upstream(cluster.stats.clone(), Some(wire.clone())));
    let settings = &cluster.connection;
    let limits = HeadLimits {
        bytes: settings.max_response_headers_bytes.unwrap_or(HEAD_BYTES) as usize,
        fields: settings.max_response_headers_count as usize,
    };
    let window = flow::http2_stream_window(settings.buffer_limit_bytes, settings.initial_stream_window_bytes);
    let (requests, mut connection) = Builder::new()
        .enable_push(false)
        .max_header_list_size(limits.of_engine())
        .initial_window_size(window)
        .max_send_buffer_size(flow::http2_send_buffer(settings.buffer_limit_bytes))
        .initial_connection_window_size(settings.initial_connection_window_bytes)
        .handshake(io)
        .await
        .map_err(|error| http2_failure(&error))?;
    let peer_max_streams = Rc::new(Cell::new(connection.max_concurrent_send_streams()));
    let (seen, ending) = (peer_max_streams.clone(), wire.clone());
    let mut keep_alive = KeepAlive::new(settings.http2_keep_alive, connection.ping_pong());
    let stats = cluster.stats.clone();
    spawn_local(async move {
        let mut connection = pin!(connection);
        let ended = poll_fn(|cx| {
            if keep_alive.as_mut().is_some_and(|kept| kept.poll(cx, ending.received()).is_ready()) {
                stats.http2.counted().keepalive_timeout.inc();
                return Poll::Ready(());
            }
            let ended = connection.as_mut().poll(cx).map(|_| ());
            seen.set(connection.max_concurrent_send_streams());
            ended
        });
        if until(closes, ended).await.is_some() {
            ending.has_ended();
        }
        drop(guard);
    });
    let requests = RefCell::new(requests);
    Ok(Http2Sender(Rc::new(Connection { requests, peer_max_streams, limits, wire })))
}

impl Http2Sender {
    /// What is seen of the connection.
    pub(crate) fn wire(&self) -> &Wire {
        &self.0.wire
    }

    /// Whether it takes no request any more: it has ended, or its host ends it with GOAWAY.
    pub(crate) fn is_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.0.requests.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// How many streams the peer allows at once.
    pub(crate) fn peer_max_streams(&self) -> usize {
        self.0.peer_max_streams.get()
    }

    /// Sends a request and waits for the head of its response. What is informational before it goes to `interim`.
    ///
    /// # Errors
    /// The exchange has failed before that.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<Incoming>, SendError> {
        let (response, _) = self.exchange(request, interim).await?;
        Ok(response.map(Incoming::Http2))
    }

    /// Sends CONNECT, with a `:protocol` or without: with the stream, when the upstream agrees (2xx).
    ///
    /// # Errors
    /// See `send`.
    pub(crate) async fn send_upgrade(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        let (response, send) = self.exchange(request, None).await?;
        match send {
            Some(send) if response.status().is_success() => {
                let (head, body) = response.into_parts();
                let tunnel = Tunnel::new(body.into_stream(), send);
                Ok((Response::from_parts(head, Incoming::None), Some(Switched::Http2(tunnel))))
            }
            _ => Ok((response.map(Incoming::Http2), None)),
        }
    }

    /// With the stream itself, if it is a CONNECT's.
    async fn exchange(
        &self,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<(Response<Http2Body>, Option<SendStream<Bytes>>), SendError> {
        let Connection { limits, wire, .. } = &*self.0;
        let mark = wire.mark();
        let failed = |error: &h2::Error| SendError::of(http2_failure(error), wire, mark);
        let mut requests = self.0.requests.borrow().clone();
        if let Err(error) = poll_fn(|cx| requests.poll_ready(cx)).await {
            return Err(SendError { unsent: Some(request), ..failed(&error) });
        }
        let (mut parts, body) = request.into_parts();
        head::strip(&mut parts.headers, true);
        let is_connect = parts.method == Method::CONNECT;
        let is_whole = body.is_end_stream();
        if !is_whole {
            head::tell_length(&mut parts.headers, body.size_hint().exact());
        }
        let head = Request::from_parts(parts, ());
        let (mut response, stream) =
            requests.send_request(head, is_whole && !is_connect).map_err(|error| failed(&error))?;
        // Given up here, the stream is reset.
        let (mut sender, stream) = match is_whole {
            false => (Some(BodySender::new(body, stream)), None),
            true => (None, is_connect.then_some(stream)),
        };
        let response = poll_fn(|cx| {
            if let Some(sending) = &mut sender {
                match sending.poll(cx) {
                    Poll::Ready(Err(BodySendError::Body(error))) => {
                        return Poll::Ready(Err(SendError::of(unreadable(sending, &error), wire, mark)));
                    }
                    // There may be a response nevertheless.
                    Poll::Ready(Ok(()) | Err(BodySendError::Stream)) => sender = None,
                    Poll::Pending => {}
                }
            }
            if let Some(interim) = interim {
                while let Poll::Ready(Some(Ok(told))) = response.poll_informational(cx) {
                    let (parts, ()) = told.into_parts();
                    interim.tell(parts.status, parts.headers);
                }
            }
            Pin::new(&mut response).poll(cx).map_err(|error| failed(&error))
        });
        let (head, receive) = response.await?.into_parts();
        if !limits.allow(&head.headers) {
            // As in Envoy, whose codec resets the stream by itself.
            return Err(SendError::new(Failure::RemoteReset, Fate::Unknown));
        }
        if let Some(rest) = sender {
            spawn_local(send_rest(rest));
        }
        let body = Http2Body::response(receive, &head.headers);
        Ok((Response::from_parts(head, body), stream))
    }
}

/// The rest of a request's body cannot be read: what that means, told to the upstream.
fn unreadable(sender: &mut BodySender<RequestBody>, error: &BodyError) -> Failure {
    sender.reset(http2_reason(error).unwrap_or(Reason::INTERNAL_ERROR));
    request_failure(error)
}

/// Sends what is left of a request whose response has begun.
async fn send_rest(mut sender: BodySender<RequestBody>) {
    if let Err(BodySendError::Body(error)) = poll_fn(|cx| sender.poll(cx)).await {
        unreadable(&mut sender, &error);
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
