//! What the outcome of a check means for a host, by Envoy's rules. Pure: no clock, no I/O.
//!
//! * The first check of all makes a host healthy at once; after that `healthy_threshold` good ones in a row do.
//! * An answer that is wrong, and a host that asks for it, fail it at once. No answer, and a retriable status, count against
//!   `unhealthy_threshold`.

use crate::cluster::{ActiveHealth, HealthFlag};

use super::Thresholds;

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The answer is wrong; of HTTP with its status, else 0.
    Active { status: u16, retriable: bool },
    /// The host said so itself in an answer to a request.
    Passive,
    /// No connection, or it broke.
    Network,
    /// No answer in time.
    NetworkTimeout,
}

impl Failure {
    /// Whether the host could not be talked to.
    pub(super) fn is_network(self) -> bool {
        matches!(self, Failure::Network | Failure::NetworkTimeout)
    }
}

/// What is worth telling the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    AddHealthy { first_check: bool },
    Successful,
    Degraded,
    NoLongerDegraded,
    EjectUnhealthy { failure: Failure },
    Failed { failure: Failure, first_check: bool },
}

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// As before.
    Unchanged,
    /// As before, but other checks like this one will change it.
    Pending,
    /// Other requests than before may go there.
    Changed,
}

/// What a host's checks have found so far.
#[derive(Debug)]
pub(super) struct Verdicts {
    thresholds: Thresholds,
    is_first: bool,
    /// In a row, while it is unhealthy.
    good: u32,
    /// In a row, while it is healthy.
    bad: u32,
}

impl Verdicts {
    /// None yet.
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, is_first: true, good: 0, bad: 0 }
    }

    /// A check passed; `degraded`: the host had rather not be asked for much.
    pub(super) fn passed(
        &mut self,
        health: &ActiveHealth,
        degraded: bool,
        mut tell: impl FnMut(Event),
    ) -> Transition {
        self.bad = 0;
        let mut transition = Transition::Unchanged;
        if health.has(HealthFlag::Failed) {
            self.good += 1;
            if self.is_first || self.good == self.thresholds.healthy {
                for flag in [HealthFlag::TimedOut, HealthFlag::Excluded, HealthFlag::Failed] {
                    health.set(flag, false);
                }
                transition = Transition::Changed;
                tell(Event::AddHealthy { first_check: self.is_first });
            } else {
                transition = Transition::Pending;
            }
        }
        if transition != Transition::Changed {
            tell(Event::Successful);
        }
        transition = no_longer_first(health, transition);
        if health.set(HealthFlag::Degraded, degraded) {
            tell(if degraded { Event::Degraded } else { Event::NoLongerDegraded });
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        self.is_first = false;
        transition
    }

    /// A check failed.
    pub(super) fn failed(
        &mut self,
        health: &ActiveHealth,
        failure: Failure,
        mut tell: impl FnMut(Event),
    ) -> Transition {
        self.good = 0;
        let mut transition = Transition::Unchanged;
        if !health.has(HealthFlag::Failed) {
            let counts = failure.is_network() || matches!(failure, Failure::Active { retriable: true, .. });
            self.bad += u32::from(counts);
            if !counts || self.bad == self.thresholds.unhealthy {
                health.set(HealthFlag::Failed, true);
                transition = Transition::Changed;
                tell(Event::EjectUnhealthy { failure });
            } else {
                transition = Transition::Pending;
            }
        }
        // A host that stays unhealthy may be so for another reason each time.
        let timed_out = failure == Failure::NetworkTimeout && health.has(HealthFlag::Failed);
        health.set(HealthFlag::TimedOut, timed_out);
        transition = no_longer_first(health, transition);
        tell(Event::Failed { failure, first_check: self.is_first });
        self.is_first = false;
        transition
    }
}

/// From now on the host counts among the hosts, healthy or not.
fn no_longer_first(health: &ActiveHealth, transition: Transition) -> Transition {
    if health.set(HealthFlag::PendingFirstCheck, false) { Transition::Changed } else { transition }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: Failure = Failure::Active { status: 503, retriable: false };
    const RETRIABLE: Failure = Failure::Active { status: 503, retriable: true };

    /// A host and its verdicts: two good checks make it healthy, three bad ones unhealthy.
    struct Checked(ActiveHealth, Verdicts, Vec<Event>);

    impl Checked {
        fn new() -> Self {
            let health = ActiveHealth::default();
            health.set(HealthFlag::Failed, true);
            Self(health, Verdicts::new(Thresholds { healthy: 2, unhealthy: 3 }), Vec::new())
        }

        /// One whose first check was good.
        fn healthy() -> Self {
            let mut this = Self::new();
            assert_eq!(this.pass(), Transition::Changed);
            this.2.clear();
            this
        }

        fn pass(&mut self) -> Transition {
            let Self(health, verdicts, events) = self;
            verdicts.passed(health, false, |event| events.push(event))
        }

        fn fail(&mut self, failure: Failure) -> Transition {
            let Self(health, verdicts, events) = self;
            verdicts.failed(health, failure, |event| events.push(event))
        }

        fn is_healthy(&self) -> bool {
            !self.0.has(HealthFlag::Failed)
        }
    }

    #[test]
    fn the_first_check_is_enough_to_be_healthy() {
        let mut host = Checked::new();
        assert_eq!(host.pass(), Transition::Changed);
        assert!(host.is_healthy());
        assert_eq!(host.2, [Event::AddHealthy { first_check: true }]);
    }

    #[test]
    fn after_a_bad_first_check_the_threshold_counts() {
        let mut host = Checked::new();
        assert_eq!(host.fail(Failure::Network), Transition::Unchanged);
        assert_eq!(host.2, [Event::Failed { failure: Failure::Network, first_check: true }]);
        assert_eq!(host.pass(), Transition::Pending);
        assert_eq!(host.fail(Failure::Network), Transition::Unchanged, "and begins anew");
        assert_eq!(host.pass(), Transition::Pending);
        assert!(!host.is_healthy());
        assert_eq!(host.pass(), Transition::Changed);
        assert!(host.is_healthy());
        assert_eq!(host.2.last(), Some(&Event::AddHealthy { first_check: false }));
    }

    #[test]
    fn no_answer_counts_in_a_row() {
        for failure in [Failure::Network, Failure::NetworkTimeout, RETRIABLE] {
            let mut host = Checked::healthy();
            for _ in 0..2 {
                assert_eq!(host.fail(failure), Transition::Pending, "{failure:?}");
            }
            assert_eq!(host.pass(), Transition::Unchanged);
            for _ in 0..2 {
                assert_eq!(host.fail(failure), Transition::Pending, "{failure:?}");
                assert!(!host.0.has(HealthFlag::TimedOut), "it is not out yet");
            }
            assert!(host.is_healthy());
            assert_eq!(host.fail(failure), Transition::Changed, "{failure:?}");
            assert!(!host.is_healthy());
            assert_eq!(host.0.has(HealthFlag::TimedOut), failure == Failure::NetworkTimeout);
        }
    }

    #[test]
    fn a_wrong_answer_is_enough() {
        for failure in [WRONG, Failure::Passive] {
            let mut host = Checked::healthy();
            assert_eq!(host.fail(failure), Transition::Changed, "{failure:?}");
            assert!(!host.is_healthy());
            assert_eq!(
                host.2,
                [Event::EjectUnhealthy { failure }, Event::Failed { failure, first_check: false }]
            );
        }
    }

    #[test]
    fn it_says_why_it_stays_out() {
        let mut host = Checked::new();
        host.fail(Failure::NetworkTimeout);
        assert!(host.0.has(HealthFlag::TimedOut));
        host.fail(Failure::Network);
        assert!(!host.0.has(HealthFlag::TimedOut));
        host.fail(Failure::NetworkTimeout);
        host.pass();
        assert!(host.0.has(HealthFlag::TimedOut), "not healthy yet");
        host.pass();
        assert!(!host.0.has(HealthFlag::TimedOut) && host.is_healthy());
    }

    #[test]
    fn one_that_asked_to_be_left_alone_counts_again_when_it_is_healthy() {
        let mut host = Checked::healthy();
        host.0.set(HealthFlag::Excluded, true);
        host.fail(Failure::Passive);
        host.pass();
        assert!(host.0.has(HealthFlag::Excluded));
        host.pass();
        assert!(!host.0.has(HealthFlag::Excluded));
    }

    #[test]
    fn any_first_check_makes_a_new_host_count() {
        let mut host = Checked::new();
        host.0.set(HealthFlag::PendingFirstCheck, true);
        assert_eq!(host.fail(WRONG), Transition::Changed);
        assert!(!host.0.has(HealthFlag::PendingFirstCheck));
        assert_eq!(host.fail(WRONG), Transition::Unchanged);
    }

    #[test]
    fn degraded_is_a_change_of_its_own() {
        let mut host = Checked::healthy();
        let Checked(health, verdicts, events) = &mut host;
        assert_eq!(verdicts.passed(health, true, |event| events.push(event)), Transition::Changed);
        assert_eq!(verdicts.passed(health, true, |event| events.push(event)), Transition::Unchanged);
        assert_eq!(verdicts.passed(health, false, |event| events.push(event)), Transition::Changed);
        events.retain(|event| *event != Event::Successful);
        assert_eq!(*events, [Event::Degraded, Event::NoLongerDegraded]);
    }
}
