//! The hosts of a cluster and the tables that picking reads. Built on main; workers only read.
//!
//! Hosts that an update keeps are the same `Arc<Host>`, with their health, counters and pools. A change of health rebuilds the
//! tables only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::kept_hosts::KeptHosts;
use super::lb::{Hashing, LocalCluster, SlowStart, SubsetIndex, Subsets, Tables, ZoneAware};
use super::{CheckTarget, EdsHealth, Health, Host, Locality};
use crate::metadata::Metadata;
use crate::net::Address;
use crate::stats::ClusterStats;

/// One `LbEndpoint`, resolved by the compiler.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSpec {
    /// `endpoint.address`.
    pub address: Address,
    /// `endpoint.additional_addresses`, or the other addresses of a logical name; `None`: there are none.
    pub more_addresses: Option<Arc<Vec<SocketAddr>>>,
    /// `endpoint.hostname`.
    pub hostname: Arc<str>,
    /// `load_balancing_weight`, default 1.
    pub weight: u32,
    /// `health_status`.
    pub health: EdsHealth,
    /// `metadata.filter_metadata.istio.workload`.
    pub workload: Option<Arc<str>>,
    /// `metadata`.
    pub metadata: Option<Arc<Metadata>>,
    /// `priority` of its `LocalityLbEndpoints`.
    pub priority: u32,
    /// `locality` of its `LocalityLbEndpoints`.
    pub locality: Arc<Locality>,
    /// `load_balancing_weight` of its `LocalityLbEndpoints`; 0 when there is none.
    pub locality_weight: u32,
    /// `endpoint.health_check_config`.
    pub check: Option<Arc<CheckTarget>>,
}

impl HostSpec {
    /// A healthy host of weight 1 at this address, nothing else said of it.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            more_addresses: None,
            hostname: "".into(),
            weight: 1,
            health: EdsHealth::Healthy,
            workload: None,
            metadata: None,
            priority: 0,
            locality: Locality::none(),
            locality_weight: 0,
            check: None,
        }
    }
}

/// All hosts of a cluster by priority (`ClusterLoadAssignment`).
#[derive(Debug)]
pub struct EndpointSet {
    /// Index = priority.
    pub priorities: Vec<Priority>,
    /// `policy.overprovisioning_factor` in percent, default 140.
    pub overprovisioning_percent: u32,
    tables: ArcSwap<Tables>,
    /// Its hosts warm up, and `slow_start::follow` looks after that.
    warms: AtomicBool,
    me: Weak<EndpointSet>,
}

/// What the cluster says of how its tables are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancing {
    /// `common_lb_config.healthy_panic_threshold` in percent, default 50; 0 switches panic off.
    pub panic_percent: u32,
    /// Of a policy that looks up a hash.
    pub hashing: Option<Hashing>,
    /// `common_lb_config.locality_weighted_lb_config`: traffic goes to localities by their weights.
    pub by_locality_weight: bool,
    /// `zone_aware_lb_config.fail_traffic_on_panic`: a priority that panics takes no traffic at all.
    pub fails_on_panic: bool,
    /// `common_lb_config.close_connections_on_host_set_change`: when hosts come or go, the connections to those that stay are given up.
    pub drains_on_change: bool,
    /// `slow_start_config` of the policy.
    pub slow_start: Option<Arc<SlowStart>>,
    /// `lb_subset_config`: routes may ask for some of the hosts.
    pub subsets: Option<Arc<Subsets>>,
    /// Requests stay in the zone.
    pub zone_aware: Option<Box<ZoneAware>>,
    /// The cluster is that of the proxies themselves: other sets depend on it.
    pub local_cluster: Option<Arc<LocalCluster>>,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            panic_percent: 50,
            hashing: None,
            by_locality_weight: false,
            fails_on_panic: false,
            drains_on_change: false,
            slow_start: None,
            subsets: None,
            zone_aware: None,
            local_cluster: None,
        }
    }
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub struct Priority {
    /// All of them, healthy or not.
    pub hosts: Vec<Arc<Host>>,
    /// The same by locality, in the order of these; empty when nothing tells the hosts apart: all stand in one locality, without a weight.
    pub(super) localities: Vec<LocalityHosts>,
}

/// The hosts of one locality in one priority.
#[derive(Debug)]
pub(super) struct LocalityHosts {
    pub(super) locality: Arc<Locality>,
    /// `LocalityLbEndpoints.load_balancing_weight`; 0 when there is none.
    pub(super) weight: u32,
    pub(super) hosts: Vec<Arc<Host>>,
}

impl EndpointSet {
    /// Builds a set, keeping the hosts of `previous` that are still there and marking those that are gone.
    pub fn build(
        previous: Option<&EndpointSet>,
        specs: Vec<HostSpec>,
        overprovisioning_percent: u32,
        balancing: Balancing,
    ) -> Arc<EndpointSet> {
        let KeptHosts { hosts: kept, gone } = KeptHosts::find(previous, &specs);
        let mut priorities: Vec<Priority> = Vec::new();
        let mut localities: Vec<ByLocality> = Vec::new();
        let mut is_other = !gone.is_empty();
        for (spec, kept) in specs.into_iter().zip(kept) {
            let (at, locality, locality_weight) =
                (spec.priority as usize, spec.locality.clone(), spec.locality_weight);
            let host = match kept {
                Some(host) => {
                    host.update(spec);
                    host
                }
                None => {
                    is_other = true;
                    Arc::new(Host::of(spec))
                }
            };
            while priorities.len() <= at {
                priorities.push(Priority::default());
                localities.push(BTreeMap::new());
            }
            // When the same locality comes twice, what is said last counts.
            let (weight, hosts) = localities[at].entry(locality).or_default();
            *weight = locality_weight;
            hosts.push(host.clone());
            priorities[at].hosts.push(host);
        }
        for (priority, localities) in priorities.iter_mut().zip(localities) {
            priority.localities = by_locality(localities);
        }
        gone.iter().for_each(|gone| gone.remove());
        if is_other && balancing.drains_on_change {
            priorities.iter().flat_map(|priority| &priority.hosts).for_each(|host| host.drain());
        }
        let set = Arc::new_cyclic(|me| EndpointSet {
            priorities,
            overprovisioning_percent,
            tables: ArcSwap::default(),
            warms: AtomicBool::new(false),
            me: me.clone(),
        });
        set.rebuild(balancing);
        let before = previous.map(|previous| previous.tables.load_full());
        count_subsets(before.as_deref(), &set.tables());
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

    /// Counts the hosts and how they are.
    pub fn count(&self, stats: &ClusterStats) {
        let of = |health| self.hosts().filter(|host| host.health() == health).count() as i64;
        stats.membership_total.set(self.len() as i64);
        stats.membership_healthy.set(of(Health::Healthy));
        stats.membership_degraded.set(of(Health::Degraded));
    }

    /// Takes over other rules (the cluster was updated). Main only.
    pub fn set_balancing(&self, balancing: Balancing) {
        let before = self.tables.load_full();
        if before.balancing != balancing {
            self.rebuild(balancing);
            count_subsets(Some(&before), &self.tables());
        }
    }

    /// Rebuilds the tables from the hosts' present health. Main only.
    pub fn refresh(&self) {
        self.rebuild(self.tables().balancing.clone());
    }

    fn rebuild(&self, balancing: Balancing) {
        let now = Instant::now();
        let slow_start = balancing.slow_start.clone();
        let warms = slow_start.as_ref().is_some_and(|slow_start| slow_start.begin(self.hosts(), now));
        if let Some(zone_aware) = &balancing.zone_aware
            && self.tables().balancing.zone_aware.is_none()
        {
            zone_aware.local.used_by(self.me.clone());
        }
        let local_cluster = balancing.local_cluster.clone();
        let previous = self.tables();
        // Which host is in which subset does not change with their health.
        let index = balancing.subsets.as_ref().map(|subsets| match &previous.subsets {
            Some(same) if previous.balancing.subsets.as_ref() == Some(subsets) => same.index.clone(),
            _ => Arc::new(SubsetIndex::build(&self.priorities, subsets)),
        });
        let overprovisioning = self.overprovisioning_percent;
        let tables = Tables::build(&self.priorities, overprovisioning, balancing, index, &previous, now);
        self.tables.store(Arc::new(tables));
        let followed = self.warms.swap(warms, Ordering::Relaxed);
        if let Some(slow_start) = slow_start
            && warms
            && !followed
        {
            slow_start.warm_ups.send(self.me.clone());
        }
        if let Some(local_cluster) = local_cluster {
            local_cluster.has_changed();
        }
    }

    /// Rebuilds the tables for hosts that warm up; when to do so again, if they are not warm yet. Main only.
    pub(super) fn warm_on(&self) -> Option<Duration> {
        self.refresh();
        let slow_start = self.tables().balancing.slow_start.clone()?;
        self.warms.load(Ordering::Relaxed).then(|| slow_start.step(self.len()))
    }

    pub(super) fn tables(&self) -> arc_swap::Guard<Arc<Tables>> {
        self.tables.load()
    }
}

/// Counts which subsets have come and gone.
fn count_subsets(old: Option<&Tables>, new: &Tables) {
    let index = |tables: &Tables| tables.subsets.as_ref().map(|subsets| subsets.index.clone());
    SubsetIndex::count(old.and_then(index).as_deref(), index(new).as_deref());
}

/// For each locality its weight and its hosts.
type ByLocality = BTreeMap<Arc<Locality>, (u32, Vec<Arc<Host>>)>;

/// Nothing when a single locality has no weight: most clusters are like that, and hosts are not listed twice.
fn by_locality(localities: ByLocality) -> Vec<LocalityHosts> {
    if localities.len() == 1 && localities.values().all(|(weight, _)| *weight == 0) {
        return Vec::new();
    }
    let of = |(locality, (weight, hosts))| LocalityHosts { locality, weight, hosts };
    localities.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(port: u16, weight: u32) -> HostSpec {
        HostSpec { weight, ..HostSpec::at(Address::Ip(([127, 0, 0, 1], port).into())) }
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
    fn connections_are_given_up_when_hosts_come_or_go() {
        let drains = || Balancing { drains_on_change: true, ..Balancing::default() };
        let old = EndpointSet::build(None, vec![spec(1, 1)], 140, drains());
        let host = old.hosts().next().unwrap().clone();
        let mut before = host.drains();
        let mut set = old;
        for (specs, balancing, expected) in [
            // Another weight is no other host.
            (vec![spec(1, 2)], drains(), false),
            (vec![spec(1, 1), spec(2, 1)], drains(), true),
            (vec![spec(1, 1)], drains(), true),
            (vec![spec(1, 1), spec(3, 1)], Balancing::default(), false),
        ] {
            set = EndpointSet::build(Some(&set), specs, 140, balancing);
            assert_eq!(host.drains() != before, expected);
            before = host.drains();
        }
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
}
