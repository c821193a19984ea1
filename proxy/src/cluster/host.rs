//! One upstream host: shared by all workers, long-lived, kept across endpoint updates.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::active_health::{ActiveHealth, CheckTarget, HealthFlag};
use super::outlier::HostMonitor;
use crate::metadata::Metadata;
use crate::net::Address;

/// One address of a cluster. Its identity across updates is (address, hostname, workload).
#[derive(Debug)]
pub struct Host {
    /// Unique in the process; the key of connection pools.
    pub id: u64,
    /// Where to connect.
    pub address: Address,
    /// `Endpoint.hostname`.
    pub hostname: Arc<str>,
    /// `LbEndpoint.load_balancing_weight`, at least 1.
    pub weight: AtomicU32,
    /// Priority of its locality.
    pub priority: AtomicU32,
    /// Workload labels from the endpoint's `istio.workload` metadata, `name;namespace;canonical-name;canonical-revision;cluster`.
    pub workload: Option<Arc<str>>,
    /// `LbEndpoint.metadata`, for logs.
    pub metadata: ArcSwapOption<Metadata>,
    /// `LbEndpoint.health_status` says usable (HEALTHY, UNKNOWN, DEGRADED).
    pub eds_healthy: AtomicBool,
    /// `Endpoint.health_check_config`.
    pub check: ArcSwapOption<CheckTarget>,
    /// What active health checks say of it; made with the first one.
    active_health: OnceLock<Box<ActiveHealth>>,
    /// Taken out by outlier detection.
    pub ejected: AtomicBool,
    /// No longer in the cluster: its idle connections go, its requests finish.
    pub removed: AtomicBool,
    /// Requests in flight, over all workers.
    pub active_requests: AtomicU32,
    /// What outlier detection has seen of it; made when it looks.
    outlier: OnceLock<Box<HostMonitor>>,
    /// `rq_total` of `/clusters`.
    pub requests_total: AtomicU64,
    /// `rq_error` of `/clusters`.
    pub requests_error: AtomicU64,
    /// `cx_active` of `/clusters`.
    pub connections_active: AtomicU32,
    /// `cx_total` of `/clusters`.
    pub connections_total: AtomicU64,
    /// `cx_connect_fail` of `/clusters`.
    pub connect_failures: AtomicU64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Host {
    /// A host that has served nothing yet.
    pub fn new(
        address: Address,
        hostname: Arc<str>,
        weight: u32,
        healthy: bool,
        workload: Option<Arc<str>>,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            hostname,
            weight: AtomicU32::new(weight.max(1)),
            priority: AtomicU32::new(0),
            workload,
            metadata: ArcSwapOption::empty(),
            eds_healthy: AtomicBool::new(healthy),
            check: ArcSwapOption::empty(),
            active_health: OnceLock::new(),
            ejected: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            active_requests: AtomicU32::new(0),
            outlier: OnceLock::new(),
            requests_total: AtomicU64::new(0),
            requests_error: AtomicU64::new(0),
            connections_active: AtomicU32::new(0),
            connections_total: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
        }
    }

    /// It is no longer in the cluster, for good: who comes back under its address is another host.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        if let Some(monitor) = self.outlier.get() {
            monitor.leave();
        }
    }

    /// What outlier detection has seen of it.
    pub fn outlier(&self) -> &HostMonitor {
        self.outlier.get_or_init(Box::default)
    }

    /// The same, if it ever looked.
    pub fn seen_outlier(&self) -> Option<&HostMonitor> {
        self.outlier.get().map(|monitor| &**monitor)
    }

    /// What active health checks say of it.
    pub fn active_health(&self) -> &ActiveHealth {
        self.active_health.get_or_init(Box::default)
    }

    /// Whether they say this of it.
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.active_health.get().is_some_and(|health| health.has(flag))
    }

    /// Whether a request may go there.
    pub fn is_healthy(&self) -> bool {
        self.eds_healthy.load(Ordering::Relaxed)
            && !self.ejected.load(Ordering::Relaxed)
            && !self.has(HealthFlag::Failed)
    }

    /// Whether it does not count when the share of healthy hosts is looked at.
    pub fn is_excluded(&self) -> bool {
        self.has(HealthFlag::Excluded) || self.has(HealthFlag::PendingFirstCheck)
    }
}
