//! Heads that have begun and do not end: for how long they are waited for, and how their clients are told.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::time::{Sleep, sleep};

use super::http1::answer_last;
use super::http2::LateStream;
use super::io::Io;
use crate::http::LiveConnectionManager;
use crate::http::downstream::DownstreamConnection;
use crate::http::error::Failure;

/// How long a head may take from its first byte, and what it means when it does not come: the first of `request_headers_timeout`,
/// `stream_idle_timeout`, `request_timeout` and `max_stream_duration`, as in Envoy.
pub(super) fn limit(live: &LiveConnectionManager) -> Option<(Duration, Failure)> {
    let limits = live.get();
    let limits = &limits.limits;
    let all = [
        (live.connection.request_headers_timeout, Failure::HeaderTimeout),
        (limits.stream_idle_timeout, Failure::StreamIdle),
        (limits.request_timeout, Failure::RequestTimeout),
        (limits.max_stream_duration, Failure::MaxDuration),
    ];
    all.into_iter().filter_map(|(limit, failure)| Some((limit?, failure))).min_by_key(|(limit, _)| *limit)
}

/// Watches the heads of one connection.
#[derive(Debug, Default)]
pub(super) struct HeadWatch(Option<Watched>);

#[derive(Debug)]
struct Watched {
    /// The head's number on its connection.
    head: u64,
    timer: Pin<Box<Sleep>>,
    failure: Failure,
}

impl HeadWatch {
    /// To be called when all that is here was read, with the number of the head that has begun. Ready when that is late.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        head: Option<u64>,
        downstream: &DownstreamConnection,
    ) -> Poll<Failure> {
        let Some(head) = head else {
            self.0 = None;
            return Poll::Pending;
        };
        if self.0.as_ref().is_none_or(|watched| watched.head != head) {
            // It is not idle any more: its next request is on its way.
            downstream.handle.touch();
            let limit = limit(&downstream.live);
            self.0 = limit.map(|(limit, failure)| Watched { head, timer: Box::pin(sleep(limit)), failure });
        }
        let Some(watched) = &mut self.0 else { return Poll::Pending };
        watched.timer.as_mut().poll(cx).map(|()| watched.failure)
    }

    /// A head that is late is looked at again then.
    pub(super) fn again_in(&mut self, cx: &mut Context<'_>, pause: Duration) {
        if let Some(watched) = &mut self.0 {
            watched.timer = Box::pin(sleep(pause));
            let _ = watched.timer.as_mut().poll(cx);
        }
    }
}

/// A head that did not come in time.
#[derive(Debug)]
pub(crate) struct LateHead {
    /// What it means.
    pub(crate) failure: Failure,
    /// Whom to tell; `None`: it can't be told.
    pub(super) client: Option<LateClient>,
}

#[derive(Debug)]
pub(super) enum LateClient {
    Http1(Io),
    Http2(Box<LateStream>),
}

impl LateHead {
    /// Says so, and that nothing more will be said.
    pub(crate) async fn answer(self, response: Response<Bytes>, downstream: &DownstreamConnection) {
        match self.client {
            Some(LateClient::Http1(io)) => answer_last(io, response, downstream).await,
            Some(LateClient::Http2(stream)) => stream.answer(response, downstream).await,
            None => {}
        }
    }
}
