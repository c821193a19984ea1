//! The first frame of a response's body, read before its head goes to the client: while nothing of the response has gone there, a gRPC
//! status in its trailers is as good as one in its head.
//!
//! Only responses of gRPC are held back, only where a retry is wanted for one of its statuses, and not for longer than
//! [`LONGEST_WAIT`]: a server that sends its metadata early and then waits for its client must not wait in vain.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::http::codec::{Incoming, ReadError};
use crate::http::headers::GRPC_STATUS;
use crate::route::is_grpc;
use crate::worker::Worker;

/// How long a response is held back: what a first retry waits by default. A server that has failed sends head and trailers together.
const LONGEST_WAIT: Duration = Duration::from_millis(25);

/// The body of an upstream's response.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    /// What was read of it already.
    first: Option<Box<First>>,
    rest: Incoming,
}

type First = Result<Frame<Bytes>, ReadError>;

impl From<Incoming> for UpstreamBody {
    fn from(rest: Incoming) -> Self {
        Self { first: None, rest }
    }
}

impl UpstreamBody {
    /// The trailers, if nothing comes before them and they are here.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        match self.first.as_deref()? {
            Ok(frame) => frame.trailers_ref(),
            Err(_) => None,
        }
    }
}

/// Waits for the first frame, for a while.
pub(super) async fn read(worker: &Worker, response: &mut Response<UpstreamBody>) {
    let (is_of_grpc, has_status) =
        (is_grpc(response.headers()), response.headers().contains_key(GRPC_STATUS));
    if response.status() != StatusCode::OK || !is_of_grpc || has_status {
        return;
    }
    let body = response.body_mut();
    let mut timer = None;
    let first = poll_fn(|cx| match Pin::new(&mut body.rest).poll_frame(cx) {
        Poll::Ready(first) => Poll::Ready(first),
        Poll::Pending => {
            let timer = timer.get_or_insert_with(|| worker.timers.start(Instant::now() + LONGEST_WAIT));
            if timer.poll(cx) { Poll::Ready(None) } else { Poll::Pending }
        }
    });
    body.first = first.await.map(Box::new);
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<First>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(*first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        if let Some(Ok(frame)) = self.first.as_deref()
            && let Some(data) = frame.data_ref()
        {
            let more = data.len() as u64;
            match hint.exact() {
                Some(rest) => hint.set_exact(rest + more),
                None => hint.set_lower(hint.lower() + more),
            }
        }
        hint
    }
}
