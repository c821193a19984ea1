//! Traffic by the weights of localities (`locality_weighted_lb_config`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tables::Table;
use super::turns::Turns;
use crate::cluster::Host;
use crate::cluster::endpoint_set::LocalityHosts;

/// Parts of a locality's weight that are told apart.
const PARTS: f64 = 10_000.0;

/// Localities with hosts that take traffic, each with its table.
#[derive(Debug)]
pub(super) struct Weighted {
    turns: Turns,
    localities: Vec<Table>,
}

impl Weighted {
    /// `None` when no locality has both a weight and a host that takes traffic.
    pub(super) fn build(
        localities: &[LocalityHosts],
        overprovisioning_percent: u32,
        takes: impl Fn(&Arc<Host>) -> bool,
        table: impl Fn(Vec<Arc<Host>>) -> Table,
    ) -> Option<Self> {
        let mut weights = Vec::new();
        let mut tables = Vec::new();
        for locality in localities {
            let hosts: Vec<Arc<Host>> = locality.hosts.iter().filter(|host| takes(host)).cloned().collect();
            let (able, total) = (hosts.len(), locality.hosts.len());
            let weight = effective_weight(locality.weight, able, total, overprovisioning_percent);
            if weight > 0.0 {
                weights.push((weight * PARTS).round().max(1.0) as u64);
                tables.push(table(hosts));
            }
        }
        (!tables.is_empty()).then(|| Self { turns: Turns::new(&weights), localities: tables })
    }

    /// The locality whose turn it is.
    pub(super) fn next(&self) -> &Table {
        &self.localities[self.turns.next()]
    }

    /// Takes over whose turn it is.
    pub(super) fn go_on(&self, previous: &Self) {
        self.turns.go_on(&previous.turns);
        self.localities.iter().zip(&previous.localities).for_each(|(new, old)| new.turns.go_on(&old.turns));
    }
}

/// `weight × min(1, overprovisioning × share of the hosts that take traffic)`.
fn effective_weight(weight: u32, able: usize, total: usize, overprovisioning_percent: u32) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let share = able as f64 / total as f64;
    f64::from(weight) * (f64::from(overprovisioning_percent) / 100.0 * share).min(1.0)
}

/// The hosts that take traffic, each with its part of all weights: that of its locality, and within it that of the host. `None` when no
/// locality has a weight.
pub(super) fn shares(
    localities: &[LocalityHosts],
    takes: impl Fn(&Arc<Host>) -> bool,
) -> Option<Vec<(Arc<Host>, f64)>> {
    let sum: u64 = localities.iter().map(|locality| u64::from(locality.weight)).sum();
    let weighted = localities.iter().filter(|locality| locality.weight > 0);
    let shares = weighted.flat_map(|locality| {
        let hosts: Vec<Arc<Host>> = locality.hosts.iter().filter(|host| takes(host)).cloned().collect();
        shares_of_hosts(&hosts, f64::from(locality.weight) / sum as f64)
    });
    (sum > 0).then(|| shares.collect())
}

/// These hosts, each with its part of `whole` by its weight.
pub(super) fn shares_of_hosts(hosts: &[Arc<Host>], whole: f64) -> Vec<(Arc<Host>, f64)> {
    let weight = |host: &Arc<Host>| u64::from(host.weight.load(Ordering::Relaxed));
    let sum: u64 = hosts.iter().map(weight).sum();
    hosts.iter().map(|host| (host.clone(), weight(host) as f64 * whole / sum as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_loses_weight_when_too_few_hosts_are_well() {
        // Envoy's documentation of locality weighted load balancing: X with weight 1, Y with weight 2, factor 140.
        for (able, total, x, y) in [
            (100, 100, 1.0, 2.0),
            (72, 100, 1.0, 2.0),
            (70, 100, 0.98, 1.96),
            (50, 100, 0.7, 1.4),
            (0, 100, 0.0, 0.0),
        ] {
            assert!((effective_weight(1, able, total, 140) - x).abs() < 1e-9);
            assert!((effective_weight(2, able, total, 140) - y).abs() < 1e-9);
        }
        assert_eq!(effective_weight(5, 0, 0, 140), 0.0);
    }
}
