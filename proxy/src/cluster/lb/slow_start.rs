//! Slow start (`slow_start_config`, or our own `readmission_ramp_seconds`): a host that is new, or back, gets its traffic little by little.
//!
//! The weights of such hosts lie in the tables, so the tables are built anew while one of them warms up, at a bounded rate and on main
//! (`follow`). At rest nothing runs. While all hosts began at the same time, they are alike and nothing has to be built.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{EndpointSet, Health, Host};

/// Weights are built this often in a window, within the limits below.
const STEPS: u32 = 64;
const SHORTEST_STEP: Duration = Duration::from_millis(50);
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// Larger sets are built less often: a part of main's time at most.
const STEP_FOR_EACH_HOST: Duration = Duration::from_micros(50);

/// How a host warms up.
#[derive(Debug, Clone)]
pub struct SlowStart {
    /// `slow_start_window`; more than zero.
    pub window: Duration,
    /// `aggression`, more than 0: 1 is a straight line, more is faster at first.
    pub aggression: f64,
    /// `min_weight_percent`, as a part of 1.
    pub min_weight: f64,
    /// Hosts that are new warm up; else only those that are let in again, which say so themselves.
    pub of_new_hosts: bool,
    /// Who builds the tables anew.
    pub warm_ups: WarmUps,
}

impl PartialEq for SlowStart {
    fn eq(&self, other: &Self) -> bool {
        let Self { window, aggression, min_weight, of_new_hosts, warm_ups: _ } = self;
        *window == other.window
            && *aggression == other.aggression
            && *min_weight == other.min_weight
            && *of_new_hosts == other.of_new_hosts
    }
}

impl SlowStart {
    /// A straight line from a tenth on, for hosts that are let in again.
    pub fn ramp(window: Duration, warm_ups: WarmUps) -> Self {
        Self { window, aggression: 1.0, min_weight: 0.1, of_new_hosts: false, warm_ups }
    }

    /// The part of its weight that a host has after this time: Envoy's `max(min_weight, time_factor ^ (1 / aggression))`.
    pub(super) fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let time = age.max(Duration::from_millis(1)).as_secs_f64() / self.window.as_secs_f64();
        time.powf(1.0 / self.aggression).max(self.min_weight)
    }

    /// The part of its weight that this host has now.
    pub(super) fn factor_of(&self, host: &Host, now: Instant) -> f64 {
        match host.warms_since() {
            Some(since) if host.health() == Health::Healthy => {
                self.factor(now.saturating_duration_since(since))
            }
            _ => 1.0,
        }
    }

    /// Lets hosts begin that are healthy for the first time. Whether hosts differ in how warm they are.
    pub(in crate::cluster) fn begin<'a>(
        &self,
        hosts: impl Iterator<Item = &'a Arc<Host>>,
        now: Instant,
    ) -> bool {
        let (mut first, mut last) = (None, None);
        for host in hosts.filter(|host| host.health() == Health::Healthy) {
            let since = match host.warms_since() {
                Some(since) => since,
                None if self.of_new_hosts => {
                    host.warm_up(now);
                    now
                }
                // Warm from the beginning.
                None => continue,
            };
            first = Some(first.map_or(since, |first: Instant| first.min(since)));
            last = Some(last.map_or(since, |last: Instant| last.max(since)));
        }
        let differ = first != last || !self.of_new_hosts;
        differ && last.is_some_and(|last| now.saturating_duration_since(last) < self.window)
    }

    /// The time between two builds of tables of so many hosts.
    pub(in crate::cluster) fn step(&self, hosts: usize) -> Duration {
        let step = (self.window / STEPS).clamp(SHORTEST_STEP, LONGEST_STEP);
        step.max(STEP_FOR_EACH_HOST * u32::try_from(hosts).unwrap_or(u32::MAX))
    }
}

/// Tells main of sets whose hosts warm up.
#[derive(Debug, Clone)]
pub struct WarmUps(UnboundedSender<Weak<EndpointSet>>);

impl WarmUps {
    pub(in crate::cluster) fn send(&self, set: Weak<EndpointSet>) {
        // Main is gone only when the process ends.
        let _ = self.0.send(set);
    }
}

/// The channel to `follow`.
pub fn channel() -> (WarmUps, UnboundedReceiver<Weak<EndpointSet>>) {
    let (sender, receiver) = unbounded_channel();
    (WarmUps(sender), receiver)
}

/// Runs on main for the life of the process: builds the tables of sets anew in which hosts warm up.
pub async fn follow(mut started: UnboundedReceiver<Weak<EndpointSet>>) {
    let mut warming: Vec<(Instant, Weak<EndpointSet>)> = Vec::new();
    loop {
        let next = warming.iter().map(|(at, _)| *at).min();
        tokio::select! {
            biased;
            set = started.recv() => match set {
                Some(set) => warming.push((Instant::now(), set)),
                None => return,
            },
            () = until(next) => {
                let now = Instant::now();
                warming.retain_mut(|(at, set)| {
                    if *at > now {
                        return true;
                    }
                    let step = set.upgrade().and_then(|set| set.warm_on());
                    *at = now + step.unwrap_or_default();
                    step.is_some()
                });
            }
        }
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_start(aggression: f64, min_weight: f64) -> SlowStart {
        let warm_ups = channel().0;
        SlowStart { window: Duration::from_secs(60), aggression, min_weight, of_new_hosts: true, warm_ups }
    }

    #[test]
    fn weights_follow_envoys_formula() {
        for (aggression, min_weight, seconds, expected) in [
            (1.0, 0.1, 0, 0.1),
            (1.0, 0.0, 0, 1.0 / 60_000.0),
            (1.0, 0.1, 6, 0.1),
            (1.0, 0.1, 30, 0.5),
            (1.0, 0.1, 60, 1.0),
            (1.0, 0.1, 600, 1.0),
            (2.0, 0.1, 15, 0.5),
            (2.0, 0.1, 30, 0.5f64.sqrt()),
            (0.5, 0.1, 30, 0.25),
            (1.5, 0.1, 20, (1.0 / 3.0f64).powf(1.0 / 1.5)),
            (1.0, 0.6, 30, 0.6),
        ] {
            let factor = slow_start(aggression, min_weight).factor(Duration::from_secs(seconds));
            assert!((factor - expected).abs() < 1e-9, "{aggression} {min_weight} {seconds}: {factor}");
        }
    }

    #[test]
    fn tables_are_built_at_a_bounded_rate() {
        let of = |window: u64, hosts| {
            SlowStart { window: Duration::from_secs(window), ..slow_start(1.0, 0.1) }.step(hosts)
        };
        assert_eq!(of(1, 10), Duration::from_millis(50));
        assert_eq!(of(32, 10), Duration::from_millis(500));
        assert_eq!(of(600, 10), Duration::from_secs(1));
        assert_eq!(of(1, 10_000), Duration::from_millis(500));
    }
}
