//! The body of a message that a peer sends on an HTTP/2 stream.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::header::EXPECT;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::head;
use super::responder::Responder;
use crate::http::codec::ReadError;
use crate::http::codec::interim::Interim;

/// What was taken from here is what the peer may send more.
#[derive(Debug)]
pub(crate) struct Http2Body {
    stream: RecvStream,
    /// How much comes, if that is known.
    left: Option<u64>,
    /// Only trailers may come.
    has_data: bool,
    /// Of a request: its answer.
    responder: Option<Rc<Responder>>,
    /// The client waits to be asked for it (RFC 9110 section 10.1.1).
    is_awaited: bool,
}

impl Http2Body {
    /// Of a request.
    pub(super) fn request(stream: RecvStream, headers: &HeaderMap, responder: &Rc<Responder>) -> Self {
        let expects = |expect: &http::HeaderValue| expect.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let is_awaited = !stream.is_end_stream() && headers.get(EXPECT).is_some_and(expects);
        Self { responder: Some(responder.clone()), is_awaited, ..Self::response(stream, headers) }
    }

    /// Of a response.
    pub(super) fn response(stream: RecvStream, headers: &HeaderMap) -> Self {
        let left = if stream.is_end_stream() { None } else { head::content_length(headers) };
        Self { stream, left, has_data: true, responder: None, is_awaited: false }
    }

    /// The upstream asks for the body, not we. `None`: it is no request's.
    pub(in crate::http::codec) fn leave_to_upstream(&mut self) -> Option<Interim> {
        self.is_awaited = false;
        self.responder.clone().map(Interim::http2)
    }

    /// The stream itself.
    pub(super) fn into_stream(self) -> RecvStream {
        self.stream
    }
}

/// A peer that ends a stream with NO_ERROR ends the body with it: whether that was half of it, its reader finds out by `is_end_stream`.
fn failed(error: h2::Error) -> Option<Result<Frame<Bytes>, ReadError>> {
    match error.reason() {
        Some(Reason::NO_ERROR) => None,
        _ => Some(Err(ReadError::Http2(error))),
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.is_awaited)
            && let Some(responder) = &this.responder
        {
            // An answer that has begun says as much.
            let _ = responder.tell(StatusCode::CONTINUE, HeaderMap::new());
        }
        if this.has_data {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails for a stream that has ended, where nothing more is granted.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    if let Some(left) = &mut this.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(failed(error)),
                None => this.has_data = false,
            }
        }
        Poll::Ready(match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => failed(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
