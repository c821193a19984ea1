//! The hosts of a cluster and the tables that picking reads. Built on main; workers only read.
//!
//! Hosts that an update keeps are the same `Arc<Host>`, with their health, counters and pools. A change of health rebuilds the
//! tables only.

use std::cmp::Ordering::Equal;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;

use super::lb::Hashing;
use super::lb::hashing::HashTable;
use super::{CheckTarget, Host};
use crate::metadata::Metadata;
use crate::net::Address;

/// One `LbEndpoint`, resolved by the compiler.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSpec {
    /// `endpoint.address`.
    pub address: Address,
    /// `endpoint.hostname`.
    pub hostname: Arc<str>,
    /// `load_balancing_weight`, default 1.
    pub weight: u32,
    /// `health_status` is HEALTHY, UNKNOWN or DEGRADED.
    pub healthy: bool,
    /// `metadata.filter_metadata.istio.workload`.
    pub workload: Option<Arc<str>>,
    /// `metadata`.
    pub metadata: Option<Arc<Metadata>>,
    /// `priority` of its locality.
    pub priority: u32,
    /// `endpoint.health_check_config`.
    pub check: Option<Arc<CheckTarget>>,
}

/// All hosts of a cluster by priority (`ClusterLoadAssignment`).
#[derive(Debug)]
pub struct EndpointSet {
    /// Index = priority.
    pub priorities: Vec<Priority>,
    /// `policy.overprovisioning_factor` in percent, default 140.
    pub overprovisioning_percent: u32,
    tables: ArcSwap<Tables>,
    /// Round robin position, shared by the workers so that their sum is even.
    pub(super) cursor: AtomicUsize,
}

/// What the cluster says of how its tables are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balancing {
    /// `common_lb_config.healthy_panic_threshold` in percent, default 50; 0 switches panic off.
    pub panic_percent: u32,
    /// Of a policy that looks up a hash.
    pub hashing: Option<Hashing>,
}

impl Default for Balancing {
    fn default() -> Self {
        Self { panic_percent: 50, hashing: None }
    }
}

/// The hosts of one priority.
#[derive(Debug)]
pub struct Priority {
    /// All of them, healthy or not.
    pub hosts: Vec<Arc<Host>>,
}

/// What picking reads: rebuilt when a host comes, goes or changes health.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Per priority: cumulative load in percent, and whom to pick from.
    pub(super) priorities: Vec<(u32, Table)>,
    balancing: Balancing,
}

/// Hosts of one priority that take traffic now.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) hosts: Vec<Arc<Host>>,
    /// Weighted order as indexes into `hosts`; empty when all weights are equal.
    pub(super) schedule: Vec<u32>,
    /// Where a hash finds its host.
    pub(super) hashed: Option<HashTable>,
    /// Too few are healthy: all take traffic.
    pub(super) panic: bool,
    /// How much of the traffic they could take, up to 100 %.
    pub(super) availability: u32,
}

impl EndpointSet {
    /// Builds a set, keeping the hosts of `previous` that are still there and marking those that are gone.
    pub fn build(
        previous: Option<&EndpointSet>,
        specs: Vec<HostSpec>,
        overprovisioning_percent: u32,
        balancing: Balancing,
    ) -> Arc<EndpointSet> {
        type Key = (Address, Arc<str>, Option<Arc<str>>);
        // Several endpoints may look alike: each keeps a host of its own.
        let mut kept: FxHashMap<Key, Vec<Arc<Host>>> = FxHashMap::default();
        for host in previous.into_iter().flat_map(EndpointSet::hosts) {
            let key = (host.address.clone(), host.hostname.clone(), host.workload.clone());
            kept.entry(key).or_default().push(host.clone());
        }
        let mut priorities: Vec<Priority> = Vec::new();
        for spec in specs {
            let key = (spec.address.clone(), spec.hostname.clone(), spec.workload.clone());
            let host = match kept.get_mut(&key).and_then(Vec::pop) {
                Some(host) => {
                    host.weight.store(spec.weight.max(1), Ordering::Relaxed);
                    host.eds_healthy.store(spec.healthy, Ordering::Relaxed);
                    host
                }
                None => {
                    Arc::new(Host::new(spec.address, spec.hostname, spec.weight, spec.healthy, spec.workload))
                }
            };
            host.metadata.store(spec.metadata);
            host.check.store(spec.check);
            host.priority.store(spec.priority, Ordering::Relaxed);
            let at = spec.priority as usize;
            while priorities.len() <= at {
                priorities.push(Priority { hosts: Vec::new() });
            }
            priorities[at].hosts.push(host);
        }
        for gone in kept.values().flatten() {
            gone.remove();
        }
        let set = Arc::new(EndpointSet {
            priorities,
            overprovisioning_percent,
            tables: ArcSwap::default(),
            cursor: AtomicUsize::new(fastrand::usize(..1 << 20)),
        });
        set.rebuild(balancing);
        set
    }

    /// Every host, by priority.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|p| &p.hosts)
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.priorities.iter().map(|p| p.hosts.len()).sum()
    }

    /// Whether there is no host at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of hosts that are healthy now.
    pub fn healthy(&self) -> usize {
        self.hosts().filter(|h| h.is_healthy()).count()
    }

    /// Takes over other rules (the cluster was updated). Main only.
    pub fn set_balancing(&self, balancing: Balancing) {
        if self.tables().balancing != balancing {
            self.rebuild(balancing);
        }
    }

    /// Whether hosts take traffic even when none is healthy.
    pub(super) fn panics_in_the_end(&self) -> bool {
        self.tables().balancing.panic_percent > 0
    }

    /// Rebuilds the tables from the hosts' present health. Main only.
    pub fn refresh(&self) {
        self.rebuild(self.tables().balancing);
    }

    fn rebuild(&self, balancing: Balancing) {
        let health: Vec<(u32, u32)> = self
            .priorities
            .iter()
            .map(|p| {
                let count = |of: fn(&Host) -> bool| p.hosts.iter().filter(|h| of(h)).count() as u32;
                (count(Host::is_healthy), count(|host| !host.is_excluded()))
            })
            .collect();
        let available = availability(&health, self.overprovisioning_percent);
        let split = split_load(&health, &available, balancing.panic_percent);
        let priorities = self
            .priorities
            .iter()
            .zip(split)
            .zip(available)
            .map(|((p, (load, panic)), availability)| {
                (load, Table { availability, ..Table::new(&p.hosts, panic, balancing.hashing) })
            })
            .collect();
        self.tables.store(Arc::new(Tables { priorities, balancing }));
    }

    pub(super) fn tables(&self) -> arc_swap::Guard<Arc<Tables>> {
        self.tables.load()
    }
}

impl Table {
    fn new(all: &[Arc<Host>], panic: bool, hashing: Option<Hashing>) -> Self {
        let hosts: Vec<Arc<Host>> = all.iter().filter(|h| panic || h.is_healthy()).cloned().collect();
        let weights: Vec<u32> = hosts.iter().map(|h| h.weight.load(Ordering::Relaxed)).collect();
        match hashing {
            Some(hashing) => {
                let hashed = Some(HashTable::build(&hosts, hashing));
                Table { hashed, hosts, panic, ..Table::default() }
            }
            None => Table { schedule: schedule(&weights), hosts, panic, ..Table::default() },
        }
    }
}

/// What each priority could take, in percent, of its (healthy, total) hosts: `min(100, overprovisioning × healthy share)`.
fn availability(health: &[(u32, u32)], overprovisioning_percent: u32) -> Vec<u32> {
    let of = |&(ok, all): &(u32, u32)| (overprovisioning_percent * ok).checked_div(all).unwrap_or(0).min(100);
    health.iter().map(of).collect()
}

/// Envoy's priority load formula: (healthy, total) per priority → (cumulative load in percent, panic) per priority.
///
/// Each priority takes what it can of what the ones before it left. When that does not reach
/// 100 % in sum, the loads are scaled up, and a priority with less than the threshold healthy panics. When nothing is healthy,
/// all panic and the load follows the number of hosts (none is served when panic is switched off).
fn split_load(health: &[(u32, u32)], availability: &[u32], panic_percent: u32) -> Vec<(u32, bool)> {
    let total = availability.iter().sum::<u32>().min(100);
    let hosts: u32 = health.iter().map(|&(_, all)| all).sum();
    let mut left = 100;
    let mut cumulative = 0;
    let mut first_load = None;
    let mut split: Vec<(u32, bool)> = Vec::with_capacity(health.len());
    for (&(ok, all), available) in health.iter().zip(availability) {
        let healthy_percent = (100 * ok).checked_div(all).unwrap_or(0);
        let (load, panic) = match (available * 100).checked_div(total) {
            Some(share) => (left.min(share), total < 100 && healthy_percent < panic_percent),
            None => ((100 * all).checked_div(hosts).unwrap_or(0), panic_percent > 0),
        };
        left -= load;
        if load > 0 && first_load.is_none() {
            first_load = Some(split.len());
        }
        split.push((load, panic));
    }
    // Rounding leaves a few percent: the first priority with load takes them.
    if let Some(first) = first_load {
        split[first].0 += left;
    }
    for (load, _) in &mut split {
        cumulative += *load;
        *load = cumulative;
    }
    split
}

/// Longest weighted schedule; larger weight sums are scaled down to it.
const MAX_SCHEDULE: u64 = 4096;

/// Interleaved weighted order (earliest deadline first) as indexes; empty when all weights are equal.
fn schedule(weights: &[u32]) -> Vec<u32> {
    let Some(first) = weights.first() else { return Vec::new() };
    if weights.iter().all(|w| w == first) {
        return Vec::new();
    }
    let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, u64::from(b)));
    let scale = |w: u32| {
        let w = u64::from(w) / divisor;
        if sum / divisor > MAX_SCHEDULE { (w * MAX_SCHEDULE * divisor / sum).max(1) } else { w }
    };
    let scaled: Vec<u64> = weights.iter().map(|&w| scale(w)).collect();
    let slots: u64 = scaled.iter().sum();

    struct Turn {
        deadline: f64,
        index: u32,
    }
    impl PartialEq for Turn {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Equal
        }
    }
    impl Eq for Turn {}
    impl PartialOrd for Turn {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Turn {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            other.deadline.total_cmp(&self.deadline).then(other.index.cmp(&self.index))
        }
    }

    let mut turns: BinaryHeap<Turn> =
        scaled.iter().enumerate().map(|(i, &w)| Turn { deadline: 0.5 / w as f64, index: i as u32 }).collect();
    let mut order = Vec::with_capacity(slots as usize);
    for _ in 0..slots {
        if let Some(mut turn) = turns.pop() {
            order.push(turn.index);
            turn.deadline += 1.0 / scaled[turn.index as usize] as f64;
            turns.push(turn);
        }
    }
    order
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(port: u16, weight: u32) -> HostSpec {
        HostSpec {
            address: Address::Ip(([127, 0, 0, 1], port).into()),
            hostname: "".into(),
            weight,
            healthy: true,
            workload: None,
            metadata: None,
            priority: 0,
            check: None,
        }
    }

    #[test]
    fn hosts_that_stay_are_the_same() {
        let old = EndpointSet::build(None, vec![spec(1, 1), spec(2, 1)], 140, Balancing::default());
        let new = EndpointSet::build(Some(&old), vec![spec(2, 3), spec(3, 1)], 140, Balancing::default());
        assert!(Arc::ptr_eq(&old.priorities[0].hosts[1], &new.priorities[0].hosts[0]));
        assert_eq!(new.priorities[0].hosts[0].weight.load(Ordering::Relaxed), 3);
        assert!(old.priorities[0].hosts[0].removed.load(Ordering::Relaxed));
        assert!(!new.priorities[0].hosts[0].removed.load(Ordering::Relaxed));
    }

    #[test]
    fn hosts_that_look_alike_stay_too() {
        let first = EndpointSet::build(None, vec![spec(1, 1), spec(1, 1)], 140, Balancing::default());
        let second =
            EndpointSet::build(Some(&first), vec![spec(1, 1), spec(1, 1)], 140, Balancing::default());
        let ids = |set: &EndpointSet| set.hosts().map(|h| h.id).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(ids(&first), ids(&second));
        EndpointSet::build(Some(&second), vec![spec(1, 1)], 140, Balancing::default());
        assert_eq!(second.hosts().filter(|h| h.removed.load(Ordering::Relaxed)).count(), 1);
    }

    fn split(health: &[(u32, u32)], panic_percent: u32) -> Vec<(u32, bool)> {
        split_load(health, &availability(health, 140), panic_percent)
    }

    #[test]
    fn load_follows_envoys_tables() {
        // From Envoy's documentation of priority levels: (healthy, total) of P0 and P1 → cumulative loads.
        for (health, expected) in [
            (vec![(100, 100), (100, 100)], vec![100, 100]),
            (vec![(72, 100), (100, 100)], vec![100, 100]),
            (vec![(71, 100), (71, 100)], vec![99, 100]),
            (vec![(50, 100), (60, 100)], vec![70, 100]),
            (vec![(25, 100), (100, 100)], vec![35, 100]),
            (vec![(0, 100), (100, 100)], vec![0, 100]),
            (vec![(25, 100), (25, 100)], vec![50, 100]),
        ] {
            let loads: Vec<u32> = split(&health, 50).into_iter().map(|(l, _)| l).collect();
            assert_eq!(loads, expected, "{health:?}");
        }
    }

    #[test]
    fn panic_below_the_threshold_only() {
        assert_eq!(split(&[(4, 10)], 50), [(100, true)]);
        assert_eq!(split(&[(5, 10)], 50), [(100, false)]);
        assert_eq!(split(&[(4, 10)], 0), [(100, false)]);
        assert_eq!(split(&[(0, 10)], 50), [(100, true)]);
        assert_eq!(split(&[(0, 10)], 0), [(100, false)]);
        assert_eq!(split(&[(4, 10), (10, 10)], 50), [(56, false), (100, false)]);
    }

    #[test]
    fn schedule_is_exact_and_interleaved() {
        assert!(schedule(&[2, 2]).is_empty());
        assert_eq!(schedule(&[2, 1]), [0, 1, 0]);
        let long = schedule(&[90_000, 10_000]);
        assert_eq!(long.iter().filter(|&&i| i == 0).count() * 10, long.len() * 9);
        assert!(schedule(&[1_000_003, 1]).len() as u64 <= MAX_SCHEDULE + 1);
    }
}
