//! When the next check is due. Pure.

use std::time::Duration;

use super::Intervals;
use super::decide::Transition;

/// Not in between, so that a check never follows at once.
const SHORTEST: Duration = Duration::from_millis(1);

impl Intervals {
    /// From the end of a check to the next one. `random` gives a number below the one it is given.
    pub(super) fn after(
        &self,
        passed: bool,
        transition: Transition,
        had_traffic: bool,
        random: impl Fn(u64) -> u64,
    ) -> Duration {
        let is_edge = transition == Transition::Pending;
        let base = match (had_traffic, passed, is_edge) {
            (true, true, false) => self.healthy,
            (true, true, true) => self.healthy_edge,
            (true, false, false) => self.unhealthy,
            (true, false, true) => self.unhealthy_edge,
            (false, true, false) => self.no_traffic_healthy,
            (false, ..) => self.no_traffic,
        };
        let part = base.saturating_mul(self.jitter_percent) / 100;
        (base + random_part(part, &random) + random_part(self.jitter, &random)).max(SHORTEST)
    }

    /// From the beginning to the first check; `None`: at once.
    pub(super) fn first(&self, random: impl Fn(u64) -> u64) -> Option<Duration> {
        let jitter = self.initial_jitter;
        (!jitter.is_zero()).then(|| random_part(jitter, &random).max(SHORTEST))
    }
}

/// Whole milliseconds below `longest`.
fn random_part(longest: Duration, random: impl Fn(u64) -> u64) -> Duration {
    match u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) {
        0 => Duration::ZERO,
        longest => Duration::from_millis(random(longest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const NO_JITTER: Intervals = Intervals {
        healthy: Duration::from_secs(1),
        unhealthy: Duration::from_secs(2),
        healthy_edge: Duration::from_secs(3),
        unhealthy_edge: Duration::from_secs(4),
        no_traffic: Duration::from_secs(5),
        no_traffic_healthy: Duration::from_secs(6),
        initial_jitter: Duration::ZERO,
        jitter: Duration::ZERO,
        jitter_percent: 0,
    };

    #[test]
    fn each_state_has_its_interval() {
        use Transition::{Changed, Pending, Unchanged};
        let after = |passed, transition, traffic| NO_JITTER.after(passed, transition, traffic, |_| 0);
        for (passed, transition, traffic, expected) in [
            (true, Unchanged, true, 1),
            (true, Changed, true, 1),
            (false, Unchanged, true, 2),
            (false, Changed, true, 2),
            (true, Pending, true, 3),
            (false, Pending, true, 4),
            (false, Changed, false, 5),
            (true, Pending, false, 5),
            (true, Unchanged, false, 6),
            (true, Changed, false, 6),
        ] {
            assert_eq!(
                after(passed, transition, traffic),
                seconds(expected),
                "{passed} {transition:?} {traffic}"
            );
        }
    }

    #[test]
    fn both_jitters_are_added() {
        let intervals = Intervals { jitter: seconds(2), jitter_percent: 50, ..NO_JITTER };
        let after = |random: fn(u64) -> u64| intervals.after(true, Transition::Unchanged, true, random);
        assert_eq!(after(|_| 0), seconds(1));
        assert_eq!(after(|limit| limit - 1), Duration::from_millis(1_000 + 499 + 1_999));
        assert_eq!(NO_JITTER.after(true, Transition::Unchanged, true, |limit| limit - 1), seconds(1));
    }

    #[test]
    fn the_first_check_is_at_once_or_within_its_jitter() {
        assert_eq!(NO_JITTER.first(|limit| limit - 1), None);
        let intervals = Intervals { initial_jitter: seconds(2), ..NO_JITTER };
        assert_eq!(intervals.first(|limit| limit - 1), Some(Duration::from_millis(1_999)));
        assert_eq!(intervals.first(|_| 0), Some(SHORTEST));
    }

    #[test]
    fn never_without_a_pause() {
        let intervals = Intervals { healthy: Duration::ZERO, ..NO_JITTER };
        assert_eq!(intervals.after(true, Transition::Unchanged, true, |_| 0), SHORTEST);
    }
}
