//! `envoy.filters.http.buffer`: the whole request is received before any of it goes on.

use std::collections::VecDeque;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{Decision, FilterReply, Override, Wait};
use crate::http::body::{BodyError, RequestBody};
use crate::stream_info::{ResponseFlags, details};

/// `envoy.extensions.filters.http.buffer.v3.Buffer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// `max_request_bytes`: a request with more is refused.
    pub max_bytes: u32,
}

/// A body that has been received.
#[derive(Debug, Default)]
pub(crate) struct BufferedBody {
    frames: VecDeque<Bytes>,
    left: u64,
    trailers: Option<HeaderMap>,
    failed: Option<BodyError>,
}

pub(super) fn on_request(own: &Buffer, said: Option<&Override>, request: &Request<RequestBody>) -> Decision {
    if request.body().is_end_stream() {
        return Decision::Continue;
    }
    Decision::Wait(Wait::Body(match said {
        Some(Override::Buffer(buffer)) => *buffer,
        _ => *own,
    }))
}

/// Receives the body, and puts it back whole.
pub(super) async fn fill(buffer: Buffer, request: &mut Request<RequestBody>) -> Option<FilterReply> {
    let mut body = BufferedBody::default();
    while let Some(frame) = request.body_mut().frame().await {
        match frame {
            Err(error) => {
                body.failed = Some(error);
                break;
            }
            Ok(frame) => match frame.into_data() {
                Ok(data) => {
                    body.left += data.len() as u64;
                    body.frames.push_back(data);
                }
                Err(frame) => body.trailers = frame.into_trailers().ok(),
            },
        }
        if body.left > buffer.max_bytes.into() {
            return Some(FilterReply {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                grpc_status: None,
                body: Bytes::from_static(b"Payload Too Large"),
                headers: HeaderMap::new(),
                takes_route_headers: true,
                flag: ResponseFlags::NONE,
                details: details::REQUEST_TOO_LARGE,
            });
        }
    }
    // Its length is known now.
    if body.trailers.is_none() && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().remove(TRANSFER_ENCODING);
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.left));
    }
    *request.body_mut() = RequestBody::Buffered(Box::new(body));
    None
}

impl BufferedBody {
    pub(crate) fn poll(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.frames.pop_front() {
            self.left -= data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.trailers.is_none() && self.failed.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.failed.is_none() && self.trailers.is_none() {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}
