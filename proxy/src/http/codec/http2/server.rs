//! The HTTP/2 connections of clients: each request is served by a task of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::body::Http2Body;
use super::body_sender::{BodySendError, BodySender};
use super::frame_watch::FrameWatch;
use super::keep_alive::KeepAlive;
use super::responder::Responder;
use super::shared_io::SharedIo;
use super::tunnel::{Switching, Tunnel};
use super::{head, last_answer};
use crate::http::body::{Aborted, ResponseBody};
use crate::http::codec::ending::write_last;
use crate::http::codec::io::{Follow, Io, Side};
use crate::http::codec::late_head::{HeadWatch, LateClient, LateHead};
use crate::http::codec::{Incoming, ServeError, Served, date, flow};
use crate::http::downstream::DownstreamConnection;
use crate::net::Stream;

/// How often a connection with a late head is looked at while streams keep it.
const LATE_AGAIN: Duration = Duration::from_millis(500);

/// Serves one connection to its end, or until a head is late and no stream is left. When `handle` drains, GOAWAY is sent and streams in
/// flight finish.
///
/// # Errors
/// How it ended when it did not end well.
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
    let limits = downstream.live.connection.http2.frames;
    let frames = FrameWatch::new(limits, downstream.worker.shared.stats.clone());
    let seen = frames.seen();
    let side = Side::Downstream(stats.clone(), handle.clone(), Follow::Http2(Box::new(frames)));
    let io = SharedIo::new(Io::new(stream, read_ahead, side));
    let mut handshake = pin!(builder(downstream).handshake(io.clone()));
    let begun = poll_fn(|cx| {
        handle.watch(cx);
        if handle.is_killed() || handle.is_closing() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    });
    let mut connection = match begun.await {
        Some(Ok(connection)) => connection,
        Some(Err(_)) => return Err(ServeError::Io),
        None => return Ok(Served::Closed),
    };
    let mut keep_alive = KeepAlive::new(downstream.live.connection.http2.keep_alive, connection.ping_pong());
    let mut head = HeadWatch::default();
    let mut is_draining = false;
    let late = poll_fn(|cx| {
        handle.watch(cx);
        if (handle.is_draining() || handle.is_closing()) && !is_draining {
            is_draining = true;
            connection.graceful_shutdown();
        }
        if handle.is_killed() {
            return Poll::Ready(Ok(None));
        }
        if keep_alive.as_mut().is_some_and(|kept| kept.poll(cx, seen.frames.get()).is_ready()) {
            downstream.worker.shared.stats.server().http2_keepalive_timeout.inc();
            return Poll::Ready(Ok(None));
        }
        while let Poll::Ready(accepted) = connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, response))) => begin(&service, request, response),
                Some(Err(_)) => return Poll::Ready(Err(ServeError::Io)),
                None => return Poll::Ready(Ok(None)),
            }
        }
        let head_begun = seen.head_in_progress.get();
        match head.poll(cx, head_begun.map(u64::from), downstream) {
            Poll::Ready(failure) if handle.streams() == 0 && !handle.is_stalled() => {
                Poll::Ready(Ok(head_begun.map(|stream| (failure, stream))))
            }
            Poll::Ready(_) => {
                head.again_in(cx, LATE_AGAIN);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    });
    let Some((failure, stream)) = late.await? else { return Ok(Served::Closed) };
    // What it has to say is written, for nothing is in flight.
    drop(connection);
    let io = io.into_inner();
    let client = io.map(|io| LateClient::Http2(Box::new(LateStream { io, stream })));
    Ok(Served::Late(LateHead { failure, client }))
}

/// The stream of a head that does not end.
#[derive(Debug)]
pub(in crate::http::codec) struct LateStream {
    io: Io,
    stream: u32,
}

impl LateStream {
    /// Answers on it, and ends the connection.
    pub(in crate::http::codec) async fn answer(
        self,
        response: Response<Bytes>,
        downstream: &DownstreamConnection,
    ) {
        write_last(self.io, &last_answer::frames(self.stream, response), downstream).await;
    }
}

fn builder(downstream: &DownstreamConnection) -> Builder {
    let options = &downstream.live.connection;
    let limit = options.buffer_limit_bytes;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(options.http2.max_concurrent_streams)
        .initial_window_size(flow::http2_stream_window(limit, options.http2.initial_stream_window_bytes))
        .max_send_buffer_size(flow::http2_send_buffer(limit))
        .initial_connection_window_size(options.http2.initial_connection_window_bytes)
        .max_header_list_size(options.max_request_headers_bytes);
    if options.http2.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Where the stream of a CONNECT goes when it leaves HTTP.
type Leaves = (RecvStream, oneshot::Sender<Tunnel>);

/// Hands a request to the service.
fn begin<F>(
    service: impl Fn(Request<Incoming>) -> F,
    request: Request<RecvStream>,
    response: SendResponse<Bytes>,
) where
    F: Future<Output = Result<Response<ResponseBody>, Aborted>> + 'static,
{
    let responder = Rc::new(Responder::new(response));
    let (mut parts, stream) = request.into_parts();
    let (body, leaves) = if parts.method == Method::CONNECT {
        let (give, switching) = Switching::new();
        parts.extensions.insert(switching);
        (Incoming::None, Some((stream, give)))
    } else {
        (Incoming::Http2(Http2Body::request(stream, &parts.headers, &responder)), None)
    };
    spawn_local(serve(service(Request::from_parts(parts, body)), responder, leaves));
}

/// Serves one request.
async fn serve(
    service: impl Future<Output = Result<Response<ResponseBody>, Aborted>>,
    responder: Rc<Responder>,
    leaves: Option<Leaves>,
) {
    let mut service = pin!(service);
    let served = poll_fn(|cx| match service.as_mut().poll(cx) {
        Poll::Ready(served) => Poll::Ready(Some(served)),
        Poll::Pending => responder.poll_cancelled(cx).map(|()| None),
    });
    let response = match served.await {
        Some(Ok(response)) => response,
        Some(Err(Aborted)) => return responder.reset(),
        None => return,
    };
    let (mut parts, body) = response.into_parts();
    head::strip(&mut parts.headers, false);
    parts.headers.entry(DATE).or_insert_with(date::now);
    if let Some((receive, give)) = leaves
        && parts.status.is_success()
    {
        parts.headers.remove(CONTENT_LENGTH);
        if let Some(send) = responder.send(Response::from_parts(parts, ()), false) {
            // Unless nobody waits for it any more.
            let _ = give.send(Tunnel::new(receive, send));
        }
        return;
    }
    if body.is_end_stream() {
        responder.send(Response::from_parts(parts, ()), true);
        return;
    }
    head::tell_length(&mut parts.headers, body.size_hint().exact());
    let Some(stream) = responder.send(Response::from_parts(parts, ()), false) else { return };
    let mut sender = BodySender::new(body, stream);
    if let Err(BodySendError::Body(Aborted)) = poll_fn(|cx| sender.poll(cx)).await {
        sender.reset(Reason::INTERNAL_ERROR);
    }
}
