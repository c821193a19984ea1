//! The deadlines of one stream, watched with one timer.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::active_stream::ActiveStream;
use super::body::RequestProgress;
use super::error::Failure;
use crate::worker::{Timer, Worker};

/// What a request may take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadlines {
    /// From the request's start until its last byte was received.
    pub(crate) request: Option<Duration>,
    /// From the request's last byte until the response's last byte.
    pub(crate) response: Option<Duration>,
    /// Without any progress.
    pub(crate) idle: Option<Duration>,
    /// From first to last byte.
    pub(crate) max_duration: Option<Duration>,
}

/// Watches the deadlines of one stream with one timer.
#[derive(Debug)]
pub(crate) struct DeadlineWatch {
    pub(super) deadlines: Deadlines,
    start: Instant,
    /// The response's deadline is not counted from before then.
    pub(super) response_from: Instant,
    progress: Option<Rc<RequestProgress>>,
    /// The last time something moved on the response's side.
    pub(super) last_activity: Instant,
    /// When the upstream must be done.
    upstream_until: Option<Instant>,
    worker: Rc<Worker>,
    timer: Option<Timer>,
}

impl DeadlineWatch {
    /// Watches from `start` on.
    pub(crate) fn new(stream: &ActiveStream, deadlines: Deadlines, start: Instant) -> Self {
        Self {
            deadlines,
            start,
            response_from: start,
            progress: stream.progress.clone(),
            last_activity: start,
            upstream_until: None,
            worker: stream.connection.worker.clone(),
            timer: None,
        }
    }

    /// Runs `work` until it is done or a deadline has passed.
    pub(crate) async fn run<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll(cx).map_or(Poll::Pending, |failure| Poll::Ready(Err(failure))),
        })
        .await
    }

    /// The timer is armed for the earliest deadline that could come true, and what it means is found out when it fires: progress
    /// only ever moves deadlines away, so nothing has to be re-armed on the way.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Failure> {
        loop {
            if self.timer.is_none() {
                let (at, _) = self.next()?;
                self.timer = Some(self.worker.timers.start(at));
            }
            if !self.timer.as_mut().is_some_and(|t| t.poll(cx)) {
                return None;
            }
            self.timer = None;
            let (at, failure) = self.next()?;
            if at <= Instant::now() {
                return Some(failure);
            }
        }
    }

    /// From here on the upstream must be done at this moment.
    pub(crate) fn end_upstream_at(&mut self, at: Instant) {
        self.upstream_until = Some(at);
        // It may be before what the timer is armed for.
        self.timer = None;
    }

    fn next(&self) -> Option<(Instant, Failure)> {
        let Deadlines { request, response, idle, max_duration } = self.deadlines;
        let (request_complete, last_activity) = match &self.progress {
            None => (Some(self.start), self.last_activity),
            // Nobody reads the body while the request waits for a connection: that wait counts from the start.
            Some(p) if !p.asked.get() => (Some(self.start), self.last_activity),
            Some(p) => (p.complete.get(), self.last_activity.max(p.last_activity.get())),
        };
        // While the request is still arriving, its response deadline is at the earliest one timeout away.
        let response = response.map(|t| {
            (request_complete.unwrap_or_else(Instant::now).max(self.response_from) + t, Failure::Timeout)
        });
        let arriving = self.progress.as_ref().is_some_and(|p| p.complete.get().is_none());
        let request = request.filter(|_| arriving).map(|t| (self.start + t, Failure::RequestTimeout));
        let idle = idle.map(|t| (last_activity + t, Failure::StreamIdle));
        let max_duration = max_duration.map(|t| (self.start + t, Failure::MaxDuration));
        let upstream = self.upstream_until.map(|at| (at, Failure::UpstreamMaxDuration));
        [request, response, idle, max_duration, upstream].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}
