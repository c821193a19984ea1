//! A request's body that is kept while it is sent, so that it can be sent again.
//!
//! The body is read once. What was read is kept up to a limit; beyond it nothing is kept any more and the request cannot be sent
//! again: retries are abandoned, whether one would be wanted or not. Each attempt reads from the beginning; only the present one reads: an earlier attempt, whose connection has not ended yet,
//! is told so.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use http_body::{Body, Frame, SizeHint};

use crate::http::body::{BodyError, RequestBody};
use crate::stats::ClusterStats;

/// The kept body.
#[derive(Debug, Clone)]
pub(super) struct Replay(Rc<RefCell<Kept>>);

#[derive(Debug)]
struct Kept {
    source: RequestBody,
    /// The body's length, if it is known.
    length: Option<u64>,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: u64,
    /// `None`: nobody wants it again.
    limit: Option<u64>,
    /// Who hears of a body beyond the limit.
    stats: Option<Arc<ClusterStats>>,
    ended: bool,
    overflowed: bool,
    attempt: u32,
}

/// A request as it went upstream, which may be sent elsewhere.
#[derive(Debug)]
pub(crate) struct SentRequest {
    pub(super) head: Parts,
    pub(super) body: Replay,
}

/// The body as one attempt sends it.
#[derive(Debug)]
pub(crate) struct ReplayedBody {
    kept: Rc<RefCell<Kept>>,
    attempt: u32,
    /// Frames and bytes that this attempt has read.
    frames: usize,
    bytes: u64,
    trailers: bool,
}

impl Replay {
    /// Keeps a body up to so many bytes; `None`: nothing of it. `stats` count one that has more.
    pub(super) fn new(source: RequestBody, limit: Option<u64>, stats: Option<Arc<ClusterStats>>) -> Self {
        Self(Rc::new(RefCell::new(Kept {
            length: source.size_hint().exact(),
            ended: source.is_end_stream(),
            source,
            frames: Vec::new(),
            trailers: None,
            bytes: 0,
            limit,
            stats,
            overflowed: false,
            attempt: 0,
        })))
    }

    /// The body for a new attempt.
    pub(super) fn attempt(&self) -> RequestBody {
        let mut kept = self.0.borrow_mut();
        kept.attempt += 1;
        if matches!(kept.source, RequestBody::Empty) {
            return RequestBody::Empty;
        }
        let attempt = kept.attempt;
        let kept = self.0.clone();
        RequestBody::Replayed(Box::new(ReplayedBody { kept, attempt, frames: 0, bytes: 0, trailers: false }))
    }

    /// Keeps nothing more of it: the present attempt is the last.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().limit = None;
    }

    /// Whether it can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        !self.0.borrow().overflowed
    }
}

impl SentRequest {
    /// Whether all of it has been received and kept.
    pub(crate) fn is_whole(&self) -> bool {
        let kept = self.body.0.borrow();
        kept.ended && !kept.overflowed
    }

    /// The same again. `as_get`: as a GET without a body, unless it asks for a head (RFC 9110 section 15.4.4).
    pub(crate) fn again(self, as_get: bool) -> Request<RequestBody> {
        if !as_get || matches!(self.head.method, Method::GET | Method::HEAD) {
            return Request::from_parts(self.head, self.body.attempt());
        }
        let mut request = Request::from_parts(self.head, RequestBody::Empty);
        *request.method_mut() = Method::GET;
        request.headers_mut().remove(CONTENT_LENGTH);
        request
    }
}

impl Kept {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => frame,
        };
        self.ended = self.source.is_end_stream() || frame.is_trailers();
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        } else if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
            let overflows = !self.overflowed && self.limit.is_none_or(|limit| self.bytes > limit);
            if let (true, Some(_), Some(stats)) = (overflows, self.limit, &self.stats) {
                stats.retry_or_shadow_abandoned.inc();
            }
            self.overflowed |= overflows;
            if self.overflowed {
                self.frames = Vec::new();
            } else {
                self.frames.push(data.clone());
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl ReplayedBody {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let kept = &mut *self.kept.borrow_mut();
        if self.attempt != kept.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        let frame = match kept.frames.get(self.frames) {
            Some(data) => Frame::data(data.clone()),
            None if kept.ended && !self.trailers => match &kept.trailers {
                Some(trailers) => Frame::trailers(trailers.clone()),
                None => return Poll::Ready(None),
            },
            None if kept.ended => return Poll::Ready(None),
            None => match ready!(kept.poll(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            },
        };
        self.frames += usize::from(frame.is_data());
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        self.trailers |= frame.is_trailers();
        Poll::Ready(Some(Ok(frame)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        let more = self.frames < kept.frames.len() || (kept.trailers.is_some() && !self.trailers);
        kept.ended && !more
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.kept.borrow().length {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.bytes)),
            None => SizeHint::default(),
        }
    }
}
