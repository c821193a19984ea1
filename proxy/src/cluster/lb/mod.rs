//! Load balancing: one file a policy; picking reads tables that main built. The hosts of an `ORIGINAL_DST` cluster are not picked
//! but asked for.

pub(super) mod hashing;
mod least_request;
mod random;
mod round_robin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::endpoint_set::Table;
use super::{Cluster, EndpointSet, Host, OriginalDestinations};

pub use hashing::{HashFunction, HashTableKind, Hashing};

/// How many entries of a hash table are looked at for a host that is not ejected, before the hosts are gone through one by one.
const HASH_ATTEMPTS: u32 = 32;

/// `lb_policy`.
#[derive(Debug, Clone)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `LEAST_REQUEST` with `choice_count` (default 2).
    LeastRequest {
        /// How many random hosts are compared, at least 2.
        choices: u32,
    },
    /// `RANDOM`.
    Random,
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
}

/// What a policy picks from.
struct Choice<'a> {
    cluster: &'a Cluster,
    set: &'a EndpointSet,
    table: &'a Table,
}

impl LbPolicy {
    /// How its hash tables are made, if it has some.
    pub fn hashing(&self) -> Option<Hashing> {
        match self {
            Self::Hash(hashing) => Some(*hashing),
            _ => None,
        }
    }
}

/// Picks a host for one attempt; `None` when there is none that may take it.
pub fn pick(cluster: &Cluster, context: Context<'_>) -> Option<Arc<Host>> {
    let random = || fastrand::u32(..100);
    let excluded = context.excluded_priorities;
    let picked = match &cluster.lb {
        LbPolicy::OriginalDst { destinations, port } => {
            context.original_destination.map(|mut destination| {
                destination.set_port(port.unwrap_or(destination.port()));
                destinations.host(destination)
            })
        }
        LbPolicy::RoundRobin => {
            pick_by(cluster, excluded, random, |from| Some(round_robin::pick(from.table, &from.set.cursor)))
        }
        LbPolicy::LeastRequest { choices } => {
            pick_by(cluster, excluded, random, |from| Some(least_request::pick(from.table, *choices)))
        }
        LbPolicy::Random => pick_by(cluster, excluded, random, |from| Some(random::pick(from.table))),
        LbPolicy::Hash(_) => {
            let hash = context.hash.unwrap_or_else(|| fastrand::u64(..));
            pick_by(
                cluster,
                excluded,
                || (hash % 100) as u32,
                |from| pick_by_hash(from, hash, context.redraw),
            )
        }
    };
    if picked.is_none() {
        cluster.stats.upstream_cx_none_healthy.inc();
    }
    picked
}

/// The host of the table of one priority, both drawn from the cluster's present set: the priority by `percentile` (0 to 99), the host
/// at the index that the policy says.
fn pick_by(
    cluster: &Cluster,
    excluded: &[u32],
    percentile: impl FnOnce() -> u32,
    policy: impl FnOnce(&Choice<'_>) -> Option<usize>,
) -> Option<Arc<Host>> {
    let set = cluster.endpoints.peek();
    let set = set.as_ref()?;
    let tables = set.tables();
    let table = match tables.priorities.as_slice() {
        [(_, only)] => only,
        several => {
            let at = percentile();
            match priority_without(several, excluded, at) {
                Some(index) => &several[index].1,
                None => &several.iter().find(|(cumulative, _)| at < *cumulative)?.1,
            }
        }
    };
    if table.hosts.is_empty() {
        return None;
    }
    if table.panic {
        cluster.stats.lb_healthy_panic.inc();
    }
    let index = policy(&Choice { cluster, set, table })?;
    let host = &table.hosts[index];
    if table.panic || host.is_healthy() {
        return Some(host.clone());
    }
    // Ejected a moment ago by a worker; main has not rebuilt the table yet.
    let (before, after) = table.hosts.split_at(index);
    let healthy = after.iter().chain(before).find(|h| h.is_healthy());
    // All of them: what main will find is panic, unless that is switched off.
    healthy.or_else(|| set.panics_in_the_end().then_some(host)).cloned()
}

/// Whether hosts of other priorities than these may take traffic.
pub fn has_other_priority(cluster: &Cluster, excluded: &[u32]) -> bool {
    let set = cluster.endpoints.peek();
    set.as_ref().is_some_and(|set| availability_without(&set.tables().priorities, excluded) > 0)
}

/// In percent, at most 100.
fn availability_without(priorities: &[(u32, Table)], excluded: &[u32]) -> u32 {
    others(priorities, excluded).map(|(_, availability)| availability).sum::<u32>().min(100)
}

fn others(priorities: &[(u32, Table)], excluded: &[u32]) -> impl Iterator<Item = (usize, u32)> {
    let all = priorities.iter().enumerate().map(|(index, (_, table))| (index, table.availability));
    all.filter(|(index, available)| *available > 0 && !excluded.contains(&(*index as u32)))
}

/// The priority at this percentile of the load without these; `None`: the load is as always. What rounding leaves is for the first.
fn priority_without(priorities: &[(u32, Table)], excluded: &[u32], percentile: u32) -> Option<usize> {
    if excluded.is_empty() {
        return None;
    }
    let total = availability_without(priorities, excluded);
    let mut others = others(priorities, excluded).peekable();
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
fn pick_by_hash(from: &Choice<'_>, hash: u64, redraw: u32) -> Option<usize> {
    let Choice { cluster, table, .. } = from;
    // The policy is newer than the table: main is about to publish another one.
    let Some(hashed) = &table.hashed else { return Some(random::pick(table)) };
    let active = || u32::try_from(cluster.stats.upstream_rq_active.get()).unwrap_or(0);
    let entry = |attempt| hashed.pick(&table.hosts, hash, attempt, active);
    let first = entry(redraw)?;
    if table.panic || table.hosts[first].is_healthy() {
        return Some(first);
    }
    let mut others = (redraw + 1..=redraw + HASH_ATTEMPTS).filter_map(entry);
    others.find(|index| table.hosts[*index].is_healthy()).or(Some(first))
}

/// Entries of the weighted order, and the host index of one of them.
fn slots(table: &Table) -> usize {
    if table.schedule.is_empty() { table.hosts.len() } else { table.schedule.len() }
}

fn slot(table: &Table, at: usize) -> usize {
    table.schedule.get(at).map_or(at, |&i| i as usize)
}

/// Requests in flight at a host, for comparing.
fn active(host: &Host) -> u32 {
    host.active_requests.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_of_the_priorities_that_are_left() {
        let of = |available: &[u32]| {
            let table = |&availability: &u32| (0, Table { availability, ..Table::default() });
            available.iter().map(table).collect::<Vec<_>>()
        };
        // At the percentiles 0, 49, 50 and 99.
        for (available, excluded, expected) in [
            (&[100, 100, 100][..], &[][..], [None; 4]),
            (&[100, 100, 100], &[0], [Some(1); 4]),
            (&[100, 50, 50], &[0], [Some(1), Some(1), Some(2), Some(2)]),
            (&[100, 25, 25], &[0], [Some(1), Some(1), Some(2), Some(2)]),
            // 33 % each, and the rest for the first.
            (&[100, 20, 20, 20], &[0], [Some(1), Some(2), Some(2), Some(1)]),
            (&[100, 0, 100], &[0], [Some(2); 4]),
            (&[100, 0, 0], &[0], [None; 4]),
            (&[100, 100], &[1, 0], [None; 4]),
        ] {
            let at = |percentile| priority_without(&of(available), excluded, percentile);
            assert_eq!([0, 49, 50, 99].map(at), expected, "{available:?} without {excluded:?}");
        }
    }
}
