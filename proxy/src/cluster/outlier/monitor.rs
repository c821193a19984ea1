//! What a host has done, as far as outlier detection looks at it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::eject::Why;
use super::readmission::ProbeState;
use super::settings::Detection;
use crate::stats::ClusterStats;

/// Of one host. Workers count; everything else is main's.
#[derive(Debug, Default)]
pub struct HostMonitor {
    /// Answers of 5xx in a row.
    pub(super) server_errors: AtomicU32,
    /// Answers of 502, 503 or 504 in a row.
    pub(super) gateway_errors: AtomicU32,
    /// Failures in a row that did not come from the host.
    pub(super) local_origin_failures: AtomicU32,
    /// Its answers in this interval.
    pub(super) external: Samples,
    /// Its connections in this interval.
    pub(super) local_origin: Samples,
    /// Whether a request may be let to it while it is out.
    pub(super) probe: ProbeState,
    /// Never locked by a worker.
    history: Mutex<History>,
}

/// What was counted since the interval began.
#[derive(Debug, Default)]
pub(super) struct Samples {
    total: AtomicU32,
    failed: AtomicU32,
    /// Successes of a hundred in the last interval that had enough requests.
    rate: Rate,
}

/// A percentage that is known, or not.
#[derive(Debug)]
pub struct Rate(AtomicU64);

/// Mean of the hosts' success rates, and the rate below which a host is an outlier.
#[derive(Debug, Default)]
pub struct Average {
    /// `success_rate_average`.
    pub mean: Rate,
    /// `success_rate_ejection_threshold`.
    pub threshold: Rate,
}

/// What happened to a host. Main's.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The ejection that it is out by.
    pub(super) ejection: Option<Ejection>,
    /// Times that it was ejected, ever.
    pub(super) ejections: u32,
    /// Times that it was ejected lately: what its next ejection's length grows by.
    pub(super) recent: u32,
    pub(super) last_ejection: Option<Instant>,
    pub(super) last_return: Option<Instant>,
}

/// Why a host is out, and until when.
#[derive(Debug, Clone)]
pub struct Ejection {
    /// Which detector found what.
    pub why: Why,
    /// When it happened.
    pub at: SystemTime,
    /// It comes back at the end of the interval in which this has passed.
    pub time: Duration,
    pub(super) state: Arc<Detection>,
    pub(super) stats: Arc<ClusterStats>,
}

impl HostMonitor {
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ejection that it is out by.
    pub fn ejection(&self) -> Option<Ejection> {
        self.history().ejection.clone()
    }

    /// Success rate of its answers in the last interval.
    pub fn success_rate(&self) -> Option<f64> {
        self.external.rate.get()
    }

    /// The same of its connections.
    pub fn local_origin_success_rate(&self) -> Option<f64> {
        self.local_origin.rate.get()
    }

    /// The host is no longer in its cluster: its place among those that may be out is free.
    pub(in crate::cluster) fn leave(&self) {
        if let Some(ejection) = self.history().ejection.take() {
            self.probe.end(&ejection.state);
            ejection.release();
        }
    }

    /// Counting in a row begins anew.
    pub(super) fn begin_anew(&self) {
        for counter in [&self.server_errors, &self.gateway_errors, &self.local_origin_failures] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Ejection {
    /// Whether its time has passed, when it began `at`.
    pub(super) fn is_over(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) >= self.time
    }

    pub(super) fn release(&self) {
        self.state.ejected.fetch_sub(1, Ordering::Relaxed);
        self.stats.outlier_detection.counted().ejections_active.dec();
    }
}

/// What a host did in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted {
    pub(super) total: u64,
    pub(super) failed: u64,
}

impl Counted {
    /// Successes of a hundred; `None` without a request.
    pub(super) fn success_rate(self) -> Option<f64> {
        let succeeded = self.total.saturating_sub(self.failed) as f64;
        (self.total > 0).then(|| succeeded * 100.0 / self.total as f64)
    }
}

impl Samples {
    pub(super) fn count(&self, succeeded: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if !succeeded {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the interval.
    pub(super) fn take(&self) -> Counted {
        let failed = self.failed.swap(0, Ordering::Relaxed).into();
        Counted { total: self.total.swap(0, Ordering::Relaxed).into(), failed }
    }

    pub(super) fn set_rate(&self, rate: Option<f64>) {
        self.rate.set(rate);
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Rate {
    /// In percent.
    pub fn get(&self) -> Option<f64> {
        let rate = f64::from_bits(self.0.load(Ordering::Relaxed));
        (!rate.is_nan()).then_some(rate)
    }

    pub(super) fn set(&self, rate: Option<f64>) {
        self.0.store(rate.unwrap_or(f64::NAN).to_bits(), Ordering::Relaxed);
    }
}
