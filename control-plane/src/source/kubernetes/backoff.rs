//! How long to wait after a failure.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause is at most so long.
const FIRST: Duration = Duration::from_millis(500);
/// No pause is longer. An API server that comes back is asked by nine watches in this time, which it will not notice; what
/// the mesh misses until then is what counts.
const LONGEST: Duration = Duration::from_secs(8);
/// A failure so long after the last one has nothing to do with it. (A watch that works again may be silent.)
const FORGET: Duration = Duration::from_secs(30);

/// Pauses that double with every failure. Up to half of each is taken off at random, so that the watches that failed
/// together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<(Instant, Duration)>,
}

impl Backoff {
    /// The pause after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let now = Instant::now();
        let longest = match self.last {
            Some((at, longest)) if now - at < FORGET => LONGEST.min(longest * 2),
            _ => FIRST,
        };
        self.last = Some((now, longest));
        longest.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_are_forgotten() {
        let mut backoff = Backoff::default();
        for expected_ms in [500, 1000, 2000, 4000, 8000, 8000, 8000] {
            let pause = backoff.next();
            let expected = Duration::from_millis(expected_ms);
            assert!(pause <= expected && pause >= expected / 2, "{pause:?} of {expected:?}");
            tokio::time::advance(pause).await;
        }
        tokio::time::advance(FORGET).await;
        assert!(backoff.next() <= FIRST);
        backoff.next();
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
