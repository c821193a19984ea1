//! One HTTP/1 connection to an upstream: a request at a time.
//!
//! The task that sends a request writes it and reads the head of its response; who reads the response's body reads from the connection
//! itself. What is still to be written of a request when its response begins goes on in a task of its own. Between requests the
//! connection's own task watches for its end.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;

use super::body::Http1Body;
use super::channel::{Channel, Meter};
use super::encode::{self, BodyWriter, WriteError};
use super::head::{self, Finder, Limits, ResponseHead};
use crate::cluster::{Cluster, Host};
use crate::http::body::RequestBody;
use crate::http::codec::client::{SendError, until};
use crate::http::codec::interim::Interim;
use crate::http::codec::io::{Io, Side};
use crate::http::codec::switched::Switched;
use crate::http::codec::wire::{Fate, Wire};
use crate::http::codec::{Incoming, flow, request_failure};
use crate::http::error::Failure;
use crate::net::Stream;

/// Sends requests on one HTTP/1 connection, one at a time. Dropped, it closes the connection.
#[derive(Debug)]
pub(crate) struct Http1Sender(Rc<Connection>);

struct Connection {
    channel: Rc<RefCell<Channel>>,
    finder: RefCell<Finder>,
    limits: Limits,
    proper_case: bool,
    /// `enable_trailers`.
    with_trailers: bool,
    /// The request is still on its way.
    is_sending: Cell<bool>,
    /// Whether the connection may take another request after the present one.
    keeps_alive: Cell<bool>,
    /// Held as long as the connection lives.
    guard: RefCell<Option<Box<dyn Any>>>,
    /// Who waits until it can take a request.
    waiting: RefCell<Option<Waker>>,
    /// What is seen of it.
    wire: Rc<Wire>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("is_open", &self.channel.borrow().is_open())
            .finish_non_exhaustive()
    }
}

/// Envoy's default of `max_response_headers_kb`.
const HEAD_BYTES: u32 = 80 << 10;

/// Speaks HTTP/1 on a fresh connection, until `closes`. `guard` is held as long as the connection lives.
pub(crate) fn connect_http1(
    cluster: &Cluster,
    host: &Arc<Host>,
    stream: Stream,
    closes: Option<Instant>,
    guard: impl Sized + 'static,
) -> Http1Sender {
    let settings = &cluster.connection;
    let head_bytes = settings.max_response_headers_bytes.unwrap_or(HEAD_BYTES);
    let wire = Wire::new(host.clone());
    let io = Io::new(stream, Default::default(), Side::Upstream(cluster.stats.clone(), Some(wire.clone())));
    let limit = flow::http1_buffer(settings.buffer_limit_bytes);
    let connection = Rc::new(Connection {
        channel: Rc::new(RefCell::new(Channel::new(io, limit))),
        finder: RefCell::default(),
        limits: Limits {
            bytes: head_bytes as usize,
            fields: settings.max_response_headers_count as usize,
            keeps_case: settings.header_case.keeps,
        },
        proper_case: settings.header_case.proper,
        with_trailers: settings.http1_trailers,
        is_sending: Cell::new(false),
        keeps_alive: Cell::new(true),
        guard: RefCell::new(Some(Box::new(guard))),
        waiting: RefCell::new(None),
        wire,
    });
    let watched = connection.clone();
    tokio::task::spawn_local(async move {
        if until(closes, poll_fn(|cx| watched.poll_idle_end(cx))).await.is_some() {
            watched.wire.has_ended();
        }
        watched.close();
    });
    Http1Sender(connection)
}

impl Connection {
    fn is_idle(&self) -> bool {
        let channel = self.channel.borrow();
        !self.is_sending.get() && !channel.awaits_head && channel.decoder.is_done()
    }

    /// Ready when the connection has ended while nothing was asked of it: also by an answer to nothing. For the connection's own task.
    fn poll_idle_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut channel = self.channel.borrow_mut();
        if !channel.is_open() || channel.poll_peer_end(cx).is_ready() {
            return Poll::Ready(());
        }
        match !channel.awaits_head && channel.decoder.is_done() && !channel.input.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Whether an idle connection has ended, though its own task may not know it yet.
    fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        let mut channel = self.channel.borrow_mut();
        !channel.is_open() || !channel.input.is_empty() || channel.poll_fill(cx).is_ready()
    }

    fn close(&self) {
        let io = self.channel.borrow_mut().take();
        let guard = self.guard.take();
        self.wake_waiting();
        drop((io, guard));
    }

    fn wake_waiting(&self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn has_sent(&self) {
        self.is_sending.set(false);
        self.wake_waiting();
    }

    /// Reads the head of the response; informational ones before it go to `interim`.
    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        method: &Method,
        interim: Option<&Interim>,
    ) -> Poll<Result<ResponseHead, Failure>> {
        let (mut channel, mut finder) = (self.channel.borrow_mut(), self.finder.borrow_mut());
        loop {
            match head::response(&mut finder, &mut channel.input, self.limits, method) {
                Ok(Some(head)) if is_interim(head.response.status()) => {
                    if let Some(interim) = interim {
                        let (parts, ()) = head.response.into_parts();
                        interim.tell(parts.status, parts.headers);
                    }
                    continue;
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(Failure::Protocol)),
            }
            if !matches!(ready!(channel.poll_fill(cx)), Ok(1..)) {
                return Poll::Ready(Err(Failure::ConnectionTermination));
            }
        }
    }
}

/// Whether the final response is still to come.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// An exchange that is given up ends its connection.
struct Exchange<'c>(Option<&'c Connection>);

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.close();
        }
    }
}

impl Http1Sender {
    /// What is seen of the connection.
    pub(crate) fn wire(&self) -> &Wire {
        &self.0.wire
    }

    /// Counts the bytes of the exchange that begins now.
    pub(crate) fn meter(&self) -> Meter {
        self.0.channel.borrow_mut().begin_exchange();
        Meter::new(&self.0.channel)
    }

    /// Whether it can take a request.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_closed() && self.0.is_idle()
    }

    /// Whether it takes no request any more.
    pub(crate) fn is_closed(&self) -> bool {
        !self.0.keeps_alive.get() || !self.0.channel.borrow().is_open()
    }

    /// Waits until the connection can take a request; false when it is gone.
    pub(crate) async fn ready(&mut self) -> bool {
        poll_fn(|cx| match (self.is_closed(), self.is_ready()) {
            (true, _) => Poll::Ready(false),
            (false, true) => Poll::Ready(true),
            (false, false) => {
                *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Sends a request and waits for the head of its response. What is informational before it goes to `interim`.
    ///
    /// # Errors
    /// The exchange has failed before that; the connection is closed.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<Incoming>, SendError> {
        let connection = &*self.0;
        let has_ended = poll_fn(|cx| Poll::Ready(connection.has_ended(cx))).await;
        if has_ended {
            connection.close();
            let ended = SendError::new(Failure::ConnectionTermination, Fate::Unseen);
            return Err(SendError { unsent: Some(request), ..ended });
        }
        let mark = connection.wire.mark();
        let mut exchange = Exchange(Some(connection));
        let (parts, body) = request.into_parts();
        let (is_empty, exact) = (body.is_end_stream(), body.size_hint().exact());
        let encoder = {
            let mut channel = connection.channel.borrow_mut();
            channel.awaits_head = true;
            let (encoder, fields) =
                channel.put_head(|out| encode::request(out, &parts, connection.proper_case, is_empty, exact));
            channel.fields_given = fields;
            encoder
        };
        connection.is_sending.set(true);
        let mut writer = BodyWriter::new(body, encoder, connection.with_trailers);
        let head = poll_fn(|cx| {
            if connection.is_sending.get() {
                match writer.poll(cx, &connection.channel) {
                    Poll::Ready(Ok(())) => connection.has_sent(),
                    Poll::Ready(Err(WriteError::Body(error))) => {
                        return Poll::Ready(Err(request_failure(&error)));
                    }
                    Poll::Ready(Err(WriteError::Short)) => return Poll::Ready(Err(Failure::Downstream)),
                    // There may be an answer nevertheless.
                    Poll::Ready(Err(WriteError::Connection)) => {
                        connection.has_sent();
                        connection.keeps_alive.set(false);
                    }
                    Poll::Pending => {}
                }
            }
            connection.poll_head(cx, &parts.method, interim)
        });
        let head = match head.await {
            Ok(head) => head,
            Err(failure) => {
                let failed = SendError::of(failure, &connection.wire, mark);
                return Err(SendError { head: Some(Box::new(parts)), ..failed });
            }
        };
        if !head.keeps_alive || head.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            connection.keeps_alive.set(false);
        }
        connection.channel.borrow_mut().begin(head.body);
        if connection.is_sending.get() {
            tokio::task::spawn_local(send_rest(self.0.clone(), writer));
        }
        let body = Incoming::Http1(Http1Body::new(&connection.channel, false));
        exchange.0 = None;
        Ok(head.response.map(|()| body))
    }

    /// Sends a request with an `upgrade` header, or CONNECT: with the connection, when the upstream agrees (101; 2xx).
    ///
    /// # Errors
    /// See `send`.
    pub(crate) async fn send_upgrade(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        let connects = request.method() == Method::CONNECT;
        let response = self.send(request, None).await?;
        let agrees = match connects {
            true => response.status().is_success(),
            false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        };
        if !agrees {
            return Ok((response, None));
        }
        let taken = self.0.channel.borrow_mut().take();
        let gone = SendError::new(Failure::ConnectionTermination, Fate::Unknown);
        let (io, read) = taken.ok_or(gone)?;
        Ok((response, Some(Switched::Http1 { read, io, _guard: self.0.guard.take() })))
    }
}

impl Drop for Http1Sender {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Writes what is left of a request whose response has begun.
async fn send_rest(connection: Rc<Connection>, mut writer: BodyWriter<RequestBody>) {
    match poll_fn(|cx| writer.poll(cx, &connection.channel)).await {
        Ok(()) => connection.has_sent(),
        // The response may be whole nevertheless.
        Err(WriteError::Connection) => {
            connection.keeps_alive.set(false);
            connection.has_sent();
        }
        Err(WriteError::Body(_) | WriteError::Short) => connection.close(),
    }
}
