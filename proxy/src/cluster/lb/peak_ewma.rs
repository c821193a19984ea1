//! Peak EWMA: of two random hosts that with the lower cost, which is how long its answers take × (requests in flight + 1).
//!
//! How long answers take is an average that forgets old answers exponentially and jumps up to a slow one at once (Finagle's Peak EWMA). Between
//! answers it sinks, so that a host that was slow is tried again. A host of which nothing is known has a default; while it has not answered,
//! no further request goes there as long as there is another.
//!
//! Ours: who fails fast must not look fast. A failure counts as an answer much slower than those of other hosts, and until the host has
//! answered well again, it gets one request at a time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::active;
use super::tables::Table;
use crate::cluster::{Cluster, Host};

/// A failure counts as an answer so many times slower than those of other hosts.
const FAILURE: f64 = 10.0;
/// No more than this, however slow they are.
const LONGEST: Duration = Duration::from_secs(60);
/// How many other hosts are asked.
const ASKED: usize = 4;
/// After so many times of decay nothing is known any more.
const KNOWN: f64 = 5.0;
/// The cost of a host that is better left alone, in microseconds: more than any other.
const UNKNOWN: f64 = 1e12;

/// So finely is it known what is left of an average: steps of one time of decay.
const STEPS: f64 = 64.0;
/// e to the power of -1 / 64.
const REST_OF_A_STEP: f64 = 0.984_496_437_005_408_4;

/// Time is told in hundredths of a second, in 31 bits: for 248 days.
const TICK: Duration = Duration::from_millis(10);
const TICKS: u32 = u32::MAX >> 1;
const TICKS_PER_SECOND: u32 = 100;

/// The policy's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeakEwma {
    /// `decay_time`, default 10 s: after it an answer counts for a third (1 / e).
    pub decay: Duration,
    /// `default_rtt`, default 10 ms: for hosts of which nothing is known.
    pub default_rtt: Duration,
}

/// How long the answers of a host take: microseconds as `f32`, when that was found, and in the last bit whether it failed then. All in one
/// word, so that nobody waits. Zero: nothing is known.
#[derive(Debug, Default)]
pub(in crate::cluster) struct AnswerTime(AtomicU64);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    micros: f64,
    has_failed: bool,
}

impl AnswerTime {
    /// What is known of the host at this time, in ticks.
    fn get(&self, now: u32, decay: Duration) -> Option<Estimate> {
        let (micros, at, has_failed) = unpack(self.0.load(Ordering::Relaxed))?;
        let ages = ages(now, at, decay);
        (ages < KNOWN).then(|| Estimate { micros: micros * rest(ages), has_failed })
    }

    /// The host has answered, or failed, after this time.
    fn add(&self, micros: f64, has_failed: bool, now: u32, decay: Duration) {
        let next = |old: u64| {
            let average = unpack(old).map_or(micros, |(average, at, had_failed)| {
                let rest = rest(ages(now, at, decay));
                match had_failed && !has_failed {
                    // What it was made to be by a failure is no answer.
                    true => micros,
                    false => average * rest + micros * (1.0 - rest),
                }
            });
            Some(pack(average.max(micros), has_failed, now))
        };
        // It always gives a value, so it always succeeds.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

fn pack(micros: f64, has_failed: bool, now: u32) -> u64 {
    // Never zero.
    let micros = micros.max(1.0) as f32;
    u64::from(micros.to_bits()) << 32 | u64::from((now & TICKS) << 1) | u64::from(has_failed)
}

fn unpack(word: u64) -> Option<(f64, u32, bool)> {
    let micros = f32::from_bits((word >> 32) as u32);
    (word != 0).then(|| (f64::from(micros), (word as u32) >> 1, word & 1 == 1))
}

/// How many times `decay` have passed since then.
fn ages(now: u32, at: u32, decay: Duration) -> f64 {
    let ticks = now.wrapping_sub(at) & TICKS;
    match ticks {
        // Most answers are of a moment ago. And another worker was a tick ahead.
        0 => 0.0,
        ahead if ahead > TICKS / 2 => 0.0,
        ticks => f64::from(ticks) * TICK.as_secs_f64() / decay.as_secs_f64(),
    }
}

/// What is left of an average after so many times of decay. Between two steps it is a straight line, for answers that come one soon after the
/// other take their part too.
fn rest(ages: f64) -> f64 {
    let at = ages * STEPS;
    let step = at as usize;
    match REST.get(step..step + 2) {
        Some(&[here, next]) => here + (at - step as f64) * (next - here),
        _ => 0.0,
    }
}

/// What is left after each step. A look-up costs a tenth of an exponential function, and each pick needs two.
static REST: [f64; (KNOWN * STEPS) as usize + 1] = {
    let mut rest = [1.0; (KNOWN * STEPS) as usize + 1];
    let mut step = 1;
    while step < rest.len() {
        rest[step] = rest[step - 1] * REST_OF_A_STEP;
        step += 1;
    }
    rest
};

/// A time as ticks.
fn ticks(at: Instant) -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let elapsed = at.saturating_duration_since(*START);
    // Without a division of 128 bits.
    let seconds = elapsed.as_secs() as u32;
    seconds.wrapping_mul(TICKS_PER_SECOND).wrapping_add(elapsed.subsec_millis() * TICKS_PER_SECOND / 1_000)
}

impl PeakEwma {
    /// The host with the lower cost, of two that differ. Who knows the present time says it.
    pub(super) fn pick(&self, table: &Table, now: Option<Instant>) -> usize {
        self.pick_at(table, ticks(now.unwrap_or_else(Instant::now)))
    }

    fn pick_at(&self, table: &Table, now: u32) -> usize {
        let first = table.turns.random();
        let others = table.hosts.len() - 1;
        if others == 0 {
            return first;
        }
        let second = match table.turns.random() {
            second if second != first => second,
            _ => (first + 1 + fastrand::usize(..others)) % table.hosts.len(),
        };
        let cost = |index: usize| self.cost(&table.hosts[index], now);
        if cost(second) < cost(first) { second } else { first }
    }

    fn cost(&self, host: &Host, now: u32) -> f64 {
        let active = active(host);
        let requests = f64::from(active) + 1.0;
        match host.answer_time.get(now, self.decay) {
            Some(estimate) if estimate.has_failed && active > 0 => UNKNOWN * requests,
            Some(estimate) => estimate.micros * requests,
            None if active > 0 => UNKNOWN * requests,
            None => micros(self.default_rtt),
        }
    }

    pub(super) fn answered(&self, cluster: &Cluster, host: &Host, time: Duration, has_failed: bool) {
        self.answered_at(cluster, host, time, has_failed, ticks(Instant::now()));
    }

    fn answered_at(&self, cluster: &Cluster, host: &Host, time: Duration, has_failed: bool, now: u32) {
        let time = micros(time);
        let counted = if has_failed { time.max(self.of_failure(cluster, host, now)) } else { time };
        host.answer_time.add(counted, has_failed, now, self.decay);
    }

    /// As what a failure counts: by the slowest of the host itself and a few others, unless they have failed too.
    fn of_failure(&self, cluster: &Cluster, host: &Host, now: u32) -> f64 {
        let good = |host: &Host| {
            let estimate = host.answer_time.get(now, self.decay)?;
            (!estimate.has_failed).then_some(estimate.micros)
        };
        let set = cluster.endpoints.peek();
        let hosts = set.iter().flat_map(|set| &set.priorities).find(|priority| !priority.hosts.is_empty());
        let others = hosts.into_iter().flat_map(|priority| {
            let hosts = &priority.hosts;
            let first = fastrand::usize(..hosts.len());
            hosts[first..].iter().chain(&hosts[..first]).take(ASKED)
        });
        let slowest = others.map(|host| &**host).chain([host]).filter_map(good).reduce(f64::max);
        (FAILURE * slowest.unwrap_or(micros(self.default_rtt))).min(micros(LONGEST))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests;
