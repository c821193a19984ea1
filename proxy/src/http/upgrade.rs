//! A request that asks for another protocol: `Upgrade` over HTTP/1 (RFC 9110 section 7.8), extended CONNECT over HTTP/2 (RFC 8441); or for
//! a tunnel: CONNECT (RFC 9110 section 9.3.6), which goes on to the upstream as CONNECT, or ends here in a TCP connection.
//!
//! In between the first two look like HTTP/1's: a GET with an `upgrade` header, answered with 101. Each side then says it in its own way. After
//! the 101 the exchange is bytes both ways, until both sides have ended; the stream lives as long, and so do its log line and its
//! place in the connection. Runs on the workers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::active_stream::ActiveStream;
use super::body::{RequestBody, ResponseBody};
use super::codec::{self, Incoming, SendError, Switched, Switching, Version};
use super::downstream::DownstreamConnection;
use super::error::Failure;
use super::pool::Lease;
use super::{HttpConnectionManager, headers};
use crate::route::RouteAction;
use crate::stats::HttpStats;

/// What a request asks for. Only such requests have one.
#[derive(Debug)]
pub(crate) struct Upgrade {
    asks_for: AsksFor,
    /// It is a tunnel and ends here.
    ends_here: bool,
    /// The client's stream, of an HTTP/2 connection; with HTTP/1 it is the whole connection.
    downstream: Option<Switching>,
    /// The upstream has agreed.
    upstream: Option<Box<Switched>>,
    /// Where it counts as active.
    counted: Option<Arc<HttpStats>>,
}

#[derive(Debug)]
enum AsksFor {
    Protocol {
        /// The `upgrade` header, or `:protocol`.
        protocol: HeaderValue,
        /// The client's `connection` header.
        connection: HeaderValue,
    },
    Tunnel,
}

/// What of a head belongs to its connection.
#[derive(Debug)]
pub(crate) enum OfConnection {
    /// `connection` and `upgrade`.
    Upgrade([HeaderValue; 2]),
    /// A tunnel needs nothing.
    Tunnel,
}

impl Upgrade {
    fn new(asks_for: AsksFor, downstream: Option<Switching>) -> Self {
        Self { asks_for, ends_here: false, downstream, upstream: None, counted: None }
    }

    /// What this request asks for. One over HTTP/2 becomes what it would be over HTTP/1.
    pub(crate) fn asked(
        connection: &DownstreamConnection,
        request: &mut Request<RequestBody>,
    ) -> Option<Box<Self>> {
        let is_connect = request.method() == Method::CONNECT;
        let upgrade = match connection.version {
            Version::Http1 if is_connect => {
                // "0" is all that it may say.
                request.headers_mut().remove(CONTENT_LENGTH);
                Self::new(AsksFor::Tunnel, None)
            }
            Version::Http1 if !headers::asks_for_upgrade(request.headers()) => return None,
            Version::Http1 => {
                let protocol = request.headers().get(UPGRADE)?.clone();
                let connection = request.headers().get(CONNECTION)?.clone();
                Self::new(AsksFor::Protocol { protocol, connection }, None)
            }
            Version::Http2 if !is_connect => return None,
            Version::Http2 => match codec::extended_connect(request) {
                Some((protocol, downstream)) => {
                    *request.method_mut() = Method::GET;
                    let connection = HeaderValue::from_static("upgrade");
                    Self::new(AsksFor::Protocol { protocol, connection }, Some(downstream))
                }
                None => Self::new(AsksFor::Tunnel, codec::connect_stream(request)),
            },
        };
        Some(Box::new(upgrade))
    }

    /// Whether the request may have what it asks for: the route's word, else the connection manager's. It counts from then on.
    pub(crate) fn is_allowed(
        &mut self,
        hcm: &HttpConnectionManager,
        action: &RouteAction,
        request: &Request<RequestBody>,
    ) -> bool {
        let name = match &self.asks_for {
            AsksFor::Protocol { protocol, .. } => protocol.as_bytes(),
            AsksFor::Tunnel => b"CONNECT",
        };
        let configured = action.upgrades.get(name).or_else(|| hcm.upgrades.get(name));
        // HTTP/1.0 has no upgrades; and a body would have to end before the other protocol begins.
        let allowed = request.version() > http::Version::HTTP_10
            && request.body().is_end_stream()
            && configured.is_some_and(|configured| configured.enabled);
        self.ends_here = configured.is_some_and(|configured| configured.terminates);
        if allowed {
            hcm.stats.downstream_cx_upgrades_total.inc();
            hcm.stats.downstream_cx_upgrades_active.inc();
            self.counted = Some(hcm.stats.clone());
        } else {
            hcm.stats.downstream_rq_ws_on_non_ws_route.inc();
        }
        allowed
    }

    /// Asks the upstream in its own HTTP version.
    pub(crate) fn ask(&self, request: &mut Request<RequestBody>, version: Version, authority: &Authority) {
        match (&self.asks_for, version) {
            (AsksFor::Protocol { protocol, connection }, Version::Http1) => {
                request.headers_mut().insert(CONNECTION, connection.clone());
                request.headers_mut().insert(UPGRADE, protocol.clone());
            }
            (AsksFor::Protocol { protocol, .. }, Version::Http2) => {
                *request.method_mut() = Method::CONNECT;
                codec::set_protocol(request, protocol);
            }
            (AsksFor::Tunnel, _) => *request.uri_mut() = Uri::from(authority.clone()),
        }
    }

    /// Whether it is a tunnel that ends here: the cluster gets what is in it.
    pub(crate) fn ends_here(&self) -> bool {
        self.ends_here
    }

    /// The tunnel has reached its end.
    pub(crate) fn reach(&mut self, upstream: Switched) {
        self.upstream = Some(Box::new(upstream));
    }

    /// Whether the upstream has agreed.
    pub(crate) fn is_accepted(&self) -> bool {
        self.upstream.is_some()
    }

    /// The head of the upstream's answer, as HTTP/1's, without what belongs to its connection; and what `finish_head` puts back.
    pub(crate) fn clean_head(&self, headers: &mut HeaderMap) -> OfConnection {
        let kept = match &self.asks_for {
            AsksFor::Protocol { protocol, .. } => OfConnection::Upgrade([
                headers.get(CONNECTION).cloned().unwrap_or(HeaderValue::from_static("upgrade")),
                headers.get(UPGRADE).cloned().unwrap_or_else(|| protocol.clone()),
            ]),
            AsksFor::Tunnel => OfConnection::Tunnel,
        };
        headers::remove_hop_by_hop(headers);
        headers.remove(CONTENT_LENGTH);
        kept
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        if let Some(stats) = &self.counted {
            stats.downstream_cx_upgrades_active.dec();
        }
    }
}

/// Says it in the downstream's HTTP version.
pub(crate) fn finish_head<B>(response: &mut Response<B>, version: Version, kept: OfConnection) {
    match (kept, version) {
        (OfConnection::Upgrade([connection, upgrade]), Version::Http1) => {
            response.headers_mut().insert(CONNECTION, connection);
            response.headers_mut().insert(UPGRADE, upgrade);
        }
        (OfConnection::Upgrade(_), Version::Http2) => *response.status_mut() = StatusCode::OK,
        (OfConnection::Tunnel, _) => _ = response.headers_mut().remove(CONNECTION),
    }
}

/// Sends a request that asks, and keeps the upstream's end when it agrees.
pub(crate) async fn send(
    stream: &mut ActiveStream,
    lease: &mut Lease,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, SendError> {
    let (mut response, switched) = lease.send_upgrade(request).await?;
    if let (Some(switched), Some(upgrade)) = (switched, &mut stream.upgrade) {
        upgrade.reach(switched);
        if matches!(upgrade.asks_for, AsksFor::Protocol { .. }) {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
    }
    Ok(response)
}

/// The stream goes on as bytes once the head of the answer has been written: with HTTP/1 that is when the connection is given back.
pub(crate) fn hand_over(mut stream: Box<ActiveStream>) -> ResponseBody {
    let connection = stream.connection.clone();
    if let Some(mut upgrade) = stream.upgrade.take()
        && let Some(upstream) = upgrade.upstream.take()
    {
        stream.end_of_http();
        let downstream = upgrade.downstream.take();
        let exchange = Exchange { stream, upstream, _upgrade: upgrade };
        match downstream {
            None => *connection.exchange.borrow_mut() = Some(Box::new(exchange)),
            Some(switching) => {
                tokio::task::spawn_local(async move {
                    if let Some(downstream) = switching.done().await {
                        exchange.run(downstream).await;
                    }
                });
            }
        }
    }
    ResponseBody::none()
}

/// A stream that has left HTTP.
#[derive(Debug)]
pub(crate) struct Exchange {
    stream: Box<ActiveStream>,
    upstream: Box<Switched>,
    _upgrade: Box<Upgrade>,
}

enum End {
    Finished,
    Downstream,
    Upstream,
    Late(Failure),
}

impl Exchange {
    /// Copies both ways until both sides have ended, one has broken, or nothing has moved for too long. The end of one side is passed
    /// on while the other goes on.
    pub(crate) async fn run(self, mut downstream: Switched) {
        let Self { mut stream, mut upstream, _upgrade } = self;
        let (mut forth, mut back) = (Direction::default(), Direction::default());
        let end = std::future::poll_fn(|cx| {
            let moved = forth.moved + back.moved;
            let forth_ended = match forth.poll(cx, &mut downstream, &mut upstream) {
                Poll::Ready(Err(Broken::Source)) => return Poll::Ready(End::Downstream),
                Poll::Ready(Err(Broken::Destination)) => return Poll::Ready(End::Upstream),
                other => other.is_ready(),
            };
            let back_ended = match back.poll(cx, &mut upstream, &mut downstream) {
                Poll::Ready(Err(Broken::Source)) => return Poll::Ready(End::Upstream),
                Poll::Ready(Err(Broken::Destination)) => return Poll::Ready(End::Downstream),
                other => other.is_ready(),
            };
            stream.info.bytes_received = forth.moved;
            stream.info.bytes_sent = back.moved;
            if forth_ended && back_ended {
                return Poll::Ready(End::Finished);
            }
            if forth.moved + back.moved > moved {
                stream.touch();
            }
            stream.poll_deadline(cx).map_or(Poll::Pending, |failure| Poll::Ready(End::Late(failure)))
        })
        .await;
        match end {
            End::Finished => {
                stream.upstream_complete();
                stream.complete = true;
            }
            // What a stream is taken for that ends without being complete.
            End::Downstream => {}
            End::Upstream => stream.fail_after_response(Failure::ConnectionTermination),
            End::Late(failure) => stream.fail_after_response(failure),
        }
    }
}

/// The side of a direction that broke.
enum Broken {
    Source,
    Destination,
}

/// How much is read in one go.
const CHUNK: usize = 16 << 10;
/// A direction that has moved so many bytes in one go lets the worker's other connections run.
const FAIR_BYTES: u64 = 1 << 20;

/// One direction. While it is quiet it holds no buffer.
#[derive(Default)]
struct Direction {
    /// What was read and could not be written yet.
    pending: Vec<u8>,
    /// How much of it was written.
    written: usize,
    /// Bytes written to the destination, so far.
    moved: u64,
    unflushed: bool,
    source_ended: bool,
    ended: bool,
}

impl Direction {
    /// Ready when the source has ended and the destination knows it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Switched,
        destination: &mut Switched,
    ) -> Poll<Result<(), Broken>> {
        let begin = self.moved;
        while !self.ended {
            while self.written < self.pending.len() {
                let rest = &self.pending[self.written..];
                match ready!(Pin::new(&mut *destination).poll_write(cx, rest)) {
                    Ok(n) if n > 0 => {
                        self.written += n;
                        self.wrote(n);
                    }
                    _ => return Poll::Ready(Err(Broken::Destination)),
                }
            }
            if self.written > 0 {
                (self.pending, self.written) = (Vec::new(), 0);
            }
            if self.source_ended {
                let shut = ready!(Pin::new(&mut *destination).poll_shutdown(cx));
                self.ended = true;
                return Poll::Ready(shut.map_err(|_| Broken::Destination));
            }
            if self.moved - begin >= FAIR_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut chunk = [std::mem::MaybeUninit::uninit(); CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut *source).poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(())) if chunk.filled().is_empty() => self.source_ended = true,
                Poll::Ready(Ok(())) => {
                    let read = chunk.filled();
                    let n = match Pin::new(&mut *destination).poll_write(cx, read) {
                        Poll::Ready(Ok(n)) if n > 0 => n,
                        Poll::Ready(_) => return Poll::Ready(Err(Broken::Destination)),
                        Poll::Pending => 0,
                    };
                    self.wrote(n);
                    self.pending.extend_from_slice(&read[n..]);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Source)),
                Poll::Pending => {
                    if self.unflushed {
                        let flushed = ready!(Pin::new(&mut *destination).poll_flush(cx));
                        self.unflushed = false;
                        if flushed.is_err() {
                            return Poll::Ready(Err(Broken::Destination));
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, n: usize) {
        self.moved += n as u64;
        self.unflushed |= n > 0;
    }
}
