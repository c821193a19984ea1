//! The hosts of an `ORIGINAL_DST` cluster: made when a connection first asks for its original destination, dropped when nobody has
//! asked for `cleanup_interval` and no connection is open.
//!
//! Workers look up and add, main cleans up. A look-up takes no lock; an addition copies one of a few small maps, so that finding a
//! host is never paid for by the many that are there. All workers share a host: its counters are whole.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Host;
use crate::net::Address;
use crate::stats::ClusterStats;

/// How many maps the hosts are spread over.
const SHARDS: usize = 16;

/// The destinations of one cluster; survives updates of the cluster.
#[derive(Debug)]
pub struct OriginalDestinations {
    shards: [ArcSwap<Shard>; SHARDS],
    /// `cleanup_interval` in milliseconds.
    cleanup_interval_ms: AtomicU64,
    stats: Arc<ClusterStats>,
    /// Whose the addresses are: the cluster's `metadata.filter_metadata.istio.workload`, as of an endpoint.
    pub workload: Option<Arc<str>>,
    /// Main cleans up until nothing is left.
    is_watched: AtomicBool,
    inhabited: Inhabited,
}

type Shard = FxHashMap<SocketAddr, Arc<Destination>>;

#[derive(Debug)]
struct Destination {
    host: Arc<Host>,
    /// Asked for since the last cleaning.
    used: AtomicBool,
}

impl Destination {
    fn touch(&self) -> Arc<Host> {
        // A load first, so that workers do not take the cache line from each other.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.host.clone()
    }

    /// Whether it stays; once it is found unused it goes, unless somebody asks for it until the next cleaning.
    fn is_wanted(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
            || self.host.connections_active.load(Ordering::Relaxed) > 0
            || self.host.active_requests.load(Ordering::Relaxed) > 0
    }
}

/// Tells main of clusters that have hosts to look after.
#[derive(Debug, Clone)]
pub struct Inhabited(UnboundedSender<Arc<OriginalDestinations>>);

/// The channel from the workers to `clean_up`.
pub fn channel() -> (Inhabited, UnboundedReceiver<Arc<OriginalDestinations>>) {
    let (sender, receiver) = unbounded_channel();
    (Inhabited(sender), receiver)
}

/// Runs on main for the life of the process: drops hosts that are no longer used.
pub async fn clean_up(mut inhabited: UnboundedReceiver<Arc<OriginalDestinations>>) {
    while let Some(destinations) = inhabited.recv().await {
        tokio::spawn(async move {
            loop {
                let interval =
                    Duration::from_millis(destinations.cleanup_interval_ms.load(Ordering::Relaxed));
                tokio::time::sleep(interval).await;
                if destinations.clean() {
                    break;
                }
            }
        });
    }
}

impl OriginalDestinations {
    /// No destinations yet.
    pub fn new(stats: Arc<ClusterStats>, workload: Option<Arc<str>>, inhabited: Inhabited) -> Arc<Self> {
        Arc::new(Self {
            shards: Default::default(),
            cleanup_interval_ms: AtomicU64::new(0),
            stats,
            workload,
            is_watched: AtomicBool::new(false),
            inhabited,
        })
    }

    /// Sets `cleanup_interval`, when a version of the cluster is published.
    pub fn set_cleanup_interval(&self, interval: Duration) {
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.cleanup_interval_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// The host of a destination.
    pub(super) fn host(self: &Arc<Self>, destination: SocketAddr) -> Arc<Host> {
        let shard = &self.shards[FxBuildHasher.hash_one(destination) as usize % SHARDS];
        match shard.load().get(&destination) {
            Some(known) => known.touch(),
            None => self.add(shard, destination),
        }
    }

    fn add(self: &Arc<Self>, shard: &ArcSwap<Shard>, destination: SocketAddr) -> Arc<Host> {
        let host = Arc::new(Host::new(Address::Ip(destination), "".into(), 1, true, self.workload.clone()));
        let mine = Arc::new(Destination { host, used: AtomicBool::new(true) });
        let mut there = mine.clone();
        shard.rcu(|hosts| match hosts.get(&destination) {
            // Another worker was faster.
            Some(known) => {
                there = known.clone();
                hosts.clone()
            }
            None => {
                there = mine.clone();
                let mut hosts = Shard::clone(hosts);
                hosts.insert(destination, mine.clone());
                Arc::new(hosts)
            }
        });
        if Arc::ptr_eq(&there, &mine) {
            self.stats.membership_total.inc();
            self.stats.membership_healthy.inc();
            self.stats.membership_change.inc();
        }
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            // Main is gone only when the process ends.
            let _ = self.inhabited.0.send(self.clone());
        }
        there.touch()
    }

    /// Drops what is no longer used. `true`: nothing is left, and the next addition tells main again.
    fn clean(&self) -> bool {
        self.retain(Destination::is_wanted);
        if !self.is_empty() {
            return false;
        }
        self.is_watched.store(false, Ordering::SeqCst);
        // A worker that added one just before saw that main was watching.
        self.is_empty() || self.is_watched.swap(true, Ordering::SeqCst)
    }

    /// Drops everything: the cluster goes, or its hosts come from elsewhere.
    pub fn clear(&self) {
        self.retain(|_| false);
    }

    fn retain(&self, keep: impl Fn(&Destination) -> bool) {
        for shard in &self.shards {
            let gone: Vec<(SocketAddr, Arc<Destination>)> = shard
                .load()
                .iter()
                .filter(|(_, destination)| !keep(destination))
                .map(|(address, destination)| (*address, destination.clone()))
                .collect();
            if gone.is_empty() {
                continue;
            }
            shard.rcu(|hosts| {
                let mut hosts = Shard::clone(hosts);
                gone.iter().for_each(|(address, _)| drop(hosts.remove(address)));
                hosts
            });
            for (_, destination) in &gone {
                // Requests that have it finish; their connections are not kept.
                destination.host.removed.store(true, Ordering::Relaxed);
                self.stats.membership_total.dec();
                self.stats.membership_healthy.dec();
                self.stats.membership_change.inc();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.load().is_empty())
    }

    /// The hosts that there are now, in no order.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let hosts = |shard: &ArcSwap<Shard>| -> Vec<_> {
            shard.load().values().map(|destination| destination.host.clone()).collect()
        };
        self.shards.iter().flat_map(hosts).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::stats::Stats;

    fn address(n: u16) -> SocketAddr {
        ([10, 0, (n >> 8) as u8, n as u8], 80).into()
    }

    fn destinations() -> (Arc<OriginalDestinations>, UnboundedReceiver<Arc<OriginalDestinations>>) {
        let (inhabited, main) = channel();
        let destinations = OriginalDestinations::new(Stats::new().cluster("c"), None, inhabited);
        destinations.set_cleanup_interval(Duration::from_secs(5));
        (destinations, main)
    }

    #[test]
    fn a_destination_has_one_host_however_often_and_from_where_it_is_asked_for() {
        let (destinations, mut main) = destinations();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let destinations = destinations.clone();
                std::thread::spawn(move || {
                    (0..500).map(|n| destinations.host(address(n)).id).collect::<Vec<_>>()
                })
            })
            .collect();
        let ids: Vec<Vec<u64>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(ids.iter().all(|other| *other == ids[0]));
        assert_eq!(destinations.hosts().len(), 500);
        assert_eq!(destinations.stats.membership_total.get(), 500);
        assert!(main.try_recv().is_ok(), "main is told once");
        assert!(main.try_recv().is_err(), "main is told once");
    }

    #[test]
    fn what_is_neither_asked_for_nor_connected_goes() {
        let (destinations, mut main) = destinations();
        let [unused, used, connected] = [1, 2, 3].map(|n| destinations.host(address(n)));
        connected.connections_active.store(1, Ordering::Relaxed);
        assert!(!destinations.clean(), "all were asked for since the last time");
        destinations.host(address(2));
        assert!(!destinations.clean());
        let removed = |host: &Host| host.removed.load(Ordering::Relaxed);
        assert_eq!((removed(&unused), removed(&used), removed(&connected)), (true, false, false));
        assert_eq!(destinations.stats.membership_total.get(), 2);
        assert_ne!(destinations.host(address(1)).id, unused.id, "it comes back as another host");

        connected.connections_active.store(0, Ordering::Relaxed);
        while main.try_recv().is_ok() {}
        assert!(!destinations.clean());
        assert!(destinations.clean());
        assert_eq!(destinations.stats.membership_total.get(), 0);
        destinations.host(address(1));
        assert!(main.try_recv().is_ok(), "main is told again");
    }

    #[tokio::test(start_paused = true)]
    async fn main_cleans_up_after_the_interval() {
        let (destinations, main) = destinations();
        tokio::spawn(clean_up(main));
        destinations.host(address(1));
        // Used at the first look, not at the second.
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(destinations.hosts().len(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(destinations.hosts().len(), 0);
    }
}
