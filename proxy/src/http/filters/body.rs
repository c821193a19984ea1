//! What filters do to bodies on their way. Only streams whose filters ask for it have any of this: a request's body is wrapped
//! by the filter, a response's by the stages that the filters leave behind, the last filter's first.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::grpc_stats::{RequestCount, ResponseCount};
use super::grpc_web::{Decode, Encode};
use super::pace::Pace;
use crate::http::active_stream::ActiveStream;
use crate::http::body::{BodyError, RequestBody, Source};
use crate::http::error::Failure;

/// A request's body that goes through a filter.
#[derive(Debug)]
pub(crate) struct FilteredRequest {
    body: RequestBody,
    stage: RequestStage,
}

/// What is done to it.
#[derive(Debug)]
pub(super) enum RequestStage {
    /// Messages are counted.
    Count(RequestCount),
    /// It is base64.
    Decode(Decode),
    /// Nothing; its length is not told.
    WithoutLength,
}

impl FilteredRequest {
    /// Puts the stage around the body.
    pub(super) fn wrap(body: &mut RequestBody, stage: RequestStage) {
        let inner = std::mem::replace(body, RequestBody::Empty);
        *body = RequestBody::Filtered(Box::new(Self { body: inner, stage }));
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.stage {
            RequestStage::Count(count) => {
                let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
                if let Some(Ok(frame)) = &frame {
                    count.see(frame);
                }
                Poll::Ready(frame)
            }
            RequestStage::Decode(decode) => loop {
                let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
                let is_over = frame.is_none();
                let data = match frame {
                    None => Bytes::new(),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => data,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                };
                let ends = is_over || self.body.is_end_stream();
                match decode.push(&data, ends) {
                    None => return Poll::Ready(Some(Err(BodyError::Malformed))),
                    Some(decoded) if !decoded.is_empty() => {
                        return Poll::Ready(Some(Ok(Frame::data(decoded))));
                    }
                    Some(_) if ends => return Poll::Ready(None),
                    Some(_) => {}
                }
            },
            RequestStage::WithoutLength => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.stage {
            RequestStage::Count(_) => self.body.size_hint(),
            RequestStage::Decode(_) | RequestStage::WithoutLength => SizeHint::default(),
        }
    }
}

/// A response's body that goes through a filter.
pub(crate) struct FilteredResponse {
    source: Source,
    stage: ResponseStage,
}

/// What is done to it.
#[derive(Debug)]
pub(crate) enum ResponseStage {
    /// Messages and outcomes are counted.
    Count(ResponseCount),
    /// It becomes gRPC-Web.
    Web(Encode),
    /// It goes no faster than a rate.
    Pace(Pace),
    /// It is dropped.
    Nothing,
}

impl FilteredResponse {
    /// Puts the stage around the source.
    pub(crate) fn wrap(source: Source, stage: ResponseStage) -> Source {
        Source::Filtered(Box::new(Self { source, stage }))
    }

    pub(crate) fn poll(
        &mut self,
        stream: &mut ActiveStream,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.stage {
            ResponseStage::Count(count) => {
                let frame = ready!(self.source.poll(stream, cx));
                if let Some(Ok(frame)) = &frame {
                    count.see(frame, stream);
                }
                Poll::Ready(frame)
            }
            ResponseStage::Web(encode) => loop {
                if encode.has_ended() {
                    return Poll::Ready(None);
                }
                let encoded = match ready!(self.source.poll(stream, cx)) {
                    Some(Ok(frame)) => encode.push(frame),
                    end => return Poll::Ready(end),
                };
                if let Some(frame) = encoded {
                    return Poll::Ready(Some(Ok(frame)));
                }
            },
            ResponseStage::Pace(pace) => pace.poll(&mut self.source, stream, cx),
            ResponseStage::Nothing => Poll::Ready(None),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.stage {
            ResponseStage::Count(_) => self.source.is_end_stream(),
            ResponseStage::Web(encode) => encode.has_ended() || self.source.is_end_stream(),
            ResponseStage::Pace(pace) => pace.is_end_stream(),
            ResponseStage::Nothing => true,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.stage {
            ResponseStage::Count(_) => self.source.size_hint(),
            ResponseStage::Web(_) => SizeHint::default(),
            ResponseStage::Pace(pace) => match self.source.size_hint().exact() {
                Some(length) => SizeHint::with_exact(length + pace.queued()),
                None => SizeHint::default(),
            },
            ResponseStage::Nothing => SizeHint::with_exact(0),
        }
    }
}
