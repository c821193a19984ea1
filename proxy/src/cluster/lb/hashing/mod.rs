//! Consistent hashing (`RING_HASH`, `MAGLEV`): a table over the hosts of one priority, in which a request's hash finds its host.
//!
//! The tables are Envoy's, entry by entry, so that the same request goes to the same host from an Envoy and from us. Main builds
//! them with the endpoint set; workers only look up.

mod bounded_load;
mod maglev;
mod murmur;
mod ring;
mod twister;

use std::borrow::Cow;
use std::sync::Arc;

use bounded_load::BoundedLoad;
use maglev::Maglev;
use ring::Ring;

use crate::cluster::Host;
use crate::metadata::BALANCING;

/// How the table of a cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashing {
    /// Its kind and size.
    pub table: HashTableKind,
    /// `consistent_hashing_lb_config.use_hostname_for_hashing`: a host without a hash key goes by its name, not its address.
    pub by_hostname: bool,
    /// `consistent_hashing_lb_config.hash_balance_factor` in percent: how far above the average a host may be loaded; `None`: as far
    /// as it comes.
    pub balance_percent: Option<u32>,
}

/// Kind and size of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTableKind {
    /// `RING_HASH`.
    Ring {
        /// `ring_hash_lb_config.minimum_ring_size`, default 1024 entries.
        min_size: u64,
        /// `ring_hash_lb_config.maximum_ring_size`, default 8 Mi entries.
        max_size: u64,
        /// `ring_hash_lb_config.hash_function`.
        function: HashFunction,
    },
    /// `MAGLEV`.
    Maglev {
        /// `maglev_lb_config.table_size`, default 65537; a prime.
        size: u64,
    },
}

/// What places hosts on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    /// `XX_HASH`.
    XxHash,
    /// `MURMUR_HASH_2`, as in libstdc++.
    Murmur2,
}

/// The table over some hosts. Hosts are indexes into the list that it was built of.
#[derive(Debug)]
pub(in crate::cluster) struct HashTable {
    slots: Slots,
    bounded_load: Option<BoundedLoad>,
}

#[derive(Debug)]
enum Slots {
    Ring(Ring),
    Maglev(Maglev),
}

/// What a table is built of.
struct Entry<'a> {
    /// Names the host in the hash.
    key: Cow<'a, str>,
    /// Its part of the sum of all weights.
    share: f64,
}

impl HashTable {
    /// A table of hosts with these parts of the sum of all weights.
    pub(in crate::cluster) fn build(hosts: &[Arc<Host>], shares: &[f64], hashing: Hashing) -> Self {
        let entries: Vec<Entry<'_>> = hosts
            .iter()
            .zip(shares)
            .map(|(host, &share)| Entry { key: hash_key(host, hashing.by_hostname), share })
            .collect();
        let slots = match hashing.table {
            HashTableKind::Ring { min_size, max_size, function } => {
                Slots::Ring(Ring::build(&entries, min_size, max_size, function))
            }
            HashTableKind::Maglev { size } => Slots::Maglev(Maglev::build(&entries, size)),
        };
        let shares = || entries.iter().map(|entry| entry.share).collect();
        let bounded_load = hashing.balance_percent.map(|percent| BoundedLoad::new(shares(), percent));
        Self { slots, bounded_load }
    }

    /// The host for a hash; `None` when the table has no entry. With each further `attempt` another entry is looked at, often
    /// another host's. `active` counts the requests in flight in the whole cluster; with a balance factor they are shared out.
    pub(super) fn pick(
        &self,
        hosts: &[Arc<Host>],
        hash: u64,
        attempt: u32,
        active: impl FnOnce() -> u32,
    ) -> Option<usize> {
        let index = match &self.slots {
            Slots::Ring(ring) => ring.host(hash, attempt),
            Slots::Maglev(maglev) => maglev.host(hash, attempt),
        }?;
        match &self.bounded_load {
            None => Some(index),
            Some(bounded) => Some(bounded.relieve(hosts, index, hash, active())),
        }
    }
}

/// `hash_key` of the host's `envoy.lb` metadata, else its name or address.
fn hash_key(host: &Host, by_hostname: bool) -> Cow<'_, str> {
    let metadata = host.metadata.load();
    let key = metadata.as_ref().and_then(|m| m.find(BALANCING, &["hash_key".into()])?.as_str());
    match key.filter(|key| !key.is_empty()) {
        Some(key) => key.to_owned().into(),
        None if by_hostname => (&*host.hostname).into(),
        None => host.address.to_string().into(),
    }
}

#[cfg(test)]
pub(super) mod tests;
