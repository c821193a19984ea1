//! Bodies on their way: the request's towards the upstream, the response's towards the client. Both are pulled by the side that
//! writes them, so back-pressure needs no code.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::active_stream::ActiveStream;
use super::codec::{self, Incoming, ReadError};
use super::error::Failure;
use super::filters::{BufferedBody, FilteredRequest, FilteredResponse, ResponseStage};
use super::router::{Copied, CopiedBody, ReplayedBody, UpstreamBody};

/// What the request's body has done so far; shared by the body (owned by the upstream connection) and its stream.
#[derive(Debug)]
pub(crate) struct RequestProgress {
    /// The engine calls it the end of an HTTP/2 body when the client resets the stream with NO_ERROR: half a request would look whole.
    may_be_cut: bool,
    /// Trailers end here.
    drops_trailers: bool,
    pub(crate) bytes: Cell<u64>,
    pub(crate) last_activity: Cell<Instant>,
    /// A connection took the request and asks for its body.
    pub(crate) asked: Cell<bool>,
    /// When the last byte had been received.
    pub(crate) complete: Cell<Option<Instant>>,
    /// Why the body could not be read: the client's doing, whatever the upstream's side makes of it.
    pub(crate) failed: Cell<Option<Failure>>,
}

/// The request's body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Incoming(Incoming, Rc<RequestProgress>),
    /// Received as a whole.
    Buffered(Box<BufferedBody>),
    /// Changed or counted by a filter.
    Filtered(Box<FilteredRequest>),
    /// Kept to be sent again.
    Replayed(Box<ReplayedBody>),
    /// Copied for mirrors.
    Copied(Box<Copied>),
    /// A mirror's copy.
    Copy(CopiedBody),
}

/// The request's body cannot be read to its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client's doing.
    Client(ReadError),
    /// The client has cancelled the stream.
    Cancelled,
    /// A filter cannot decode it.
    Malformed,
    /// Another attempt reads the body now, or a mirror was too slow for it.
    Superseded,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Client(error) => error.fmt(f),
            BodyError::Cancelled => f.write_str("the client has cancelled the request"),
            BodyError::Malformed => f.write_str("the body is not what its type says"),
            BodyError::Superseded => f.write_str("the body is read elsewhere"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BodyError::Client(error) => Some(error),
            BodyError::Cancelled | BodyError::Malformed | BodyError::Superseded => None,
        }
    }
}

impl RequestBody {
    /// The body and, unless it is empty, its progress. Its trailers go on when `with_trailers`.
    pub(crate) fn new(
        incoming: Incoming,
        version: Version,
        with_trailers: bool,
        now: Instant,
    ) -> (Self, Option<Rc<RequestProgress>>) {
        if incoming.is_end_stream() {
            return (RequestBody::Empty, None);
        }
        let progress = Rc::new(RequestProgress {
            may_be_cut: version == Version::HTTP_2,
            drops_trailers: !with_trailers,
            bytes: Cell::new(0),
            last_activity: Cell::new(now),
            asked: Cell::new(false),
            complete: Cell::new(None),
            failed: Cell::new(None),
        });
        (RequestBody::Incoming(incoming, progress.clone()), Some(progress))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (incoming, progress) = match self.get_mut() {
            RequestBody::Incoming(incoming, progress) => (incoming, progress),
            RequestBody::Empty => return Poll::Ready(None),
            RequestBody::Buffered(body) => return body.poll(),
            RequestBody::Filtered(body) => return body.poll(cx),
            RequestBody::Replayed(body) => return body.poll(cx),
            RequestBody::Copied(body) => return body.poll(cx),
            RequestBody::Copy(body) => return body.poll(cx),
        };
        progress.asked.set(true);
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if frame.is_none() && progress.may_be_cut && !incoming.is_end_stream() {
            progress.failed.set(Some(Failure::Downstream));
            return Poll::Ready(Some(Err(BodyError::Cancelled)));
        }
        if let Some(Err(error)) = &frame {
            progress.failed.set(Some(codec::request_failure(error)));
        }
        let now = Instant::now();
        progress.last_activity.set(now);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            progress.bytes.set(progress.bytes.get() + data.len() as u64);
        }
        // Who writes trailers asks for nothing after them.
        let trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        if (frame.is_none() || trailers || incoming.is_end_stream()) && progress.complete.get().is_none() {
            progress.complete.set(Some(now));
        }
        if trailers && progress.drops_trailers {
            return Poll::Ready(None);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Incoming(incoming, _) => incoming.is_end_stream(),
            RequestBody::Buffered(body) => body.is_end_stream(),
            RequestBody::Filtered(body) => body.is_end_stream(),
            RequestBody::Replayed(body) => body.is_end_stream(),
            RequestBody::Copied(body) => body.is_end_stream(),
            RequestBody::Copy(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // An exact zero would make the engine add a content-length to HTTP/2 requests.
            RequestBody::Empty => SizeHint::default(),
            RequestBody::Incoming(incoming, _) => incoming.size_hint(),
            RequestBody::Buffered(body) => body.size_hint(),
            RequestBody::Filtered(body) => body.size_hint(),
            RequestBody::Replayed(body) => body.size_hint(),
            RequestBody::Copied(body) => body.size_hint(),
            RequestBody::Copy(body) => body.size_hint(),
        }
    }
}

/// The response's body. It owns the stream: when the engine drops it, the stream has ended.
pub(crate) struct ResponseBody {
    source: Source,
    /// `None`: the stream goes on as another protocol, and this body has nothing.
    stream: Option<Box<ActiveStream>>,
}

/// Where a response's body comes from.
pub(crate) enum Source {
    /// The proxy made it.
    Local(Option<Bytes>),
    /// The upstream sends it.
    Upstream(UpstreamBody),
    /// A filter counts or changes it.
    Filtered(Box<FilteredResponse>),
}

/// The response cannot be finished: the engine resets the stream (HTTP/2) or closes the connection (HTTP/1).
#[derive(Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("response aborted")
    }
}

impl std::error::Error for Aborted {}

impl Source {
    /// The next part of the body.
    pub(crate) fn poll(
        &mut self,
        stream: &mut ActiveStream,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let body = match self {
            Source::Local(body) => return Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Source::Filtered(filtered) => return filtered.poll(stream, cx),
            Source::Upstream(body) => body,
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        match &frame {
            // The engine calls it the end, too, when an HTTP/2 upstream resets the stream with NO_ERROR. It may do that to a request which
            // it does not want to the end, with its response complete; else half a response would look whole.
            None if !body.is_end_stream()
                && stream.info.upstream_protocol == Some(Version::HTTP_2)
                && stream.has_sent_request() =>
            {
                return Poll::Ready(Some(Err(Failure::RemoteReset)));
            }
            None => stream.upstream_complete(),
            // The engine asks for nothing after trailers.
            Some(Ok(frame)) if frame.is_trailers() || body.is_end_stream() => stream.upstream_complete(),
            _ => {}
        }
        if matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) && !stream.takes_trailers() {
            return Poll::Ready(None);
        }
        let failure = |error| stream.request_failure().unwrap_or_else(|| codec::failure(&error));
        Poll::Ready(frame.map(|frame| frame.map_err(failure)))
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Source::Local(body) => body.is_none(),
            Source::Upstream(body) => body.is_end_stream(),
            Source::Filtered(filtered) => filtered.is_end_stream(),
        }
    }

    /// How much comes.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Source::Local(body) => SizeHint::with_exact(body.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Upstream(body) => body.size_hint(),
            Source::Filtered(filtered) => filtered.size_hint(),
        }
    }
}

impl ResponseBody {
    /// A body that the proxy made.
    pub(crate) fn local(body: Bytes, mut stream: Box<ActiveStream>) -> Self {
        stream.complete = body.is_empty();
        Self { source: Source::Local(Some(body).filter(|b| !b.is_empty())), stream: Some(stream) }
    }

    /// A body of the upstream that is here to its end.
    pub(crate) fn whole(body: Bytes, mut stream: Box<ActiveStream>) -> Self {
        stream.upstream_complete();
        Self::local(body, stream)
    }

    /// The upstream's body.
    pub(crate) fn upstream(body: UpstreamBody, mut stream: Box<ActiveStream>) -> Self {
        if body.is_end_stream() {
            stream.upstream_complete();
            stream.complete = true;
        }
        Self { source: Source::Upstream(body), stream: Some(stream) }
    }

    /// No body, of a stream that goes on without it.
    pub(crate) fn none() -> Self {
        Self { source: Source::Local(None), stream: None }
    }

    /// The same through these stages, the first one first.
    pub(crate) fn through(mut self, stages: Vec<ResponseStage>) -> Self {
        let source = std::mem::replace(&mut self.source, Source::Local(None));
        self.source = stages.into_iter().fold(source, FilteredResponse::wrap);
        if let (true, Some(stream)) = (self.source.is_end_stream(), &mut self.stream) {
            stream.complete = true;
        }
        self
    }
}

fn abort(stream: &mut ActiveStream, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
    stream.fail_after_response(failure);
    Poll::Ready(Some(Err(Aborted)))
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        match this.source.poll(stream, cx) {
            Poll::Pending => match stream.poll_deadline(cx) {
                Some(failure) => abort(stream, failure),
                None => Poll::Pending,
            },
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    stream.info.bytes_sent += data.len() as u64;
                    stream.note_body();
                }
                if let Some(trailers) = frame.trailers_ref() {
                    stream.capture_trailers(trailers);
                }
                // The engine asks for nothing after trailers.
                if frame.is_trailers() || this.source.is_end_stream() {
                    stream.complete = true;
                } else {
                    stream.touch();
                }
                if frame.is_trailers() && !stream.sends_trailers() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                stream.complete = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(failure))) => abort(stream, failure),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl Drop for ResponseBody {
    /// The engine asks for nothing behind the last byte of a body whose length it knows: neither for its end nor for its trailers.
    fn drop(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let is_local = matches!(self.source, Source::Local(_));
        if is_local || stream.complete || self.source.size_hint().exact() != Some(0) {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        match self.source.poll(stream, &mut cx) {
            Poll::Ready(Some(Err(_))) => return,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    stream.capture_trailers(trailers);
                }
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        stream.upstream_complete();
        stream.complete = true;
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.stream.as_ref().map(|stream| stream.info.flags);
        f.debug_struct("ResponseBody").field("flags", &flags).finish_non_exhaustive()
    }
}
