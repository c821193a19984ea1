//! What filters do to bodies on their way. Only streams whose filters ask for it have any of this: a request's body is wrapped
//! by the filter, a response's by the stages that the filters leave behind, the last filter's first.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::grpc_stats::{RequestCount, ResponseCount};
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
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.stage {
            RequestStage::Count(_) => self.body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.stage {
            RequestStage::Count(_) => self.body.size_hint(),
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
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.stage {
            ResponseStage::Count(_) => self.source.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.stage {
            ResponseStage::Count(_) => self.source.size_hint(),
        }
    }
}
