//! What a pick reads. Built on main when a host comes, goes or changes health; workers only read.
//!
//! The hosts that may take traffic stand in tiers: the healthy ones of each priority, then the degraded ones of each. A tier has its
//! load (`priority_load`) and the tables of its hosts. Most clusters have one tier with one table. A cluster with subsets has all this
//! for each of them too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::hashing::{HashTable, Hashing};
use super::locality::{self, Weighted};
use super::priority_load::{Availability, Counted, Load, availability, split};
use super::subsets::{SubsetIndex, SubsetTables};
use super::turns::Turns;
use super::zone::Zones;
use crate::cluster::endpoint_set::Priority;
use crate::cluster::{Balancing, Health, Host};

/// Parts of a weight that slow start tells apart.
const PARTS: f64 = 1_000.0;

/// All tiers of a cluster.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Tables {
    pub(super) tiers: Vec<Tier>,
    /// On the heap, for most clusters have none.
    pub(in crate::cluster) subsets: Option<Box<SubsetTables>>,
    /// What they were built by.
    pub(in crate::cluster) balancing: Balancing,
}

/// Hosts of one priority that are alike in health.
#[derive(Debug)]
pub(super) struct Tier {
    /// Its load and that of all tiers before it, percent.
    pub(super) cumulative: u32,
    pub(super) priority: u32,
    /// How much of the traffic it could take, at most 100 %.
    pub(super) availability: u32,
    /// Too few hosts are well: all of the priority's take traffic.
    pub(super) panic: bool,
    pub(super) spread: Spread,
}

/// How a tier's traffic is spread over its hosts.
#[derive(Debug)]
pub(super) enum Spread {
    /// Over all of them.
    All(Table),
    /// Over localities by weight, then over the hosts of the locality.
    Weighted(Box<Weighted>),
    /// Over zones, this proxy's own first, then over the hosts of the zone.
    Zones(Box<Zones>),
}

/// Hosts to pick from.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) turns: Turns,
    /// Where a hash finds its host.
    pub(super) hashed: Option<HashTable>,
}

impl Tables {
    /// Builds the tables of these hosts, and of each subset of `index`, by `balancing`. Round robin goes on where the tables of
    /// `previous` are.
    pub(in crate::cluster) fn build(
        priorities: &[Priority],
        overprovisioning_percent: u32,
        balancing: Balancing,
        index: Option<Arc<SubsetIndex>>,
        previous: &Self,
        now: Instant,
    ) -> Self {
        let builder = Builder {
            balancing: &balancing,
            by_locality_weight: balancing.by_locality_weight
                && balancing.subsets.as_ref().is_none_or(|subsets| subsets.locality_weight_aware),
            overprovisioning_percent,
            now,
        };
        let tiers = builder.tiers(priorities, &previous.tiers);
        let subsets = index.map(|index| {
            let same = previous.subsets.as_ref().filter(|old| Arc::ptr_eq(&old.index, &index));
            let before = |number: usize| same.map_or(&[][..], |old| &old.tiers[number]);
            let groups = index.groups.iter().enumerate();
            let tiers = groups.map(|(number, group)| match group.is_single {
                true => Vec::new(),
                false => builder.tiers(&group.priorities, before(number)),
            });
            Box::new(SubsetTables { tiers: tiers.collect(), index: index.clone() })
        });
        Tables { tiers, subsets, balancing }
    }
}

impl Builder<'_> {
    /// The tiers of these hosts. Round robin goes on where `previous` is.
    fn tiers(&self, priorities: &[Priority], previous: &[Tier]) -> Vec<Tier> {
        let balancing = self.balancing;
        let counted: Vec<Counted> = priorities.iter().map(count).collect();
        let available: Vec<Availability> =
            counted.iter().map(|counted| availability(*counted, self.overprovisioning_percent)).collect();
        let loads = split(&counted, &available, balancing.panic_percent);
        let all = || (0..).zip(priorities).zip(counted.iter().zip(available.iter().zip(&loads)));
        let mut tiers = Vec::with_capacity(priorities.len());
        for ((number, priority), (counted, (available, load))) in all() {
            tiers.push(match balancing.hashing {
                Some(hashing) => self.hashed(number, priority, *counted, *available, *load, hashing),
                None => {
                    let (available, healthy) = (available.healthy, load.healthy);
                    self.tier(number, priority, Health::Healthy, available, healthy, load.panic)
                }
            });
        }
        for ((number, priority), (counted, (available, load))) in all() {
            if counted.degraded > 0 && balancing.hashing.is_none() {
                let (available, load, panic) = (available.degraded, load.degraded, load.panic);
                tiers.push(self.tier(number, priority, Health::Degraded, available, load, panic));
            }
        }
        let mut cumulative = 0;
        for tier in &mut tiers {
            cumulative += tier.cumulative;
            tier.cumulative = cumulative;
        }
        tiers.iter().zip(previous).for_each(|(new, old)| new.spread.go_on(&old.spread));
        tiers
    }
}

fn count(priority: &Priority) -> Counted {
    let mut counted = Counted::default();
    for host in &priority.hosts {
        counted.total += u32::from(!host.is_excluded());
        match host.health() {
            Health::Healthy => counted.healthy += 1,
            Health::Degraded => counted.degraded += 1,
            Health::Unhealthy => {}
        }
    }
    counted
}

/// What all tiers are built by.
struct Builder<'a> {
    balancing: &'a Balancing,
    /// Localities have weights, also in subsets.
    by_locality_weight: bool,
    overprovisioning_percent: u32,
    now: Instant,
}

impl Builder<'_> {
    /// A tier of hosts of this health; its load is not yet cumulative.
    fn tier(
        &self,
        number: u32,
        priority: &Priority,
        health: Health,
        availability: u32,
        load: u32,
        panic: bool,
    ) -> Tier {
        let takes = |host: &Arc<Host>| panic || host.health() == health;
        let weighted = if self.by_locality_weight && !panic {
            Weighted::build(&priority.localities, self.overprovisioning_percent, takes, |hosts| {
                self.table(hosts)
            })
        } else {
            None
        };
        let zone_aware = self.balancing.zone_aware.as_ref();
        let zone_aware =
            zone_aware.filter(|_| number == 0 && health == Health::Healthy && weighted.is_none());
        let zones = zone_aware
            .and_then(|zone_aware| {
                Zones::build(priority, zone_aware, self.balancing.panic_percent, |hosts| self.table(hosts))
            })
            .filter(|_| !panic);
        let spread = match (weighted, zones) {
            (Some(weighted), _) => Spread::Weighted(Box::new(weighted)),
            (None, Some(zones)) => Spread::Zones(Box::new(zones)),
            (None, None) => {
                Spread::All(self.table(priority.hosts.iter().filter(|host| takes(host)).cloned().collect()))
            }
        };
        Tier { cumulative: load, priority: number, availability, panic, spread }
    }

    fn table(&self, hosts: Vec<Arc<Host>>) -> Table {
        let weight = |host: &Arc<Host>| host.weight.load(Ordering::Relaxed);
        let weights: Vec<u64> = match &self.balancing.slow_start {
            None => hosts.iter().map(|host| weight(host).into()).collect(),
            Some(slow_start) => {
                let now = self.now;
                let warm = |host| f64::from(weight(host)) * slow_start.factor_of(host, now) * PARTS;
                hosts.iter().map(|host| warm(host).round().max(1.0) as u64).collect()
            }
        };
        Table { turns: Turns::new(&weights), hosts, hashed: None }
    }

    /// A priority in which hashes find their hosts: one table, in which the weight of a locality is a part of that of its hosts. As in
    /// Envoy degraded hosts have no hashes; here they have them when there is no healthy one.
    fn hashed(
        &self,
        number: u32,
        priority: &Priority,
        counted: Counted,
        available: Availability,
        load: Load,
        hashing: Hashing,
    ) -> Tier {
        let health = if counted.healthy > 0 { Health::Healthy } else { Health::Degraded };
        let takes = |host: &Arc<Host>| load.panic || host.health() == health;
        let by_locality =
            if self.by_locality_weight { locality::shares(&priority.localities, takes) } else { None };
        let shares = by_locality.unwrap_or_else(|| {
            let hosts: Vec<Arc<Host>> = priority.hosts.iter().filter(|host| takes(host)).cloned().collect();
            locality::shares_of_hosts(&hosts, 1.0)
        });
        let (hosts, shares): (Vec<Arc<Host>>, Vec<f64>) = shares.into_iter().unzip();
        let hashed = Some(HashTable::build(&hosts, &shares, hashing));
        let table = Table { turns: Turns::new(&vec![1; hosts.len()]), hosts, hashed };
        Tier {
            cumulative: load.healthy + load.degraded,
            priority: number,
            availability: (available.healthy + available.degraded).min(100),
            panic: load.panic,
            spread: Spread::All(table),
        }
    }
}

impl Spread {
    /// Takes over whose turn it is.
    fn go_on(&self, previous: &Self) {
        match (self, previous) {
            (Self::All(new), Self::All(old)) => new.turns.go_on(&old.turns),
            (Self::Weighted(new), Self::Weighted(old)) => new.go_on(old),
            (Self::Zones(new), Self::Zones(old)) => new.go_on(old),
            (Self::All(_) | Self::Weighted(_) | Self::Zones(_), _) => {}
        }
    }
}
