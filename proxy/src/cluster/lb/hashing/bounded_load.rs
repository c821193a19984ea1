//! Bounded loads (`hash_balance_factor`): a host with more than its part of the requests in flight passes the next one on.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::twister::Twister;
use crate::cluster::Host;
use crate::cluster::lb::active;

/// What each host may have.
#[derive(Debug)]
pub(super) struct BoundedLoad {
    shares: Vec<f64>,
    /// `hash_balance_factor`.
    percent: u32,
}

impl BoundedLoad {
    pub(super) fn new(shares: Vec<f64>, percent: u32) -> Self {
        Self { shares, percent }
    }

    /// `picked` itself unless it has too much to do, else the first of the others that has not, in an order that follows from the hash;
    /// when all have, the one with the least. `cluster_active` is how many requests the cluster has in flight.
    ///
    /// Costs more than other picks when the host is loaded: as many hosts are looked at as it takes to find one with room.
    pub(super) fn relieve(
        &self,
        hosts: &[Arc<Host>],
        picked: usize,
        hash: u64,
        cluster_active: u32,
    ) -> usize {
        let all = (u64::from(cluster_active) + 1) * u64::from(self.percent);
        let all = all.div_ceil(100) as f64;
        let load = |index: usize| {
            let room = (all * self.shares[index]).ceil().max(1.0);
            f64::from(active(&hosts[index])) / room
        };
        let (mut best, mut least) = (picked, load(picked));
        if least <= 1.0 {
            return picked;
        }
        let count = hosts.len() as u32;
        // A shuffle of all hosts, of which only the entries that it has moved are written down.
        let mut moved: FxHashMap<u32, u32> = FxHashMap::default();
        let mut random = Twister::new(hash as u32);
        for at in 0..count {
            let other = at + random.below(count - at);
            let here = moved.get(&at).copied().unwrap_or(at);
            let index = moved.insert(other, here).unwrap_or(other);
            let index = if other == at { here } else { index } as usize;
            if index == picked {
                continue;
            }
            let load = load(index);
            if load <= 1.0 {
                return index;
            }
            if load < least {
                (best, least) = (index, load);
            }
        }
        best
    }
}
