//! Circuit breakers: how much of a cluster may be in use at once, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Host;
use crate::stats::{ClusterStats, OptionalGauge};

/// `CircuitBreakers.Thresholds`; Envoy's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_pending_requests`.
    pub max_pending_requests: u32,
    /// `max_requests`.
    pub max_requests: u32,
    /// `max_retries`; with a `retry_budget` it has no effect.
    pub max_retries: u32,
    /// `retry_budget`.
    pub retry_budget: Option<RetryBudget>,
    /// `max_connections` of `per_host_thresholds`; `u32::MAX`: no limit.
    pub max_connections_per_host: u32,
    /// `track_remaining`.
    pub track_remaining: bool,
}

/// `CircuitBreakers.Thresholds.RetryBudget`: retries as a share of what is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// `budget_percent` in parts per million of the requests that are active or pending, default 20 %.
    pub share_ppm: u32,
    /// `min_retry_concurrency`, default 3.
    pub min: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            max_connections_per_host: u32::MAX,
            track_remaining: false,
        }
    }
}

/// Counters and limits of one cluster, per routing priority (default, high). The counters outlive updates of the limits.
#[derive(Debug)]
pub struct CircuitBreakers {
    priorities: [Breaker; 2],
    stats: Arc<ClusterStats>,
}

#[derive(Debug, Default)]
struct Breaker {
    connections: Gate,
    pending: Gate,
    requests: Gate,
    retries: Gate,
    budget: Budget,
    connections_per_host: AtomicU32,
}

/// A [`RetryBudget`] as main sets it and workers read it.
#[derive(Debug, Default)]
struct Budget {
    share_ppm: AtomicU32,
    min: AtomicU32,
    is_set: AtomicBool,
}

impl Budget {
    fn set(&self, budget: Option<RetryBudget>) {
        let RetryBudget { share_ppm, min } = budget.unwrap_or(RetryBudget { share_ppm: 0, min: 0 });
        self.share_ppm.store(share_ppm, Ordering::Relaxed);
        self.min.store(min, Ordering::Relaxed);
        self.is_set.store(budget.is_some(), Ordering::Relaxed);
    }
}

impl Breaker {
    /// The limit of retries follows what is in flight.
    fn follow_budget(&self) {
        if !self.budget.is_set.load(Ordering::Relaxed) {
            return;
        }
        let in_flight =
            self.requests.used.load(Ordering::Relaxed) + self.pending.used.load(Ordering::Relaxed);
        let share =
            u64::from(in_flight) * u64::from(self.budget.share_ppm.load(Ordering::Relaxed)) / 1_000_000;
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        self.retries.limit.store(share.max(self.budget.min.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

/// One counted resource.
#[derive(Debug, Default)]
struct Gate {
    used: AtomicU32,
    limit: AtomicU32,
}

impl Gate {
    fn is_open_for_one_more(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }

    /// Takes one and says whether the limit is now reached; `None` when it was reached before.
    fn take(&self) -> Option<bool> {
        let limit = self.limit.load(Ordering::Relaxed);
        let before = self.used.fetch_add(1, Ordering::Relaxed);
        if before >= limit {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(before + 1 == limit)
    }

    /// Gives one back and says whether the gate was shut before.
    fn give_back(&self) -> bool {
        let before = self.used.fetch_sub(1, Ordering::Relaxed);
        before >= self.limit.load(Ordering::Relaxed)
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Connection,
    Pending,
    Request,
    Retry,
}

impl Resource {
    const ALL: [Self; 4] = [Self::Connection, Self::Pending, Self::Request, Self::Retry];
}

/// One unit in use; dropped, it is given back.
#[derive(Debug)]
pub struct Permit {
    breakers: Arc<CircuitBreakers>,
    resource: Resource,
    high_priority: bool,
}

impl CircuitBreakers {
    /// Breakers with nothing in use.
    pub fn new(stats: Arc<ClusterStats>, default: Thresholds, high: Thresholds) -> Arc<Self> {
        let breakers = Self { priorities: Default::default(), stats };
        breakers.set(default, high);
        Arc::new(breakers)
    }

    /// Takes over other limits (the cluster was updated).
    pub fn set(&self, default: Thresholds, high: Thresholds) {
        for (breaker, limits) in self.priorities.iter().zip([default, high]) {
            breaker.connections.limit.store(limits.max_connections, Ordering::Relaxed);
            breaker.pending.limit.store(limits.max_pending_requests, Ordering::Relaxed);
            breaker.requests.limit.store(limits.max_requests, Ordering::Relaxed);
            breaker.retries.limit.store(limits.max_retries, Ordering::Relaxed);
            breaker.budget.set(limits.retry_budget);
            breaker.connections_per_host.store(limits.max_connections_per_host, Ordering::Relaxed);
        }
        for (high_priority, limits) in [(false, default), (true, high)] {
            if limits.track_remaining {
                self.stats.remaining[usize::from(high_priority)].counted();
            }
            for resource in Resource::ALL {
                self.remaining(resource, high_priority).keep(limits.track_remaining);
                self.show_remaining(resource, high_priority);
            }
        }
    }

    /// Limits of (default, high) priority as (connections, pending, requests, retries), for `/clusters`.
    pub fn limits(&self) -> [[u32; 4]; 2] {
        self.priorities.each_ref().map(|b| {
            [&b.connections, &b.pending, &b.requests, &b.retries]
                .map(|gate| gate.limit.load(Ordering::Relaxed))
        })
    }

    fn gate(&self, resource: Resource, high_priority: bool) -> &Gate {
        let breaker = &self.priorities[usize::from(high_priority)];
        match resource {
            Resource::Connection => &breaker.connections,
            Resource::Pending => &breaker.pending,
            Resource::Request => &breaker.requests,
            Resource::Retry => &breaker.retries,
        }
    }

    fn show(&self, resource: Resource, high_priority: bool, open: bool) {
        let gauges = &self.stats.circuit_breakers[usize::from(high_priority)];
        let gauge = match resource {
            Resource::Connection => &gauges.cx_open,
            Resource::Pending => &gauges.rq_pending_open,
            Resource::Request => &gauges.rq_open,
            Resource::Retry => &gauges.rq_retry_open,
        };
        gauge.set(i64::from(open));
    }

    fn remaining(&self, resource: Resource, high_priority: bool) -> &OptionalGauge {
        let gauges = &self.stats.remaining[usize::from(high_priority)];
        match resource {
            Resource::Connection => &gauges.remaining_cx,
            Resource::Pending => &gauges.remaining_pending,
            Resource::Request => &gauges.remaining_rq,
            Resource::Retry => &gauges.remaining_retries,
        }
    }

    fn show_remaining(&self, resource: Resource, high_priority: bool) {
        if let Some(gauge) = self.remaining(resource, high_priority).get() {
            let gate = self.gate(resource, high_priority);
            let (limit, used) = (gate.limit.load(Ordering::Relaxed), gate.used.load(Ordering::Relaxed));
            gauge.set(limit.saturating_sub(used).into());
        }
    }

    /// One unit, or `None` when the breaker is open.
    pub(crate) fn acquire(self: &Arc<Self>, resource: Resource, high_priority: bool) -> Option<Permit> {
        if resource == Resource::Retry {
            self.priorities[usize::from(high_priority)].follow_budget();
        }
        if self.gate(resource, high_priority).take()? {
            self.show(resource, high_priority, true);
        }
        self.show_remaining(resource, high_priority);
        Some(Permit { breakers: self.clone(), resource, high_priority })
    }

    /// One unit even above the limit: a pool without any connection may always make one (as Envoy does).
    pub(crate) fn acquire_anyway(self: &Arc<Self>, resource: Resource, high_priority: bool) -> Permit {
        self.gate(resource, high_priority).used.fetch_add(1, Ordering::Relaxed);
        self.show_remaining(resource, high_priority);
        Permit { breakers: self.clone(), resource, high_priority }
    }

    /// Whether one more connection to this host is allowed now.
    pub(crate) fn connection_allowed(&self, high_priority: bool, host: &Host) -> bool {
        self.gate(Resource::Connection, high_priority).is_open_for_one_more()
            && self.host_allows(high_priority, host)
    }

    /// The same, as far as the limit of the host says.
    pub(crate) fn host_allows(&self, high_priority: bool, host: &Host) -> bool {
        let limit = self.priorities[usize::from(high_priority)].connections_per_host.load(Ordering::Relaxed);
        host.connections_active.load(Ordering::Relaxed) < limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.breakers.gate(self.resource, self.high_priority).give_back() {
            self.breakers.show(self.resource, self.high_priority, false);
        }
        self.breakers.show_remaining(self.resource, self.high_priority);
    }
}
