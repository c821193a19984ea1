//! Zone-aware routing (`zone_aware_lb_config`): requests stay in the zone of this proxy as far as that loads no host more than others.
//!
//! All proxies of the mesh's local cluster (`cluster_manager.local_cluster_name`) are taken to have as many requests each. When the zone has
//! at least as large a part of the upstream hosts as of the proxies, everything stays; else so much that its hosts get their part, and the
//! rest goes to zones with room, by how much they have. Only in the first priority, and only to healthy hosts, as in Envoy.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::tables::Table;
use crate::cluster::endpoint_set::{LocalityHosts, Priority};
use crate::cluster::{EndpointSet, Health, Host, Locality};
use crate::config::live::Live;
use crate::stats::ClusterStats;

/// Parts that percentages are told by.
const WHOLE: u64 = 10_000;

/// What a cluster says of it.
#[derive(Debug, Clone)]
pub struct ZoneAware {
    /// `routing_enabled` in percent, default 100.
    pub enabled_percent: u32,
    /// `min_cluster_size`, default 6: with fewer healthy hosts there is none.
    pub min_cluster_size: u64,
    /// `force_local_zone.min_size`: with so many healthy hosts in the zone everything stays.
    pub force_min_size: Option<u32>,
    /// The proxies.
    pub local: Arc<LocalCluster>,
    /// `lb_zone_*` of the cluster.
    pub stats: Arc<ClusterStats>,
}

impl PartialEq for ZoneAware {
    fn eq(&self, other: &Self) -> bool {
        let Self { enabled_percent, min_cluster_size, force_min_size, local: _, stats: _ } = self;
        *enabled_percent == other.enabled_percent
            && *min_cluster_size == other.min_cluster_size
            && *force_min_size == other.force_min_size
    }
}

impl PartialEq for LocalCluster {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The cluster of all proxies like this one.
#[derive(Debug)]
pub struct LocalCluster {
    /// `cluster_manager.local_cluster_name`.
    pub name: Arc<str>,
    /// `node.locality`.
    pub locality: Arc<Locality>,
    /// Its hosts.
    pub endpoints: Arc<Live<EndpointSet>>,
    /// Sets whose tables depend on them.
    users: Mutex<Vec<Weak<EndpointSet>>>,
}

impl LocalCluster {
    /// Nobody depends on it yet.
    pub fn new(name: Arc<str>, locality: Arc<Locality>, endpoints: Arc<Live<EndpointSet>>) -> Arc<Self> {
        Arc::new(Self { name, locality, endpoints, users: Mutex::default() })
    }

    /// Remembers a set that is built by these hosts.
    pub(in crate::cluster) fn used_by(&self, set: Weak<EndpointSet>) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then, so that many clusters are not gone through for each of them.
        if users.len() == users.capacity() {
            users.retain(|user| user.strong_count() > 0);
        }
        users.push(set);
    }

    /// Its hosts, or their health, are other ones: whoever depends on them is built anew. Main only.
    pub fn has_changed(&self) {
        let users: Vec<Arc<EndpointSet>> = {
            let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.iter().filter_map(Weak::upgrade).collect()
        };
        users.iter().for_each(|set| set.refresh());
    }
}

/// Zones with their tables, and how much goes where.
#[derive(Debug)]
pub(super) struct Zones {
    enabled_percent: u32,
    split: Split,
    /// The local one first, if there is one.
    zones: Vec<Table>,
    /// All of them, for requests that are not routed by zone.
    all: Table,
    stats: Arc<ClusterStats>,
}

/// How much stays in the zone.
#[derive(Debug, PartialEq, Eq)]
enum Split {
    /// Everything.
    Local,
    /// So many parts of `WHOLE`; the rest by what each zone has room for, as running sums.
    Residual { local: u64, room: Vec<u64> },
}

/// Hosts of one zone here and there.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// Healthy proxies.
    local: u64,
    /// Healthy hosts of the cluster.
    upstream: u64,
}

impl Zones {
    /// `None` when requests go to all hosts alike: there are no zones to speak of, or too few hosts.
    pub(super) fn build(
        priority: &Priority,
        zone_aware: &ZoneAware,
        panic_percent: u32,
        table: impl Fn(Vec<Arc<Host>>) -> Table,
    ) -> Option<Self> {
        let stats = &zone_aware.stats;
        stats.zones.counted().lb_recalculate_zone_structures.inc();
        let proxies = zone_aware.local.endpoints.get();
        let first = proxies.as_ref().and_then(|set| set.priorities.first());
        let proxies: &[LocalityHosts] = first.map_or(&[], |first| &first.localities);
        let here = &zone_aware.local.locality;
        let is_here = |host: &Arc<Host>| **host.locality.load() == **here;
        if priority.localities.len() < 2 || (proxies.len() < 2 && zone_aware.force_min_size.is_none()) {
            return None;
        }
        if !first.is_some_and(|first| first.hosts.iter().any(is_here)) {
            stats.zones.counted().lb_local_cluster_not_ok.inc();
            return None;
        }
        if priority.localities.iter().map(healthy).sum::<u64>() < zone_aware.min_cluster_size {
            stats.zones.counted().lb_zone_cluster_too_small.inc();
            return None;
        }
        if panics(proxies, panic_percent) {
            stats.zones.counted().lb_local_cluster_not_ok.inc();
            return None;
        }
        let mut zones: Vec<&LocalityHosts> = priority.localities.iter().collect();
        zones.sort_by_key(|zone| zone.locality != *here);
        let shares: Vec<Share> = zones
            .iter()
            .map(|zone| Share {
                local: proxies.iter().find(|proxy| proxy.locality == zone.locality).map_or(0, healthy),
                upstream: healthy(zone),
            })
            .collect();
        let all_proxies = proxies.iter().map(healthy).sum();
        let has_local = zones[0].locality == *here;
        let forced = has_local
            && zone_aware.force_min_size.is_some_and(|min| shares[0].upstream >= u64::from(min.max(1)));
        let split = if forced { Split::Local } else { split(&shares, all_proxies, has_local) };
        let healthy_of =
            |zone: &LocalityHosts| zone.hosts.iter().filter(|host| is_healthy(host)).cloned().collect();
        let all = priority.hosts.iter().filter(|host| is_healthy(host)).cloned().collect();
        Some(Self {
            enabled_percent: zone_aware.enabled_percent,
            split,
            zones: zones.into_iter().map(|zone| table(healthy_of(zone))).collect(),
            all: table(all),
            stats: stats.clone(),
        })
    }

    /// The hosts for one request.
    pub(super) fn choose(&self) -> &Table {
        if self.enabled_percent < 100 && fastrand::u32(..100) >= self.enabled_percent {
            return &self.all;
        }
        let Split::Residual { local, room } = &self.split else {
            self.stats.zones.counted().lb_zone_routing_all_directly.inc();
            return &self.zones[0];
        };
        if fastrand::u64(..WHOLE) < *local {
            self.stats.zones.counted().lb_zone_routing_sampled.inc();
            return &self.zones[0];
        }
        self.stats.zones.counted().lb_zone_routing_cross_zone.inc();
        match room.last() {
            Some(&total) if total > 0 => {
                let at = fastrand::u64(..total);
                room.iter().position(|sum| at < *sum).map_or(&self.all, |zone| &self.zones[zone])
            }
            // What rounding does.
            _ => {
                self.stats.zones.counted().lb_zone_no_capacity_left.inc();
                &self.all
            }
        }
    }

    /// Takes over whose turn it is.
    pub(super) fn go_on(&self, previous: &Self) {
        self.all.turns.go_on(&previous.all.turns);
        self.zones.iter().zip(&previous.zones).for_each(|(new, old)| new.turns.go_on(&old.turns));
    }
}

fn is_healthy(host: &Host) -> bool {
    host.health() == Health::Healthy
}

fn healthy(zone: &LocalityHosts) -> u64 {
    zone.hosts.iter().filter(|host| is_healthy(host)).count() as u64
}

/// Whether too few of the proxies are well to know where requests come from.
fn panics(proxies: &[LocalityHosts], panic_percent: u32) -> bool {
    let all = || proxies.iter().flat_map(|zone| &zone.hosts);
    let well = all().filter(|host| host.is_healthy()).count();
    well * 100 < all().count() * panic_percent as usize
}

/// How much of the requests of one zone stays there. The first share is the local one, if `has_local`.
fn split(shares: &[Share], all_proxies: u64, has_local: bool) -> Split {
    let all_hosts: u64 = shares.iter().map(|share| share.upstream).sum();
    let part = |some: u64, all: u64| (WHOLE * some).checked_div(all).unwrap_or(0);
    let parts = |share: &Share| match share.upstream {
        0 => (0, 0),
        hosts => (part(share.local, all_proxies), part(hosts, all_hosts)),
    };
    let (local, upstream) = parts(&shares[0]);
    if has_local && upstream > 0 && upstream >= local {
        return Split::Local;
    }
    let mut sum = 0;
    let room = shares.iter().enumerate().map(|(index, share)| {
        let (local, upstream) = parts(share);
        if index > 0 || !has_local {
            sum += upstream.saturating_sub(local);
        }
        sum
    });
    let room = room.collect();
    let local = if has_local { (upstream * WHOLE).checked_div(local).unwrap_or(0) } else { 0 };
    Split::Residual { local, room }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(hosts: &[(u64, u64)]) -> Vec<Share> {
        hosts.iter().map(|&(local, upstream)| Share { local, upstream }).collect()
    }

    #[test]
    fn splits_follow_envoys_documentation() {
        for (hosts, has_local, expected) in [
            // As many hosts as proxies in the zone: all stay.
            (&[(1, 1), (1, 1)][..], true, Split::Local),
            (&[(2, 4), (8, 6)], true, Split::Local),
            // 20 % of the proxies, 10 % of the hosts: half of it stays, the rest where there is room.
            (&[(2, 1), (8, 9)], true, Split::Residual { local: 5_000, room: vec![0, 1_000] }),
            // Envoy's example: 40, 40, 20 % of the proxies and 25, 50, 25 % of the hosts.
            (&[(2, 1), (2, 2), (1, 1)], true, Split::Residual { local: 6_250, room: vec![0, 1_000, 1_500] }),
            // No host here.
            (&[(1, 0), (1, 4)], true, Split::Residual { local: 0, room: vec![0, 5_000] }),
            (&[(1, 2), (1, 2)], false, Split::Residual { local: 0, room: vec![0, 0] }),
            (&[(0, 2), (1, 2)], false, Split::Residual { local: 0, room: vec![5_000, 5_000] }),
        ] {
            let all = hosts.iter().map(|(local, _)| local).sum();
            assert_eq!(split(&shares(hosts), all, has_local), expected, "{hosts:?}");
        }
    }

    #[test]
    fn every_host_gets_the_same_when_all_proxies_do_it() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let zones = random.usize(2..5);
            let hosts: Vec<(u64, u64)> = (0..zones).map(|_| (random.u64(1..9), random.u64(1..9))).collect();
            let (all_proxies, all_hosts) =
                hosts.iter().fold((0, 0), |(a, b), (local, upstream)| (a + local, b + upstream));
            let mut load = vec![0.0; zones];
            for here in 0..zones {
                let mut order: Vec<usize> = (0..zones).collect();
                order.sort_by_key(|zone| *zone != here);
                let seen: Vec<(u64, u64)> = order.iter().map(|zone| hosts[*zone]).collect();
                let from_here = hosts[here].0 as f64;
                match split(&shares(&seen), all_proxies, true) {
                    Split::Local => load[here] += from_here,
                    Split::Residual { local, room } => {
                        let stays = local as f64 / WHOLE as f64;
                        load[here] += from_here * stays;
                        let total = *room.last().unwrap_or(&0) as f64;
                        let mut before = 0;
                        for (zone, sum) in order.iter().zip(&room) {
                            load[*zone] += from_here * (1.0 - stays) * (sum - before) as f64 / total.max(1.0);
                            before = *sum;
                        }
                    }
                }
            }
            for (zone, (_, upstream)) in hosts.iter().enumerate() {
                let fair = all_proxies as f64 * *upstream as f64 / all_hosts as f64;
                assert!((load[zone] - fair).abs() < 0.05 * fair + 0.05, "{hosts:?}: {load:?}");
            }
        }
    }
}
