//! How a sidecar ends: so that neither its callers nor its application notice. One deadline for all of it, the pod's grace period.
//!
//! It begins with `/drain` (the pod's preStop hook) or with `SIGTERM`, whichever is first. From then on the sidecar is not ready.
//! Inbound, every connection ends at its next request boundary. New ones are accepted for a while, until callers know that this
//! endpoint is gone, and drain at once; then inbound listeners close. Outbound, nothing changes: the application may still be
//! working. The process ends after `SIGTERM`, when no connection is left in either direction: then the application's sockets are
//! gone. Or at the deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Server, shutdown};
use crate::worker::Command;

/// How often the drain looks around.
const TICK: Duration = Duration::from_millis(100);

/// `Options::sidecar_drain`: the process ends as a sidecar has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarDrain {
    /// How long inbound connections are still accepted once the drain has begun; never more than half of the drain time.
    pub minimum: Duration,
}

/// A drain that has begun.
#[derive(Debug)]
pub(super) struct Ending {
    drain_time: Duration,
    accepts_until: Instant,
    deadline: Instant,
    terminating: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// New inbound connections are accepted, and drain.
    Accepting,
    /// No more inbound connections.
    Closed,
    /// Nobody is left.
    Drained,
    /// The deadline has come.
    Late,
}

impl Ending {
    pub(super) fn begin(settings: SidecarDrain, drain_time: Duration, now: Instant) -> Self {
        let accepting = settings.minimum.min(drain_time / 2);
        Self { drain_time, accepts_until: now + accepting, deadline: now + drain_time, terminating: false }
    }

    /// `SIGTERM`. The grace period runs since the drain began, unless that was long ago and for another reason.
    pub(super) fn terminate(&mut self, now: Instant) {
        if !self.terminating && self.deadline <= now {
            self.deadline = now + self.drain_time;
        }
        self.terminating = true;
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.terminating
    }

    pub(super) fn phase(&self, now: Instant, connections: usize) -> Phase {
        if self.terminating && now >= self.deadline {
            Phase::Late
        } else if now < self.accepts_until {
            Phase::Accepting
        } else if self.terminating && connections == 0 {
            Phase::Drained
        } else {
            Phase::Closed
        }
    }
}

/// Ends at the next look around; never, while nothing drains.
pub(super) async fn tick(ending: Option<&Ending>) {
    match ending {
        Some(_) => sleep(TICK).await,
        None => std::future::pending().await,
    }
}

impl Server {
    /// The beginning of a drain.
    pub(super) fn begin_ending(&self, settings: SidecarDrain) -> Ending {
        self.set_draining();
        tracing::info!(
            target: "main",
            "draining {} connections, for {:?} at the longest", self.active_connections(), self.drain_time
        );
        self.drain_inbound();
        Ending::begin(settings, self.drain_time, Instant::now())
    }

    /// Looks around; whether the process is to end.
    pub(super) fn is_ended(&self, ending: &Ending) -> bool {
        let connections = self.active_connections();
        match ending.phase(Instant::now(), connections) {
            Phase::Accepting => {
                self.drain_inbound();
                false
            }
            Phase::Closed => {
                self.close_inbound();
                self.drain_inbound();
                false
            }
            Phase::Drained => {
                tracing::info!(target: "main", "drained");
                true
            }
            Phase::Late => {
                shutdown::warn_late(connections);
                true
            }
        }
    }

    /// Also those that came since the last time.
    fn drain_inbound(&self) {
        let chains = self.view.chain_ids(true);
        self.tell_all(|| Command::DrainChains { gone: chains.clone() });
    }

    /// Also listeners that an update has opened again.
    fn close_inbound(&self) {
        let names = self.view.open_listener_names(true);
        for name in &names {
            self.tell_all(|| Command::StopListening { name: name.clone() });
        }
        if !names.is_empty() {
            self.view.configuration().update(|c| c.close_sockets(&names));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const MINIMUM: SidecarDrain = SidecarDrain { minimum: Duration::from_secs(5) };
    const DRAIN_TIME: Duration = Duration::from_secs(25);

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_is_left_but_not_before_callers_know() {
        let begin = Instant::now();
        let mut ending = Ending::begin(MINIMUM, DRAIN_TIME, begin);
        ending.terminate(begin);
        assert_eq!(ending.phase(begin, 0), Phase::Accepting);
        assert_eq!(ending.phase(begin + after(4), 0), Phase::Accepting);
        assert_eq!(ending.phase(begin + after(5), 1), Phase::Closed);
        assert_eq!(ending.phase(begin + after(5), 0), Phase::Drained);
        assert_eq!(ending.phase(begin + after(24), 1), Phase::Closed);
        assert_eq!(ending.phase(begin + after(25), 1), Phase::Late);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_alone_ends_nothing_and_counts_for_the_deadline() {
        let begin = Instant::now();
        let mut ending = Ending::begin(MINIMUM, DRAIN_TIME, begin);
        assert_eq!(ending.phase(begin + after(6), 0), Phase::Closed);
        assert_eq!(ending.phase(begin + after(600), 7), Phase::Closed);
        // The kubelet's order: preStop, then SIGTERM within the same grace period.
        ending.terminate(begin + after(10));
        assert_eq!(ending.phase(begin + after(10), 0), Phase::Drained);
        assert_eq!(ending.phase(begin + after(24), 1), Phase::Closed);
        assert_eq!(ending.phase(begin + after(25), 1), Phase::Late);
        // Somebody drained by hand an hour ago: the grace period begins with SIGTERM, and only once.
        let mut ending = Ending::begin(MINIMUM, DRAIN_TIME, begin);
        ending.terminate(begin + after(3600));
        assert_eq!(ending.phase(begin + after(3624), 1), Phase::Closed);
        ending.terminate(begin + after(3630));
        assert_eq!(ending.phase(begin + after(3630), 1), Phase::Late);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_grace_period_leaves_time_for_draining() {
        let begin = Instant::now();
        let mut ending = Ending::begin(MINIMUM, after(4), begin);
        ending.terminate(begin);
        assert_eq!(ending.phase(begin + after(1), 0), Phase::Accepting);
        assert_eq!(ending.phase(begin + after(2), 0), Phase::Drained);
        let mut none = Ending::begin(MINIMUM, Duration::ZERO, begin);
        none.terminate(begin);
        assert_eq!(none.phase(begin, 3), Phase::Late);
    }
}
