//! Copying bytes both ways between two connected streams until both directions have ended.
//!
//! Each direction is a small state machine polled by one task, so back-pressure is by construction: nothing is read while
//! something is left to write. A direction begins with reads and writes through a buffer, which it holds only while bytes are
//! under way; when both ends are plain TCP and the transfer is bulk, the kernel moves the bytes instead (`splice`).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::buffered::{Buffered, Progress};
use super::splice::Splice;
use crate::net::Stream;

/// Bytes that have been handed to the socket of the other side, so far.
#[derive(Debug, Default)]
pub struct ByteCounts {
    /// From downstream to upstream.
    pub to_upstream: Cell<u64>,
    /// From upstream to downstream.
    pub to_downstream: Cell<u64>,
}

impl ByteCounts {
    fn total(&self) -> u64 {
        self.to_upstream.get() + self.to_downstream.get()
    }
}

/// When copying is given up.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyLimits {
    /// After so long without a byte in either direction.
    pub idle: Option<Duration>,
    /// At this moment.
    pub deadline: Option<Instant>,
}

/// How copying ended.
#[derive(Debug)]
pub enum CopyEnd {
    /// Both sides ended and everything was delivered.
    Finished,
    /// [`CopyLimits::idle`] passed.
    Idle,
    /// [`CopyLimits::deadline`] passed.
    TooLong,
    /// The downstream connection broke.
    Downstream(io::Error),
    /// The upstream connection broke.
    Upstream(io::Error),
}

/// A direction that has moved so many bytes in one go lets the worker's other connections run.
pub(super) const FAIR_BYTES: u64 = 1 << 20;

/// The side of a direction that broke.
#[derive(Debug)]
pub(super) enum Broken {
    Source(io::Error),
    Destination(io::Error),
}

/// Copies until both directions have ended: the end of one is passed on while the other goes on. `report` is called now and then
/// while bytes are moved, so that statistics of a connection that lasts do not wait for its end.
pub async fn copy_bidirectional(
    downstream: &mut Stream,
    upstream: &mut Stream,
    bytes: &ByteCounts,
    limits: CopyLimits,
    report: impl Fn(),
) -> CopyEnd {
    let plain = matches!((&*downstream, &*upstream), (Stream::Tcp(_), Stream::Tcp(_)));
    let direction = || Direction::Buffered(Buffered::new(plain));
    let (mut forth, mut back) = (direction(), direction());
    let mut idle = limits.idle.map(|limit| Idle::new(limit, bytes));
    let mut reports = Reports { seen: bytes.total(), sleep: None };
    let mut deadline = limits.deadline.map(|at| Box::pin(sleep_until(at)));
    poll_fn(|cx| {
        let to_upstream = match forth.poll(cx, downstream, upstream, &bytes.to_upstream) {
            Poll::Ready(Err(Broken::Source(e))) => return Poll::Ready(CopyEnd::Downstream(e)),
            Poll::Ready(Err(Broken::Destination(e))) => return Poll::Ready(CopyEnd::Upstream(e)),
            other => other.is_ready(),
        };
        let to_downstream = match back.poll(cx, upstream, downstream, &bytes.to_downstream) {
            Poll::Ready(Err(Broken::Source(e))) => return Poll::Ready(CopyEnd::Upstream(e)),
            Poll::Ready(Err(Broken::Destination(e))) => return Poll::Ready(CopyEnd::Downstream(e)),
            other => other.is_ready(),
        };
        if to_upstream && to_downstream {
            return Poll::Ready(CopyEnd::Finished);
        }
        if reports.poll(cx, bytes) {
            report();
        }
        if deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(CopyEnd::TooLong);
        }
        if idle.as_mut().is_some_and(|idle| idle.poll(cx, bytes)) {
            return Poll::Ready(CopyEnd::Idle);
        }
        Poll::Pending
    })
    .await
}

/// The idle timer. It is not moved by traffic: when it fires it looks whether there was any.
struct Idle {
    limit: Duration,
    sleep: std::pin::Pin<Box<Sleep>>,
    seen: u64,
    last_active: Instant,
}

impl Idle {
    fn new(limit: Duration, bytes: &ByteCounts) -> Self {
        let now = Instant::now();
        Self { limit, sleep: Box::pin(sleep_until(now + limit)), seen: bytes.total(), last_active: now }
    }

    fn poll(&mut self, cx: &mut Context<'_>, bytes: &ByteCounts) -> bool {
        if bytes.total() != self.seen {
            self.seen = bytes.total();
            self.last_active = Instant::now();
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let end = self.last_active + self.limit;
            if Instant::now() >= end {
                return true;
            }
            self.sleep.as_mut().reset(end);
        }
        false
    }
}

/// How long bytes may go unreported: Istio's `tcp_reporting_duration`.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// When to report bytes. A connection that is quiet has no timer.
struct Reports {
    seen: u64,
    sleep: Option<std::pin::Pin<Box<Sleep>>>,
}

impl Reports {
    fn poll(&mut self, cx: &mut Context<'_>, bytes: &ByteCounts) -> bool {
        if self.sleep.is_none() && bytes.total() == self.seen {
            return false;
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + REPORT_AFTER)));
        let is_due = sleep.as_mut().poll(cx).is_ready();
        if is_due {
            self.seen = bytes.total();
            self.sleep = None;
        }
        is_due
    }
}

/// One direction.
enum Direction {
    Buffered(Buffered),
    Splice(Splice),
    Ended,
}

impl Direction {
    /// Ready when the source has ended and the destination knows it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        destination: &mut Stream,
        moved: &Cell<u64>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let progress = match (&mut *self, &mut *source, &mut *destination) {
                (Self::Ended, ..) => return Poll::Ready(Ok(())),
                (Self::Buffered(buffered), from, to) => buffered.poll(cx, from, to, moved),
                (Self::Splice(splice), Stream::Tcp(from), Stream::Tcp(to)) => {
                    splice.poll(cx, from, to, moved)
                }
                (Self::Splice(_), ..) => Poll::Ready(Ok(Progress::Unsupported)),
            };
            *self = match ready!(progress)? {
                Progress::Ended => Self::Ended,
                Progress::Chatty => Self::Buffered(Buffered::new(true)),
                Progress::Unsupported => Self::Buffered(Buffered::new(false)),
                Progress::Bulk => match Splice::new() {
                    Some(splice) => Self::Splice(splice),
                    None => Self::Buffered(Buffered::new(false)),
                },
            };
        }
    }
}

#[cfg(test)]
mod tests;
