//! Load balancing: one file a policy; picking reads tables that main built. The hosts of an `ORIGINAL_DST` cluster are not picked
//! but asked for.

mod least_request;
mod random;
mod round_robin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::endpoint_set::Table;
use super::{Cluster, EndpointSet, Host, OriginalDestinations};

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
    /// `RANDOM`; and `RING_HASH` and `MAGLEV` for requests without a hash, as all are here.
    Random,
    /// `CLUSTER_PROVIDED` of an `ORIGINAL_DST` cluster: the connection's own destination.
    OriginalDst {
        /// The hosts so far.
        destinations: Arc<OriginalDestinations>,
        /// `original_dst_lb_config.upstream_port_override`: the port to connect to instead of the destination's.
        port: Option<u16>,
    },
}

/// Picks a host for one attempt; `None` when there is none that may take it. `original` is the original destination of the
/// downstream connection, if it was restored.
pub fn pick(cluster: &Cluster, original: Option<SocketAddr>) -> Option<Arc<Host>> {
    let picked = match &cluster.lb {
        LbPolicy::OriginalDst { destinations, port } => original.map(|mut destination| {
            destination.set_port(port.unwrap_or(destination.port()));
            destinations.host(destination)
        }),
        LbPolicy::RoundRobin => pick_by(cluster, |table, set| round_robin::pick(table, &set.cursor)),
        LbPolicy::LeastRequest { choices } => {
            pick_by(cluster, |table, _| least_request::pick(table, *choices))
        }
        LbPolicy::Random => pick_by(cluster, |table, _| random::pick(table)),
    };
    if picked.is_none() {
        cluster.stats.upstream_cx_none_healthy.inc();
    }
    picked
}

/// The host of the table of one priority, both drawn from the cluster's present set, at the index that the policy says.
fn pick_by(cluster: &Cluster, policy: impl Fn(&Table, &EndpointSet) -> usize) -> Option<Arc<Host>> {
    let set = cluster.endpoints.peek();
    let set = set.as_ref()?;
    let tables = set.tables();
    let table = match tables.priorities.as_slice() {
        [(_, only)] => only,
        several => {
            let at = fastrand::u32(..100);
            &several.iter().find(|(cumulative, _)| at < *cumulative)?.1
        }
    };
    if table.hosts.is_empty() {
        return None;
    }
    if table.panic {
        cluster.stats.lb_healthy_panic.inc();
    }
    let index = policy(table, set);
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
