//! Load balancing: one file a policy; picking reads tables that main built. The hosts of an `ORIGINAL_DST` cluster are not picked
//! but asked for.

pub(super) mod hashing;
mod least_request;
mod locality;
mod peak_ewma;
mod priority_load;
mod schedule;
pub mod slow_start;
mod subsets;
mod tables;
mod turns;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::endpoint_set::Priority;
use super::{Balancing, Cluster, EndpointSet, Host, OriginalDestinations};

pub use hashing::{HashFunction, HashTableKind, Hashing};
pub(super) use peak_ewma::AnswerTime;
pub use peak_ewma::PeakEwma;
pub use slow_start::SlowStart;
pub(super) use subsets::SubsetIndex;
pub use subsets::{Criteria, Fallback, Selector, SelectorFallback, Subsets, Values};
pub(super) use tables::Tables;
use tables::{Spread, Table, Tier};
pub use zone::{LocalCluster, ZoneAware};

/// How many entries of a hash table are looked at for a host that is not ejected, before the hosts are gone through one by one.
const HASH_ATTEMPTS: u32 = 32;

/// `lb_policy`.
#[derive(Debug, Clone)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `LEAST_REQUEST`.
    LeastRequest {
        /// `choice_count`: how many random hosts of equal weight are compared, at least 2.
        choices: u32,
        /// `active_request_bias`: what requests in flight take from the weight of a host, where weights are not equal; at least 0.
        bias: f64,
    },
    /// `RANDOM`.
    Random,
    /// `envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma`.
    PeakEwma(PeakEwma),
    /// `RING_HASH` and `MAGLEV`.
    Hash(Hashing),
    /// `CLUSTER_PROVIDED` of an `ORIGINAL_DST` cluster: the connection's own destination.
    OriginalDst {
        /// The hosts so far.
        destinations: Arc<OriginalDestinations>,
        /// `original_dst_lb_config.upstream_port_override`: the port to connect to instead of the destination's.
        port: Option<u16>,
    },
}

/// What a pick may depend on besides the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The original destination of the downstream connection, if it was restored.
    pub original_destination: Option<SocketAddr>,
    /// What the hash policies made of the request or connection; `None` stands for any hash.
    pub hash: Option<u64>,
    /// How many hosts were picked for this attempt already, and not wanted.
    pub redraw: u32,
    /// Priorities to leave out, as long as there are others.
    pub excluded_priorities: &'a [u32],
    /// What the route asks of the hosts, of a cluster with subsets.
    pub criteria: Option<&'a Criteria>,
    /// The present time, where it is known; a policy that goes by it reads the clock otherwise.
    pub now: Option<Instant>,
}

impl LbPolicy {
    /// How its hash tables are made, if it has some.
    pub fn hashing(&self) -> Option<Hashing> {
        match self {
            Self::Hash(hashing) => Some(*hashing),
            _ => None,
        }
    }

    /// Whether it goes by how long answers take: it wants to be told (`answered`).
    pub fn times_answers(&self) -> bool {
        matches!(self, Self::PeakEwma(_))
    }

    /// The present time, for a policy that goes by it.
    pub fn now(&self) -> Option<Instant> {
        self.times_answers().then(Instant::now)
    }
}

/// The host has answered after this time, or failed: its answer says so, or there is none.
pub(crate) fn answered(cluster: &Cluster, host: &Host, time: Duration, has_failed: bool) {
    if let LbPolicy::PeakEwma(policy) = &cluster.lb {
        policy.answered(cluster, host, time, has_failed);
    }
}

/// Picks a host for one attempt; `None` when there is none that may take it.
// A function of its own, for its instructions are counted (`tests/suites/picks.rs`).
#[inline(never)]
pub fn pick(cluster: &Cluster, context: Context<'_>) -> Option<Arc<Host>> {
    let picked = match &cluster.lb {
        LbPolicy::OriginalDst { destinations, port } => {
            context.original_destination.map(|mut destination| {
                destination.set_port(port.unwrap_or(destination.port()));
                destinations.host(destination)
            })
        }
        _ => pick_in_set(cluster, context),
    };
    if picked.is_none() {
        cluster.stats.upstream_cx_none_healthy.inc();
    }
    picked
}

/// A host of the cluster's present set.
fn pick_in_set(cluster: &Cluster, context: Context<'_>) -> Option<Arc<Host>> {
    let set = cluster.endpoints.peek();
    let set = set.as_ref()?;
    let tables = set.tables();
    match &tables.subsets {
        None => pick_in(cluster, &Pool::all(set, &tables), context),
        Some(subsets) => subsets::pick(cluster, set, &tables, subsets, context),
    }
}

/// Hosts to pick from: those of a cluster, or of one of its subsets.
struct Pool<'a> {
    tiers: &'a [Tier],
    priorities: &'a [Priority],
    balancing: &'a Balancing,
}

impl<'a> Pool<'a> {
    fn all(set: &'a EndpointSet, tables: &'a Tables) -> Self {
        Self { tiers: &tables.tiers, priorities: &set.priorities, balancing: &tables.balancing }
    }

    fn hosts(&self) -> impl Iterator<Item = &'a Arc<Host>> {
        self.priorities.iter().flat_map(|priority| &priority.hosts)
    }
}

/// One of these hosts, by the cluster's policy.
fn pick_in(cluster: &Cluster, pool: &Pool<'_>, context: Context<'_>) -> Option<Arc<Host>> {
    let random = || fastrand::u32(..100);
    let excluded = context.excluded_priorities;
    match &cluster.lb {
        // Its hosts are asked for.
        LbPolicy::OriginalDst { .. } => None,
        LbPolicy::RoundRobin => pick_by(cluster, pool, excluded, random, |table, _| Some(table.turns.next())),
        LbPolicy::LeastRequest { choices, bias } => pick_by(cluster, pool, excluded, random, |table, _| {
            Some(least_request::pick(table, *choices, *bias))
        }),
        // As in Envoy it knows no weights of hosts.
        LbPolicy::Random => {
            pick_by(cluster, pool, excluded, random, |table, _| Some(fastrand::usize(..table.hosts.len())))
        }
        LbPolicy::PeakEwma(policy) => {
            pick_by(cluster, pool, excluded, random, |table, _| Some(policy.pick(table, context.now)))
        }
        LbPolicy::Hash(_) => {
            let hash = context.hash.unwrap_or_else(|| fastrand::u64(..));
            pick_by(
                cluster,
                pool,
                excluded,
                || (hash % 100) as u32,
                |table, panic| pick_by_hash(cluster, table, panic, hash, context.redraw),
            )
        }
    }
}

/// The host of the table of one tier of the pool: the tier by `percentile` (0 to 99), the host at the index that the policy says of the
/// table and of whether the tier panics.
fn pick_by(
    cluster: &Cluster,
    pool: &Pool<'_>,
    excluded: &[u32],
    percentile: impl FnOnce() -> u32,
    policy: impl FnOnce(&Table, bool) -> Option<usize>,
) -> Option<Arc<Host>> {
    let tier = match pool.tiers {
        [only] => only,
        several => {
            let at = percentile();
            match tier_without(several, excluded, at) {
                Some(index) => &several[index],
                None => several.iter().find(|tier| at < tier.cumulative)?,
            }
        }
    };
    let table = match &tier.spread {
        Spread::All(table) => table,
        Spread::Weighted(localities) => localities.next(),
        Spread::Zones(zones) => zones.choose(),
    };
    if tier.panic {
        cluster.stats.lb_healthy_panic.inc();
        if pool.balancing.fails_on_panic {
            return None;
        }
    }
    if table.hosts.is_empty() {
        return None;
    }
    let index = policy(table, tier.panic)?;
    let host = &table.hosts[index];
    if tier.panic || host.is_healthy() {
        return Some(host.clone());
    }
    // Ejected a moment ago by a worker; main has not rebuilt the table yet.
    let (before, after) = table.hosts.split_at(index);
    let near = after.iter().chain(before).find(|h| h.is_healthy());
    // All of them: what main will find is panic, unless that is switched off.
    let healthy = near.or_else(|| pool.hosts().find(|h| h.is_healthy()));
    healthy.or_else(|| (pool.balancing.panic_percent > 0).then_some(host)).cloned()
}

/// Whether hosts of other priorities than these may take traffic that asks for `criteria`.
pub fn has_other_priority(cluster: &Cluster, criteria: Option<&Criteria>, excluded: &[u32]) -> bool {
    let set = cluster.endpoints.peek();
    set.as_ref().is_some_and(|set| {
        let tables = set.tables();
        let pool = first_pool(set, &tables, criteria);
        pool.is_some_and(|pool| availability_without(pool.tiers, excluded) > 0)
    })
}

/// The first host of the cluster's set that traffic which asks for `criteria` may go to, and `may` says so of, however it is.
pub(super) fn find(
    cluster: &Cluster,
    criteria: Option<&Criteria>,
    may: impl Fn(&Arc<Host>) -> bool,
) -> Option<Arc<Host>> {
    let set = cluster.endpoints.peek();
    let set = set.as_ref()?;
    let tables = set.tables();
    first_pool(set, &tables, criteria)?.hosts().find(|host| may(host)).cloned()
}

/// The hosts that are tried first.
fn first_pool<'a>(set: &'a EndpointSet, tables: &'a Tables, criteria: Option<&Criteria>) -> Option<Pool<'a>> {
    match &tables.subsets {
        None => Some(Pool::all(set, tables)),
        Some(subsets) => subsets::first_pool(set, tables, subsets, criteria),
    }
}

/// In percent, at most 100.
fn availability_without(tiers: &[Tier], excluded: &[u32]) -> u32 {
    others(tiers, excluded).map(|(_, availability)| availability).sum::<u32>().min(100)
}

fn others(tiers: &[Tier], excluded: &[u32]) -> impl Iterator<Item = (usize, u32)> {
    let may = |tier: &Tier| tier.availability > 0 && !excluded.contains(&tier.priority);
    tiers
        .iter()
        .enumerate()
        .filter(move |(_, tier)| may(tier))
        .map(|(index, tier)| (index, tier.availability))
}

/// The tier at this percentile of the load without these priorities; `None`: the load is as always. What rounding leaves is for the
/// first.
fn tier_without(tiers: &[Tier], excluded: &[u32], percentile: u32) -> Option<usize> {
    if excluded.is_empty() {
        return None;
    }
    let total = availability_without(tiers, excluded);
    let mut others = others(tiers, excluded).peekable();
    let first = others.peek()?.0;
    let mut cumulative = 0;
    let at = others.find(|(_, available)| {
        cumulative += available * 100 / total;
        percentile < cumulative
    });
    Some(at.map_or(first, |(index, _)| index))
}

/// The host of the hash's entry. One that was ejected a moment ago is passed over like one that a retry does not want: on a ring the
/// next one is mostly the one that main's new table will have there.
fn pick_by_hash(cluster: &Cluster, table: &Table, panic: bool, hash: u64, redraw: u32) -> Option<usize> {
    // The policy is newer than the table: main is about to publish another one.
    let Some(hashed) = &table.hashed else { return Some(table.turns.random()) };
    let active = || u32::try_from(cluster.stats.upstream_rq_active.get()).unwrap_or(0);
    let entry = |attempt| hashed.pick(&table.hosts, hash, attempt, active);
    let first = entry(redraw)?;
    if panic || table.hosts[first].is_healthy() {
        return Some(first);
    }
    let mut others = (redraw + 1..=redraw + HASH_ATTEMPTS).filter_map(entry);
    others.find(|index| table.hosts[*index].is_healthy()).or(Some(first))
}

/// Requests in flight at a host, for comparing.
fn active(host: &Host) -> u32 {
    host.active_requests.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
