//! One upstream host: shared by all workers, long-lived, kept across endpoint updates.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;

use super::active_health::{ActiveHealth, CheckTarget, HealthFlag};
use super::lb::AnswerTime;
use super::outlier::HostMonitor;
use super::{HostSpec, IdleLimit, Locality};
use crate::metadata::Metadata;
use crate::net::Address;

/// `LbEndpoint.health_status`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Eq, Default)]
#[repr(u8)]
pub enum EdsHealth {
    /// `HEALTHY` or `UNKNOWN`.
    #[default]
    Healthy,
    /// `DEGRADED`.
    Degraded,
    /// `UNHEALTHY` or `TIMEOUT`.
    Unhealthy,
    /// `DRAINING`.
    Draining,
}

impl EdsHealth {
    /// By their numbers.
    const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Draining];

    /// Whether it may get requests.
    pub fn takes_traffic(self) -> bool {
        self <= Self::Degraded
    }
}

/// What all that is known of a host's health comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It gets requests.
    Healthy,
    /// It gets what healthy hosts cannot take.
    Degraded,
    /// It gets none, except in panic.
    Unhealthy,
}

/// One address of a cluster. Its identity across updates is (address, hostname, workload).
#[derive(Debug)]
pub struct Host {
    /// Unique in the process; the key of connection pools.
    pub id: u64,
    /// Where to connect.
    pub address: Address,
    /// Where to connect too, when there is more than one way to it; it stays the same host when these change.
    pub more_addresses: ArcSwapOption<Vec<SocketAddr>>,
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
    /// Where it stands; it stays the same host when that changes.
    pub locality: ArcSwap<Locality>,
    /// `LbEndpoint.health_status`, an `EdsHealth`.
    eds_health: AtomicU8,
    /// `Endpoint.health_check_config`.
    pub check: ArcSwapOption<CheckTarget>,
    /// What active health checks say of it; made with the first one.
    active_health: OnceLock<Box<ActiveHealth>>,
    /// Taken out by outlier detection.
    pub ejected: AtomicBool,
    /// Since when slow start lets it warm up. Main only.
    warms_since: Mutex<Option<Instant>>,
    /// No longer in the cluster: its idle connections go, its requests finish.
    pub removed: AtomicBool,
    /// How often its connections were to be given up: a pool that has seen fewer gives up those that it has.
    drains: AtomicU32,
    /// Requests in flight, over all workers.
    pub active_requests: AtomicU32,
    /// How long its answers take; one word, empty unless a policy goes by it.
    pub(super) answer_time: AnswerTime,
    /// After which pause it closes a connection.
    pub idle_limit: IdleLimit,
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

fn store_optional<T>(cell: &ArcSwapOption<T>, value: Option<Arc<T>>) {
    let is_same = match (&*cell.load(), &value) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    if !is_same {
        cell.store(value);
    }
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
            more_addresses: ArcSwapOption::empty(),
            hostname,
            weight: AtomicU32::new(weight.max(1)),
            priority: AtomicU32::new(0),
            workload,
            metadata: ArcSwapOption::empty(),
            locality: ArcSwap::new(Locality::none()),
            eds_health: AtomicU8::new(if healthy { EdsHealth::Healthy } else { EdsHealth::Unhealthy } as u8),
            check: ArcSwapOption::empty(),
            active_health: OnceLock::new(),
            ejected: AtomicBool::new(false),
            warms_since: Mutex::default(),
            removed: AtomicBool::new(false),
            drains: AtomicU32::new(0),
            active_requests: AtomicU32::new(0),
            answer_time: AnswerTime::default(),
            idle_limit: IdleLimit::default(),
            outlier: OnceLock::new(),
            requests_total: AtomicU64::new(0),
            requests_error: AtomicU64::new(0),
            connections_active: AtomicU32::new(0),
            connections_total: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
        }
    }

    /// The host of a specification.
    pub(super) fn of(spec: HostSpec) -> Self {
        let (address, hostname, workload) =
            (spec.address.clone(), spec.hostname.clone(), spec.workload.clone());
        let host = Self::new(address, hostname, spec.weight, true, workload);
        host.update(spec);
        host
    }

    /// Takes over what another specification says of the same host. What is the same is not written: workers read it.
    pub(super) fn update(&self, spec: HostSpec) {
        self.weight.store(spec.weight.max(1), Ordering::Relaxed);
        self.set_eds_health(spec.health);
        self.priority.store(spec.priority, Ordering::Relaxed);
        store_optional(&self.metadata, spec.metadata);
        store_optional(&self.check, spec.check);
        store_optional(&self.more_addresses, spec.more_addresses);
        if !Arc::ptr_eq(&self.locality.load(), &spec.locality) {
            self.locality.store(spec.locality);
        }
    }

    /// It is no longer in the cluster, for good: who comes back under its address is another host.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        if let Some(monitor) = self.outlier.get() {
            monitor.leave();
        }
    }

    /// Its connections take no further request: idle ones go, the others when their requests have ended. Main only.
    pub(super) fn drain(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn drains(&self) -> u32 {
        self.drains.load(Ordering::Relaxed)
    }

    /// What outlier detection has seen of it.
    pub fn outlier(&self) -> &HostMonitor {
        self.outlier.get_or_init(Box::default)
    }

    /// The same, if it ever looked.
    pub fn seen_outlier(&self) -> Option<&HostMonitor> {
        self.outlier.get().map(|monitor| &**monitor)
    }

    /// Slow start begins, or begins anew: for a host that is back, before its set is refreshed. Main only.
    pub fn warm_up(&self, now: Instant) {
        *self.warms_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// When slow start began; `None`: not yet.
    pub(super) fn warms_since(&self) -> Option<Instant> {
        *self.warms_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the endpoint's `health_status` says.
    pub fn eds_health(&self) -> EdsHealth {
        EdsHealth::ALL[usize::from(self.eds_health.load(Ordering::Relaxed))]
    }

    /// Takes over what an update says.
    pub(super) fn set_eds_health(&self, health: EdsHealth) {
        self.eds_health.store(health as u8, Ordering::Relaxed);
    }

    /// Whether a request may go there: it is healthy or degraded.
    pub fn is_healthy(&self) -> bool {
        self.eds_health().takes_traffic()
            && !self.ejected.load(Ordering::Relaxed)
            && !self.has(HealthFlag::Failed)
    }

    /// Whether it is one of the hosts for what healthy ones cannot take, if it is well at all.
    pub fn is_degraded(&self) -> bool {
        self.eds_health() == EdsHealth::Degraded || self.has(HealthFlag::Degraded)
    }

    /// What balancing goes by.
    pub fn health(&self) -> Health {
        match (self.is_healthy(), self.is_degraded()) {
            (false, _) => Health::Unhealthy,
            (true, true) => Health::Degraded,
            (true, false) => Health::Healthy,
        }
    }

    /// What active health checks say of it.
    pub fn active_health(&self) -> &ActiveHealth {
        self.active_health.get_or_init(Box::default)
    }

    /// Whether they say this of it.
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.active_health.get().is_some_and(|health| health.has(flag))
    }

    /// Whether it does not count when the share of healthy hosts is looked at.
    pub fn is_excluded(&self) -> bool {
        self.has(HealthFlag::Excluded) || self.has(HealthFlag::PendingFirstCheck)
    }
}
