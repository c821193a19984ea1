//! All published clusters by name, for requests that name their cluster themselves.
//!
//! Main writes, workers look up. A look-up takes no lock; a change copies one of a few small maps. An entry holds no cluster: one that
//! was removed goes as soon as no request has it any more.

use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::Cluster;
use crate::config::live::Live;

/// How many maps the names are spread over.
const SHARDS: usize = 64;

type Shard = FxHashMap<Arc<str>, Weak<Live<Cluster>>>;

/// The cells of all published clusters.
#[derive(Debug)]
pub struct ClusterNames(Box<[ArcSwap<Shard>]>);

impl Default for ClusterNames {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| ArcSwap::default()).collect())
    }
}

impl ClusterNames {
    /// The cell of a cluster that is published.
    pub fn find(&self, name: &str) -> Option<Arc<Live<Cluster>>> {
        let cell = self.0[shard_of(name)].load().get(name)?.upgrade()?;
        cell.peek().is_some().then_some(cell)
    }

    /// Adds clusters, and copies each map once for it.
    pub fn add<'c>(&self, cells: impl IntoIterator<Item = &'c Arc<Live<Cluster>>>) {
        let mut added: FxHashMap<usize, Vec<&Arc<Live<Cluster>>>> = FxHashMap::default();
        for cell in cells {
            added.entry(shard_of(cell.name())).or_default().push(cell);
        }
        for (shard, cells) in added {
            let mut map = Shard::clone(&self.0[shard].load());
            map.extend(cells.iter().map(|cell| (cell.name().clone(), Arc::downgrade(cell))));
            self.0[shard].store(Arc::new(map));
        }
    }

    /// Removes a cluster.
    pub fn remove(&self, name: &str) {
        let shard = &self.0[shard_of(name)];
        if shard.load().contains_key(name) {
            let mut map = Shard::clone(&shard.load());
            map.remove(name);
            shard.store(Arc::new(map));
        }
    }
}

fn shard_of(name: &str) -> usize {
    FxBuildHasher.hash_one(name) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transport_socket::UpstreamTransport;

    fn plain_cluster() -> Arc<Cluster> {
        crate::tcp::tests::cluster(&crate::stats::Stats::new(), &[], UpstreamTransport::Plaintext)
    }

    #[test]
    fn a_name_is_found_as_long_as_its_cluster_is_published() {
        let (names, cluster) = (ClusterNames::default(), plain_cluster());
        let cells = [Live::with("a", cluster), Live::empty("empty")];
        names.add(&cells);
        assert!(Arc::ptr_eq(&names.find("a").unwrap(), &cells[0]));
        assert!(names.find("empty").is_none() && names.find("b").is_none());
        names.remove("a");
        assert!(names.find("a").is_none());
        names.add(&cells);
        drop(cells);
        assert!(names.find("a").is_none(), "an entry holds its cluster");
    }
}
