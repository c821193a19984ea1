//! Pauses between attempts: Envoy's jittered exponential back-off.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(30);

/// Pauses that grow until something goes well.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The next pause is shorter than this.
    limit: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { limit: BASE }
    }

    /// The next pause: anything up to the limit, so that many proxies do not come back at once.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.limit.mul_f64(fastrand::f64());
        self.limit = (self.limit * 2).min(MAX);
        pause
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.limit = BASE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_and_starts_over() {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            assert!(backoff.next() <= MAX);
        }
        assert_eq!(backoff.limit, MAX);
        backoff.reset();
        assert!(backoff.next() <= BASE);
    }
}
