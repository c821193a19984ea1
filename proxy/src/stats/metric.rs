//! The three kinds of metric: atomics that live inside their scope's struct.
//!
//! A scope is one allocation and a metric is eight bytes of it, so a thousand clusters cost a megabyte or two and an increment is
//! one relaxed atomic operation through a pointer that the caller already has. (Separately allocated handles that each own their
//! name, help text and labels cost about 450 bytes a series.)

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `n`.
    pub fn inc_by(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge {
    value: AtomicI64,
    /// Whether it was ever touched: what `?usedonly` asks.
    used: AtomicBool,
}

impl Gauge {
    /// A gauge at zero that nobody has touched.
    pub const fn new() -> Self {
        Self { value: AtomicI64::new(0), used: AtomicBool::new(false) }
    }

    fn touch(&self) {
        // A load first, so that the cache line is not dirtied once more for nothing.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.value.fetch_add(n, Ordering::Relaxed);
        self.touch();
    }

    /// Takes `n` away.
    pub fn sub(&self, n: i64) {
        self.add(-n);
    }

    /// Replaces the value.
    pub fn set(&self, n: i64) {
        self.value.store(n, Ordering::Relaxed);
        self.touch();
    }

    /// The current value.
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Whether it was ever changed.
    pub fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}

/// A gauge that is shown only where the configuration asks for it.
#[derive(Debug, Default)]
pub struct OptionalGauge {
    gauge: Gauge,
    is_kept: AtomicBool,
}

impl OptionalGauge {
    /// Shows it from now on, or hides it.
    pub fn keep(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::Relaxed);
    }

    /// The gauge, if it is shown.
    pub fn get(&self) -> Option<&Gauge> {
        self.is_kept.load(Ordering::Relaxed).then_some(&self.gauge)
    }
}

/// Upper bounds of histogram buckets, microseconds: Envoy's defaults (0.5 ms to 1 h), which Istio's standard metrics use too.
const BOUNDS_US: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Durations in milliseconds, kept with microsecond resolution.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations per bucket, not cumulative; the last one is above all bounds.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// A histogram with no observation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one observation in milliseconds; negative counts as zero.
    pub fn observe(&self, ms: f64) {
        self.observe_us((ms * 1000.0) as u64);
    }

    /// Adds one observation.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe_us(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn observe_us(&self, us: u64) {
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all observations, milliseconds.
    pub fn sum_ms(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// Upper bounds of the buckets, milliseconds; the last bucket has none.
    pub(super) fn bounds_ms() -> impl Iterator<Item = f64> {
        BOUNDS_US.iter().map(|us| *us as f64 / 1000.0)
    }

    /// Observations at or below each bound, the last one being all of them.
    pub(super) fn cumulative(&self) -> [u64; BOUNDS_US.len() + 1] {
        let mut total = 0;
        std::array::from_fn(|i| {
            total += self.buckets[i].load(Ordering::Relaxed);
            total
        })
    }

    /// The value, milliseconds, below which the share `quantile` (0 to 1) of all observations lies; interpolated within its
    /// bucket, `None` without observations.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let cumulative = self.cumulative();
        let count = cumulative[BOUNDS_US.len()];
        if count == 0 {
            return None;
        }
        let rank = quantile * count as f64;
        let last = BOUNDS_US.len() - 1;
        let at = cumulative.iter().position(|c| *c > 0 && *c as f64 >= rank).unwrap_or(last);
        let below = if at == 0 { 0 } else { cumulative[at - 1] };
        let lower = if at == 0 { 0 } else { BOUNDS_US[at - 1] } as f64 / 1000.0;
        // Nothing is known of the width of the last bucket.
        let upper = BOUNDS_US[at.min(last)] as f64 / 1000.0;
        let share = ((rank - below as f64) / (cumulative[at] - below) as f64).clamp(0.0, 1.0);
        Some(lower + (upper - lower).max(0.0) * share)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn gauge_knows_whether_it_was_used() {
        let gauge = Gauge::new();
        assert!(!gauge.used());
        gauge.inc();
        gauge.dec();
        assert_eq!(gauge.get(), 0);
        assert!(gauge.used());
    }

    #[test]
    fn observations_fall_into_their_buckets() {
        let h = Histogram::new();
        h.observe(0.5); // the bound belongs to the bucket
        h.observe(0.6);
        h.observe_duration(Duration::from_secs(7200));
        h.observe(-3.0);
        let c = h.cumulative();
        assert_eq!(c[0], 2);
        assert_eq!(c[1], 3);
        assert_eq!(c[18], 3);
        assert_eq!(c[19], 4);
        assert_eq!(h.count(), 4);
        assert_eq!(h.sum_ms(), 7_200_001.1);
    }

    #[test]
    fn quantiles_interpolate() {
        let h = Histogram::new();
        assert_eq!(h.quantile_ms(0.5), None);
        for _ in 0..10 {
            h.observe(7.0);
        }
        assert_eq!(h.quantile_ms(0.0), Some(5.0));
        assert_eq!(h.quantile_ms(0.5), Some(7.5));
        assert_eq!(h.quantile_ms(1.0), Some(10.0));
    }
}
