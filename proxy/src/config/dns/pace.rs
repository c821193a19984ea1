//! When a name is looked up again: `dns_refresh_rate` and what changes it. Pure but for chance.

use std::time::Duration;

use crate::net::Answer;

/// The settings, each with Envoy's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// `dns_refresh_rate`.
    pub rate: Duration,
    /// `respect_dns_ttl`: the answer's time to live counts instead, unless it is 0.
    pub respects_ttl: bool,
    /// `dns_min_refresh_rate`: the least of such a time to live.
    pub min_ttl: Duration,
    /// `dns_jitter`: so much later at most, by chance.
    pub jitter: Duration,
    /// `dns_failure_refresh_rate`, base and maximum; `None`: failures change nothing.
    pub failure: Option<(Duration, Duration)>,
}

/// The shortest pause: chance alone must not make a loop of failures busy.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// The pauses between the look-ups of one name.
#[derive(Debug)]
pub(super) struct Pace {
    refresh: Refresh,
    /// The next pause after a failure is shorter than this.
    limit: Option<Duration>,
}

impl Pace {
    pub(super) fn new(refresh: Refresh) -> Self {
        Self { limit: None, refresh }
    }

    /// The pause after this answer; `None`: the look-up failed.
    pub(super) fn after(&mut self, answer: Option<&Answer>) -> Duration {
        let Refresh { rate, respects_ttl, min_ttl, jitter, failure } = &self.refresh;
        let Some(answer) = answer else {
            let Some((base, max)) = failure else { return *rate };
            let limit = self.limit.unwrap_or(*base);
            self.limit = Some((limit * 2).min(*max));
            return limit.mul_f64(fastrand::f64()).max(MIN_PAUSE);
        };
        self.limit = None;
        let ttl = answer.ttl.filter(|ttl| *respects_ttl && !ttl.is_zero() && !answer.addresses.is_empty());
        ttl.map_or(*rate, |ttl| ttl.max(*min_ttl)) + jitter.mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refresh() -> Refresh {
        Refresh {
            rate: 5 * SECOND,
            respects_ttl: false,
            min_ttl: Duration::ZERO,
            jitter: Duration::ZERO,
            failure: None,
        }
    }

    fn answer(ttl: u32) -> Answer {
        Answer { addresses: vec!["10.0.0.1".parse().unwrap()], ttl: Some(ttl * SECOND) }
    }

    #[test]
    fn a_time_to_live_counts_where_it_is_respected() {
        let mut deaf = Pace::new(refresh());
        assert_eq!(deaf.after(Some(&answer(30))), 5 * SECOND);
        let mut pace = Pace::new(Refresh { respects_ttl: true, min_ttl: 2 * SECOND, ..refresh() });
        for (ttl, expected) in [(30, 30), (1, 2), (0, 5)] {
            assert_eq!(pace.after(Some(&answer(ttl))), expected * SECOND, "{ttl}");
        }
        assert_eq!(pace.after(Some(&Answer { addresses: Vec::new(), ..answer(30) })), 5 * SECOND);
        assert_eq!(pace.after(Some(&Answer { ttl: None, ..answer(1) })), 5 * SECOND);
    }

    #[test]
    fn jitter_is_added_up_to_its_bound() {
        let mut pace = Pace::new(Refresh { jitter: SECOND, ..refresh() });
        let pauses: Vec<Duration> = (0..1000).map(|_| pace.after(Some(&answer(1)))).collect();
        assert!(pauses.iter().all(|pause| (5 * SECOND..6 * SECOND).contains(pause)));
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*most - *least > SECOND / 2, "{least:?} to {most:?} is no chance");
    }

    #[test]
    fn failures_back_off_to_the_maximum_and_an_answer_ends_that() {
        let mut pace = Pace::new(Refresh { failure: Some((SECOND, 4 * SECOND)), ..refresh() });
        let bounds = |pace: &mut Pace| {
            let mut limits = Vec::new();
            for _ in 0..4 {
                let limit = pace.limit.unwrap_or(SECOND);
                assert!(pace.after(None) < limit);
                limits.push(limit.as_secs());
            }
            limits
        };
        assert_eq!(bounds(&mut pace), [1, 2, 4, 4]);
        assert_eq!(pace.after(Some(&answer(1))), 5 * SECOND);
        assert_eq!(bounds(&mut pace), [1, 2, 4, 4]);
    }

    #[test]
    fn without_a_rate_of_their_own_failures_come_back_as_answers_do() {
        let mut pace = Pace::new(refresh());
        assert!((0..9).all(|_| pace.after(None) == 5 * SECOND));
    }
}
