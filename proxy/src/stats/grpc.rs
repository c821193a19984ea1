//! gRPC by method: `cluster.NAME.grpc.SERVICE.METHOD.*` (filter `grpc_stats`) and `cluster.NAME.grpc-web.SERVICE.METHOD.*` (filter
//! `grpc_web`).
//!
//! Each cluster that needs it has a table of a fixed number of slots. A worker finds or makes a series in it without a lock: a slot is
//! written once, by compare-and-swap. There are at most [`METHODS_LIMIT`] series a table; calls of further methods are counted in one
//! whose labels say `overflow`. The table goes with the cluster.

use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustc_hash::FxHasher;

use super::scope::{Family, Field as _, Scope};
use super::{Counter, Histogram};

/// At most so many methods have series of their own, for each cluster and protocol.
pub(super) const METHODS_LIMIT: usize = 1_000;

/// Slots of a table; more than methods, so that there is always an empty one where a search ends.
const SLOTS: usize = 2_048;

/// What the labels of calls beyond the limit say.
const OVERFLOW: &str = "overflow";

/// gRPC status codes that have a counter of their own, 0 to 16.
const STATUSES: usize = 17;

/// The series of one method of one cluster; `WEB`: of gRPC-Web.
#[derive(Debug)]
pub struct GrpcStats<const WEB: bool> {
    /// The cluster; then service and method, for series that have them.
    labels: Box<[Arc<str>]>,
    success: Counter,
    failure: Counter,
    total: Counter,
    statuses: [Counter; STATUSES],
    other_status: Counter,
    /// Messages of requests.
    pub request_messages: Counter,
    /// Messages of responses.
    pub response_messages: Counter,
    /// From the request's last byte to the response's.
    pub upstream_time: Histogram,
}

impl<const WEB: bool> GrpcStats<WEB> {
    /// Counts an outcome by the value of `grpc-status`.
    pub fn charge(&self, status: &[u8]) {
        let number = std::str::from_utf8(status).ok().and_then(|text| text.parse::<usize>().ok());
        match number.and_then(|number| self.statuses.get(number)) {
            Some(counter) => counter.inc(),
            None => self.other_status.inc(),
        }
        self.total.inc();
        match status {
            b"0" => self.success.inc(),
            _ => self.failure.inc(),
        }
    }

    /// Counts how long the upstream took.
    pub fn took(&self, time: Duration) {
        self.upstream_time.observe_duration(time);
    }
}

macro_rules! status {
    ($code:literal) => {
        Family {
            name: stringify!($code),
            help: "Calls with this gRPC status.",
            get: |s| s.statuses[$code].metric(),
        }
    };
}

impl<const WEB: bool> GrpcStats<WEB> {
    const ALL: &'static [Family<Self>] = &[
        Family { name: "success", help: "Calls with the status 0.", get: |s| s.success.metric() },
        Family { name: "failure", help: "Calls with another status.", get: |s| s.failure.metric() },
        Family { name: "total", help: "Calls with a status.", get: |s| s.total.metric() },
        status!(0),
        status!(1),
        status!(2),
        status!(3),
        status!(4),
        status!(5),
        status!(6),
        status!(7),
        status!(8),
        status!(9),
        status!(10),
        status!(11),
        status!(12),
        status!(13),
        status!(14),
        status!(15),
        status!(16),
        Family {
            name: "other_status",
            help: "Calls with a status that gRPC does not know.",
            get: |s| s.other_status.metric(),
        },
        Family {
            name: "request_message_count",
            help: "Messages of requests.",
            get: |s| s.request_messages.metric(),
        },
        Family {
            name: "response_message_count",
            help: "Messages of responses.",
            get: |s| s.response_messages.metric(),
        },
        Family {
            name: "upstream_rq_time",
            help: "Time from the request's last byte to the response's, milliseconds.",
            get: |s| s.upstream_time.metric(),
        },
    ];
    /// Outcomes are all that gRPC-Web counts.
    const OF_WEB: usize = 3 + STATUSES + 1;
}

impl<const WEB: bool> Scope for GrpcStats<WEB> {
    const GROUP: &'static str = if WEB { "cluster.grpc_web" } else { "cluster.grpc" };
    const LABELS: &'static [&'static str] =
        &["envoy_cluster_name", "envoy_grpc_bridge_service", "envoy_grpc_bridge_method"];
    const FAMILIES: &'static [Family<Self>] =
        if WEB { Self::ALL.split_at(Self::OF_WEB).0 } else { Self::ALL };

    fn new(labels: Box<[Arc<str>]>) -> Self {
        Self {
            labels,
            success: Counter::new(),
            failure: Counter::new(),
            total: Counter::new(),
            statuses: Default::default(),
            other_status: Counter::new(),
            request_messages: Counter::new(),
            response_messages: Counter::new(),
            upstream_time: Histogram::new(),
        }
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    fn push_prefix(&self, dotted: &mut String) {
        let [cluster, method @ ..] = &*self.labels else { return };
        for part in ["cluster", cluster, if WEB { "grpc-web" } else { "grpc" }] {
            dotted.push_str(part);
            dotted.push('.');
        }
        for part in method {
            dotted.push_str(part);
            dotted.push('.');
        }
    }
}

/// A service and a method of it, with the hash that finds their series.
#[derive(Debug, Clone)]
pub struct GrpcMethod {
    /// Full name of the service.
    pub service: Arc<str>,
    /// Name of the method.
    pub method: Arc<str>,
    hash: u64,
}

impl GrpcMethod {
    /// A method with its hash.
    pub fn new(service: &str, method: &str) -> Self {
        Self { service: service.into(), method: method.into(), hash: hash(service, method) }
    }
}

fn hash(service: &str, method: &str) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one((service, method))
}

/// The series of one cluster. Made of its first call on.
#[derive(Debug, Default)]
pub struct GrpcSeries<const WEB: bool> {
    table: ArcSwapOption<Table<WEB>>,
}

#[derive(Debug)]
struct Table<const WEB: bool> {
    /// Calls without a method of their own.
    all: ArcSwapOption<GrpcStats<WEB>>,
    overflow: ArcSwapOption<GrpcStats<WEB>>,
    methods: Box<[ArcSwapOption<GrpcStats<WEB>>]>,
    count: AtomicUsize,
}

impl<const WEB: bool> GrpcSeries<WEB> {
    /// The series without a method. `cluster` is the cluster's name in statistics.
    pub fn all(&self, cluster: &Arc<str>) -> Arc<GrpcStats<WEB>> {
        only(&self.table().all, || [cluster.clone()].into())
    }

    /// The series of a method that configuration names.
    pub fn of(&self, cluster: &Arc<str>, method: &GrpcMethod) -> Arc<GrpcStats<WEB>> {
        let texts = (&*method.service, &*method.method);
        self.find(cluster, texts, method.hash, || (method.service.clone(), method.method.clone()))
    }

    /// The series of a method that a request names.
    pub fn named(&self, cluster: &Arc<str>, service: &str, method: &str) -> Arc<GrpcStats<WEB>> {
        self.find(cluster, (service, method), hash(service, method), || (service.into(), method.into()))
    }

    fn find(
        &self,
        cluster: &Arc<str>,
        texts: (&str, &str),
        hash: u64,
        own: impl Fn() -> (Arc<str>, Arc<str>),
    ) -> Arc<GrpcStats<WEB>> {
        let table = self.table();
        let is_it = |stats: &GrpcStats<WEB>| (&*stats.labels[1], &*stats.labels[2]) == texts;
        let mut made: Option<Arc<GrpcStats<WEB>>> = None;
        let first = hash as usize;
        for at in 0..SLOTS {
            let slot = &table.methods[first.wrapping_add(at) % SLOTS];
            if let Some(stats) = &*slot.load() {
                if is_it(stats) {
                    table.give_back(made.is_some());
                    return stats.clone();
                }
                continue;
            }
            let own_series = match &made {
                Some(made) => made.clone(),
                None if table.count.fetch_add(1, Ordering::Relaxed) >= METHODS_LIMIT => break,
                None => {
                    let (service, method) = own();
                    Arc::new(GrpcStats::new([cluster.clone(), service, method].into()))
                }
            };
            made = Some(own_series.clone());
            let before = slot.compare_and_swap(&None::<Arc<GrpcStats<WEB>>>, Some(own_series.clone()));
            match &*before {
                None => return own_series,
                // Another worker was faster, maybe with the same method.
                Some(stats) if is_it(stats) => {
                    table.give_back(true);
                    return stats.clone();
                }
                Some(_) => {}
            }
        }
        table.give_back(true);
        only(&table.overflow, || [cluster.clone(), OVERFLOW.into(), OVERFLOW.into()].into())
    }

    fn table(&self) -> Arc<Table<WEB>> {
        if let Some(table) = &*self.table.load() {
            return table.clone();
        }
        let table = Arc::new(Table {
            all: ArcSwapOption::empty(),
            overflow: ArcSwapOption::empty(),
            methods: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect(),
            count: AtomicUsize::new(0),
        });
        let before = self.table.compare_and_swap(&None::<Arc<Table<WEB>>>, Some(table.clone()));
        before.clone().unwrap_or(table)
    }

    /// All series that there are.
    pub(super) fn alive(&self) -> Vec<Arc<GrpcStats<WEB>>> {
        let Some(table) = self.table.load_full() else { return Vec::new() };
        let slots = [&table.all].into_iter().chain(table.methods.iter()).chain([&table.overflow]);
        let mut alive: Vec<_> = slots.filter_map(ArcSwapOption::load_full).collect();
        alive.sort_by(|a, b| a.labels.cmp(&b.labels));
        alive
    }
}

impl<const WEB: bool> Table<WEB> {
    /// A place that was taken is not needed.
    fn give_back(&self, taken: bool) {
        if taken {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The one series of this slot, made on the first call.
fn only<const WEB: bool>(
    slot: &ArcSwapOption<GrpcStats<WEB>>,
    labels: impl FnOnce() -> Box<[Arc<str>]>,
) -> Arc<GrpcStats<WEB>> {
    if let Some(stats) = &*slot.load() {
        return stats.clone();
    }
    let made = Arc::new(GrpcStats::new(labels()));
    let before = slot.compare_and_swap(&None::<Arc<GrpcStats<WEB>>>, Some(made.clone()));
    before.clone().unwrap_or(made)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    #[test]
    fn a_method_has_one_series_and_those_beyond_the_limit_share_one() {
        let (series, cluster) = (GrpcSeries::<false>::default(), Arc::from("up"));
        let first = series.named(&cluster, "s", "m0");
        assert!(Arc::ptr_eq(&first, &series.of(&cluster, &GrpcMethod::new("s", "m0"))));
        for number in 1..METHODS_LIMIT {
            series.named(&cluster, "s", &format!("m{number}")).charge(b"0");
        }
        let overflow = series.named(&cluster, "s", "one more");
        assert!(Arc::ptr_eq(&overflow, &series.named(&cluster, "t", "and another")));
        assert_eq!(overflow.labels(), ["up", "overflow", "overflow"].map(Arc::from));
        assert!(Arc::ptr_eq(&first, &series.named(&cluster, "s", "m0")), "those that are there stay");
        assert_eq!(series.alive().len(), METHODS_LIMIT + 1);
    }

    #[test]
    fn workers_that_race_agree() {
        let (series, cluster) = (Arc::new(GrpcSeries::<true>::default()), Arc::<str>::from("up"));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (series, cluster) = (series.clone(), cluster.clone());
                std::thread::spawn(move || {
                    for number in 0..200 {
                        series.named(&cluster, "s", &number.to_string()).charge(b"5");
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        let alive = series.alive();
        assert_eq!(alive.len(), 200);
        assert!(alive.iter().all(|stats| stats.failure.get() == 4 && stats.statuses[5].get() == 4));
    }

    #[test]
    fn dotted_names_are_envoys() {
        let stats = GrpcSeries::<true>::default().named(&Arc::from("up"), "pkg.S", "M");
        let mut dotted = String::new();
        stats.push_prefix(&mut dotted);
        assert_eq!(dotted, "cluster.up.grpc-web.pkg.S.M.");
    }
}
