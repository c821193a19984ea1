//! `envoy.config.cluster.v3.OutlierDetection`, compiled, and what successive versions of it share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::monitor::Average;
use super::readmission::Readmission;
use super::watch::Ejections;

/// When hosts of a cluster are taken out, and for how long.
#[derive(Debug)]
pub struct OutlierDetection {
    /// Which version of the settings this is; unique in the process, growing, never 0.
    pub id: u64,
    /// `consecutive_5xx`, default 5.
    pub server_errors: InARow,
    /// `consecutive_gateway_failure`, default 5: 502, 503 and 504. Not enforced by default.
    pub gateway_failures: InARow,
    /// `split_external_local_origin_errors`, default false: what did not come from the host (no connection, resets, timeouts) is
    /// counted apart from its answers.
    pub splits_local_origin: bool,
    /// `consecutive_local_origin_failure`, default 5; only when they are split.
    pub local_origin_failures: InARow,
    /// Hosts whose rate is far below that of the others.
    pub success_rate: SuccessRate,
    /// Hosts of whose requests too many fail.
    pub failure_percentage: FailurePercentage,
    /// `interval`, default 10 s: how often rates are looked at and hosts may come back.
    pub interval: Duration,
    /// `base_ejection_time`, default 30 s; multiplied by how often the host was ejected lately.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`, default 300 s or the base time if that is longer.
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`, default 0: up to so much longer, so that not all come back at once.
    pub max_ejection_time_jitter: Duration,
    /// `max_ejection_percent`, default 10.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`, default false.
    pub always_eject_one_host: bool,
    /// `successful_active_health_check_uneject_host`, default true: a host whose active health check passes comes back at once.
    pub passed_checks_return: bool,
    /// `readmission` of our metadata, default as in Envoy: what it takes to come back.
    pub readmission: Readmission,
    /// `readmission_ramp_seconds` of our metadata, default off: a host that is back warms up.
    pub warms_up: bool,
    /// Shared by successive versions of the cluster.
    pub state: Arc<Detection>,
    /// Where events go.
    pub events: Ejections,
}

/// So many failures in a row.
#[derive(Debug, Clone, Copy)]
pub struct InARow {
    /// 0: never.
    pub threshold: u32,
    /// How many of a hundred hosts that reach it are ejected.
    pub enforcing_percent: u32,
}

impl InARow {
    /// Counts one more failure: how many there are when they are enough. Counting then begins anew.
    pub(super) fn reached(self, counter: &AtomicU32) -> Option<u32> {
        let failures = counter.fetch_add(1, Ordering::Relaxed) + 1;
        // More than the threshold when an update has lowered it.
        let reached = self.threshold > 0 && failures >= self.threshold;
        reached.then(|| {
            counter.store(0, Ordering::Relaxed);
            failures
        })
    }
}

/// `success_rate_*`: of a host's answers, and of its connections when local origin is split.
#[derive(Debug, Clone, Copy)]
pub struct SuccessRate {
    /// `success_rate_minimum_hosts`, default 5: so many with enough requests, or nobody is judged.
    pub minimum_hosts: u32,
    /// `success_rate_request_volume`, default 100: so many requests in an interval, or the host is not judged.
    pub request_volume: u64,
    /// `success_rate_stdev_factor`, default 1900: thousandths of the standard deviation that a rate may lie below the mean.
    pub stdev_factor_thousandths: u32,
    /// `enforcing_success_rate`, default 100.
    pub enforcing_percent: u32,
    /// `enforcing_local_origin_success_rate`, default 100.
    pub enforcing_local_origin_percent: u32,
}

/// `failure_percentage_*`.
#[derive(Debug, Clone, Copy)]
pub struct FailurePercentage {
    /// `failure_percentage_threshold`, default 85: from so many failures of a hundred requests on.
    pub threshold: u32,
    /// `failure_percentage_minimum_hosts`, default 5.
    pub minimum_hosts: u32,
    /// `failure_percentage_request_volume`, default 50.
    pub request_volume: u64,
    /// `enforcing_failure_percentage`, default 0.
    pub enforcing_percent: u32,
    /// `enforcing_failure_percentage_local_origin`, default 0.
    pub enforcing_local_origin_percent: u32,
}

/// What a cluster's detection knows over all versions of its settings.
#[derive(Debug, Default)]
pub struct Detection {
    /// Hosts that are out now.
    pub ejected: AtomicU32,
    /// The `id` of the settings that main watches the cluster by; 0 while nothing happens.
    pub(super) watched_by: AtomicU64,
    /// Hosts that a request may be let to, to see whether they come back.
    pub(super) probes_due: AtomicU32,
    /// Of the last interval, for `/clusters`: answers, and connections.
    pub external: Average,
    /// The same of connections.
    pub local_origin: Average,
}

impl OutlierDetection {
    /// The `id` of other settings.
    pub fn next_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// How long a host stays out that has now been ejected `count` times lately, jitter apart.
    pub(super) fn ejection_time(&self, count: u32) -> Duration {
        self.base_ejection_time.saturating_mul(count).min(self.max_ejection_time)
    }

    /// Whether counting ejections goes on: further ones would not keep the host out longer, only longer remembered.
    pub(super) fn grows_beyond(&self, count: u32) -> bool {
        self.base_ejection_time.saturating_mul(count)
            < self.max_ejection_time.saturating_add(self.base_ejection_time)
    }
}
