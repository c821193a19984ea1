//! One HTTP/1 connection of a client: a request at a time, read, served and answered by the same task. `exchange` reads top to bottom.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::body::Http1Body;
use super::channel::Channel;
use super::encode::{self, Asked, BodyWriter, WriteError};
use super::head::{self, Finder, Limits, Refusal, RequestHead};
use crate::http::body::{Aborted, ResponseBody};
use crate::http::codec::ending::{end, write_last};
use crate::http::codec::io::{Follow, Io, Side};
use crate::http::codec::late_head::{HeadWatch, LateClient, LateHead};
use crate::http::codec::rest::rest;
use crate::http::codec::switched::Switched;
use crate::http::codec::{Incoming, ServeError, Served, flow};
use crate::http::downstream::DownstreamConnection;
use crate::http::error::Failure;
use crate::net::Stream;
use crate::stream_info::close_reasons;

/// After so many requests that came at once, the worker's other connections have their turn.
const FAIR_REQUESTS: u32 = 16;

/// Serves one HTTP/1 connection to its end, or until it is given back: it has left HTTP, or a head is late or bad. When `handle` drains and
/// nothing is in flight, the connection is closed.
///
/// # Errors
/// How it ended when it did not end well.
pub(crate) async fn serve_http1<F>(
    stream: Stream,
    read_ahead: Bytes,
    downstream: &DownstreamConnection,
    service: impl Fn(Request<Incoming>) -> F,
) -> Result<Served, ServeError>
where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>>,
{
    let DownstreamConnection { stats, handle, .. } = downstream;
    let side = Side::Downstream(stats.clone(), handle.clone(), Follow::Nothing);
    let mut io = Io::new(stream, read_ahead, side);
    loop {
        // Boxed, so that a connection at rest does not hold the room for it.
        match Box::pin(run(io, downstream, &service)).await? {
            End::Served(served) => return Ok(served),
            End::Idle(idle) => match rest(idle, handle).await {
                Some(woken) => io = woken,
                None => return Ok(Served::Closed),
            },
        }
    }
}

/// How a connection ends, or why its buffers are given up.
enum End {
    Served(Served),
    /// Nothing has happened for a while, and nothing is on its way.
    Idle(Io),
}

impl End {
    const CLOSED: Self = Self::Served(Served::Closed);
}

/// What came of one exchange.
enum Exchanged {
    /// The next request may come.
    GoesOn,
    Ends(End),
}

/// The connection while it is in use.
struct Connection<'d> {
    channel: Rc<RefCell<Channel>>,
    finder: Finder,
    limits: Limits,
    head_watch: HeadWatch,
    downstream: &'d DownstreamConnection,
}

/// Serves requests until the connection ends or is idle for long enough to do without its buffers.
async fn run<F>(
    io: Io,
    downstream: &DownstreamConnection,
    service: &impl Fn(Request<Incoming>) -> F,
) -> Result<End, ServeError>
where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>>,
{
    let options = &downstream.live.connection;
    let channel = Rc::new(RefCell::new(Channel::new(io, flow::http1_buffer(options.buffer_limit_bytes))));
    let limits = Limits {
        bytes: options.max_request_headers_bytes as usize,
        fields: options.max_headers_count as usize,
        keeps_case: options.header_case.keeps,
    };
    let (finder, head_watch) = (Finder::default(), HeadWatch::default());
    let mut connection = Connection { channel, finder, limits, head_watch, downstream };
    for count in 1_u32.. {
        match connection.exchange(service).await? {
            Exchanged::Ends(end) => return Ok(end),
            Exchanged::GoesOn if count.is_multiple_of(FAIR_REQUESTS) => tokio::task::yield_now().await,
            Exchanged::GoesOn => {}
        }
    }
    Ok(End::CLOSED)
}

/// What comes instead of a next request.
enum Next {
    Request(Box<RequestHead>),
    Bad(Refusal),
    Late(Failure),
    Idle,
    /// The client has ended the connection.
    Ended,
    /// It broke, or was ended, in the middle of a head.
    Incomplete,
    /// We end the connection.
    Close,
    /// It is given up.
    Killed,
}

impl Connection<'_> {
    /// Reads a request, has it served, and writes the response.
    async fn exchange<F>(
        &mut self,
        service: &impl Fn(Request<Incoming>) -> F,
    ) -> Result<Exchanged, ServeError>
    where
        F: Future<Output = Result<Response<ResponseBody>, Aborted>>,
    {
        self.channel.borrow_mut().begin_exchange();
        let head = match poll_fn(|cx| self.poll_next(cx)).await {
            Next::Request(head) => head,
            Next::Bad(refusal) => return Ok(self.give_back(|io| Served::Bad(BadHead { refusal, io }))),
            Next::Late(failure) => {
                return Ok(self.give_back(|io| {
                    Served::Late(LateHead { failure, client: Some(LateClient::Http1(io)) })
                }));
            }
            Next::Idle => {
                let taken = self.channel.borrow_mut().take();
                return Ok(Exchanged::Ends(taken.map_or(End::CLOSED, |(io, _)| End::Idle(io))));
            }
            Next::Ended | Next::Close => return self.close(false).await,
            Next::Incomplete => return Err(ServeError::Incomplete),
            Next::Killed => return Ok(Exchanged::Ends(End::CLOSED)),
        };
        let RequestHead { request, body, keeps_alive, expects_continue } = *head;
        let asked = Asked { method: request.method().clone(), version: request.version(), keeps_alive };
        self.channel.borrow_mut().begin(body);
        let body = Incoming::Http1(Http1Body::new(&self.channel, expects_continue));

        let served = {
            let mut served = pin!(service(request.map(|()| body)));
            poll_fn(|cx| self.poll_served(cx, served.as_mut())).await
        };
        let Some(Ok(response)) = served else { return Ok(Exchanged::Ends(End::CLOSED)) };
        self.answer(response, asked).await
    }

    /// Waits for the next head.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let handle = &self.downstream.handle;
        handle.watch(cx);
        if handle.is_killed() {
            return Poll::Ready(Next::Killed);
        }
        let mut channel = self.channel.borrow_mut();
        loop {
            match head::request(&mut self.finder, &mut channel.input, self.limits) {
                Ok(Some(head)) => return Poll::Ready(Next::Request(Box::new(head))),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Next::Bad(refusal)),
            }
            match channel.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) if !channel.input.is_empty() => {
                    return Poll::Ready(Next::Incomplete);
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Next::Ended),
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Killed),
                Poll::Pending => break,
            }
        }
        let has_begun = !channel.input.is_empty();
        if handle.is_closing() {
            return Poll::Ready(Next::Close);
        }
        if handle.may_rest() && !has_begun {
            return Poll::Ready(Next::Idle);
        }
        let begun = has_begun.then_some(channel.message + 1);
        self.head_watch.poll(cx, begun, self.downstream).map(Next::Late)
    }

    /// Serves the request until there is a response. `None`: nobody waits for it any more.
    fn poll_served<F: Future>(&self, cx: &mut Context<'_>, served: Pin<&mut F>) -> Poll<Option<F::Output>> {
        let handle = &self.downstream.handle;
        handle.watch(cx);
        if handle.is_killed() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(response) = served.poll(cx) {
            return Poll::Ready(Some(response));
        }
        let mut channel = self.channel.borrow_mut();
        if !channel.is_flushed() {
            // What comes before the answer; whether it arrives shows with that.
            let _ = channel.poll_flush(cx);
        }
        channel.poll_peer_end(cx).map(|()| None)
    }

    /// Writes the response, and says how the connection goes on.
    async fn answer(
        &mut self,
        response: Response<ResponseBody>,
        mut asked: Asked,
    ) -> Result<Exchanged, ServeError> {
        let options = &self.downstream.live.connection;
        let handle = &self.downstream.handle;
        // As in Envoy an answer in the middle of the request is the last one.
        asked.keeps_alive &= !handle.is_closing() && self.channel.borrow_mut().has_ended();
        let (parts, body) = response.into_parts();
        let exact = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let written = {
            let mut channel = self.channel.borrow_mut();
            channel.answered = channel.message;
            let proper_case = options.header_case.proper;
            let written = channel.put_head(|out| encode::response(out, &parts, &asked, proper_case, exact));
            channel.fields_given = written.fields;
            written
        };
        let with_trailers = asked.version == Version::HTTP_11;
        let mut writer = BodyWriter::new(body, written.encoder, with_trailers);
        let is_written = poll_fn(|cx| {
            handle.watch(cx);
            if handle.is_killed() {
                return Poll::Ready(false);
            }
            if let Poll::Ready(written) = writer.poll(cx, &self.channel) {
                if let Err(WriteError::Body(_) | WriteError::Short) = &written {
                    handle.record.closes(close_reasons::LAST_RESPONSE);
                }
                return Poll::Ready(written.is_ok());
            }
            self.channel.borrow_mut().poll_peer_end(cx).map(|()| false)
        })
        .await;
        if !is_written {
            return Ok(Exchanged::Ends(End::CLOSED));
        }
        let leaves_http = parts.status == StatusCode::SWITCHING_PROTOCOLS
            || (asked.method == http::Method::CONNECT && parts.status.is_success());
        if leaves_http {
            let taken = self.channel.borrow_mut().take();
            let switched = |(io, read)| Served::Switched(Switched::Http1 { read, io, _guard: None });
            return Ok(Exchanged::Ends(taken.map_or(End::CLOSED, |taken| End::Served(switched(taken)))));
        }
        let has_read_all = self.channel.borrow_mut().has_ended();
        if has_read_all && !written.is_last {
            return Ok(Exchanged::GoesOn);
        }
        handle.record.closes(close_reasons::LAST_RESPONSE);
        self.close(!has_read_all).await
    }

    /// Ends the connection. With `lingers` the client may still be sending.
    async fn close(&self, lingers: bool) -> Result<Exchanged, ServeError> {
        let taken = self.channel.borrow_mut().take();
        if let Some((io, _)) = taken {
            end(io, lingers, self.downstream).await;
        }
        Ok(Exchanged::Ends(End::CLOSED))
    }

    /// The connection goes to somebody who has an answer to what came.
    fn give_back(&self, served: impl FnOnce(Io) -> Served) -> Exchanged {
        let taken = self.channel.borrow_mut().take();
        Exchanged::Ends(taken.map_or(End::CLOSED, |(io, _)| End::Served(served(io))))
    }
}

/// A head that nothing can be done with but to say so.
#[derive(Debug)]
pub(crate) struct BadHead {
    /// What is wrong with it.
    pub(crate) refusal: Refusal,
    io: Io,
}

impl BadHead {
    /// Says so, and that nothing more will be said.
    pub(crate) async fn answer(self, response: Response<Bytes>, downstream: &DownstreamConnection) {
        answer_last(self.io, response, downstream).await;
    }
}

/// Writes the last answer of a connection whose client may still be sending.
pub(in crate::http::codec) async fn answer_last(
    io: Io,
    response: Response<Bytes>,
    downstream: &DownstreamConnection,
) {
    let (parts, body) = response.into_parts();
    let asked = Asked { method: http::Method::GET, version: Version::HTTP_11, keeps_alive: false };
    let mut bytes = bytes::BytesMut::new();
    encode::response(&mut bytes, &parts, &asked, false, Some(body.len() as u64));
    bytes.extend_from_slice(&body);
    write_last(io, &bytes, downstream).await;
}
