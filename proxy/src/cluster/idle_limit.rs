//! After which pause a host closes an idle connection: learned from what it did, so that no request is sent at that moment.
//!
//! A connection beyond the limit is not used, but stays until the host closes it: so each of them says again what the limit is, and
//! one that lives on far beyond shows that there was none (a host that restarts closes everything at once). Shared by all workers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A pause so short that no host takes it for idleness.
pub const SHORT_PAUSE: Duration = Duration::from_millis(150);
/// What a limit may be off: the host's clock starts earlier, by as much as its answer is on the way, and its timer may be early.
const LEAST_MARGIN_MS: u32 = 20;
const MOST_MARGIN_MS: u32 = 1000;

/// What is known of one host. Milliseconds; 0: nothing.
#[derive(Debug, Default)]
pub struct IdleLimit {
    /// The shortest pause after which it closed a connection.
    closed: AtomicU32,
    /// `Keep-Alive: timeout` of its last answer that had one.
    told: AtomicU32,
    /// The longest pause that a connection has outlived, since it last closed one.
    outlived: AtomicU32,
}

impl IdleLimit {
    /// The host has closed a connection after this pause.
    pub fn closed_after(&self, pause: Duration) {
        if pause < SHORT_PAUSE {
            return;
        }
        let pause = milliseconds(pause);
        let shorter = |known: u32| (known == 0 || pause < known).then_some(pause);
        // Nothing to be done when the known one is as short.
        let _ = self.closed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shorter);
        self.outlived.fetch_min(pause, Ordering::Relaxed);
    }

    /// A connection was still open after this pause.
    pub fn outlived(&self, pause: Duration) {
        let pause = milliseconds(pause);
        self.outlived.fetch_max(pause, Ordering::Relaxed);
        let closed = self.closed.load(Ordering::Relaxed);
        // Far beyond: a host that looks for idle connections now and then closes one later than another.
        if closed > 0 && pause > closed.saturating_mul(2).saturating_add(1000) {
            self.closed.store(0, Ordering::Relaxed);
        }
    }

    /// The value of a `Keep-Alive` header (RFC 2068 section 19.7.1.1): `timeout=5, max=100`.
    pub fn told(&self, keep_alive: &str) {
        let parameters = keep_alive.split(',').filter_map(|part| part.trim().split_once('='));
        let timeout = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
        let seconds = timeout.filter_map(|(_, seconds)| seconds.trim().parse::<u32>().ok()).next();
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
            self.told.store(seconds.saturating_mul(1000), Ordering::Relaxed);
        }
    }

    /// Whether a connection that was idle for this long is to be used.
    pub fn allows(&self, pause: Duration) -> bool {
        let limits = [&self.closed, &self.told].map(|limit| limit.load(Ordering::Relaxed));
        let limit = limits.into_iter().filter(|limit| *limit > 0).min();
        pause < SHORT_PAUSE || limit.is_none_or(|limit| milliseconds(pause) < limit - margin(limit))
    }

    /// The same for a request that cannot be sent again: others must have lived for half as long again.
    pub fn is_proven(&self, pause: Duration) -> bool {
        let needed = milliseconds(pause).saturating_mul(3) / 2;
        pause < SHORT_PAUSE || (self.allows(pause) && needed <= self.outlived.load(Ordering::Relaxed))
    }
}

fn margin(limit: u32) -> u32 {
    (limit / 8).clamp(LEAST_MARGIN_MS, MOST_MARGIN_MS).min(limit / 2)
}

fn milliseconds(pause: Duration) -> u32 {
    u32::try_from(pause.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(pause: u64) -> Duration {
        Duration::from_millis(pause)
    }

    #[test]
    fn nothing_is_used_shortly_before_the_host_closes_it() {
        let limit = IdleLimit::default();
        assert!(limit.allows(ms(3_600_000)));
        limit.closed_after(ms(230));
        limit.closed_after(ms(200));
        limit.closed_after(ms(260));
        assert!(limit.allows(ms(174)) && !limit.allows(ms(175)));
        // Whoever closes so soon does not close for idleness.
        limit.closed_after(ms(149));
        assert!(limit.allows(ms(174)));
        let long = IdleLimit::default();
        long.closed_after(ms(60_000));
        assert!(long.allows(ms(58_999)) && !long.allows(ms(59_000)));
    }

    #[test]
    fn what_lives_on_far_beyond_a_limit_shows_that_there_is_none() {
        let limit = IdleLimit::default();
        limit.closed_after(ms(5_000));
        limit.outlived(ms(11_000));
        assert!(!limit.allows(ms(10_000)));
        limit.outlived(ms(11_001));
        assert!(limit.allows(ms(10_000)));
    }

    #[test]
    fn what_cannot_be_sent_again_needs_a_proof() {
        let limit = IdleLimit::default();
        assert!(limit.is_proven(ms(149)) && !limit.is_proven(ms(150)));
        limit.outlived(ms(3_000));
        assert!(limit.is_proven(ms(2_000)) && !limit.is_proven(ms(2_001)));
        // A host that closes one earlier closes others earlier, too.
        limit.closed_after(ms(900));
        assert!(limit.is_proven(ms(600)) && !limit.is_proven(ms(601)));
    }

    #[test]
    fn the_host_says_it_itself() {
        let limit = IdleLimit::default();
        for nothing in ["", "max=100", "timeout", "timeout=x", "timeout=0"] {
            limit.told(nothing);
            assert!(limit.allows(ms(3_600_000)), "{nothing}");
        }
        limit.told("max=100, Timeout = 5");
        assert!(limit.allows(ms(4_374)) && !limit.allows(ms(4_375)));
        limit.closed_after(ms(1_000));
        assert!(!limit.allows(ms(875)));
        limit.told("timeout=4294967295");
        assert!(!limit.allows(ms(875)) && limit.allows(ms(874)));
    }
}
