//! `envoy_cluster_*`: one upstream cluster.

use std::ops::Deref;
use std::sync::{Arc, LazyLock, OnceLock};

use super::scope::{Scope as _, scope};
use super::{Counter, Gauge, GrpcSeries, OptionalGauge, ResponseClasses, ResponseCodes, SslStats};

/// Which circuit breakers of one priority are open (1) or closed (0).
#[derive(Debug, Default)]
pub struct BreakerGauges {
    /// `max_connections` is reached.
    pub cx_open: Gauge,
    /// `max_pending_requests` is reached.
    pub rq_pending_open: Gauge,
    /// `max_requests` is reached.
    pub rq_open: Gauge,
    /// `max_retries`, or the retry budget, is reached.
    pub rq_retry_open: Gauge,
}

/// What is left of the limits of one priority, with `track_remaining`.
#[derive(Debug, Default)]
pub struct RemainingGauges {
    /// Of `max_connections`.
    pub remaining_cx: OptionalGauge,
    /// Of `max_pending_requests`.
    pub remaining_pending: OptionalGauge,
    /// Of `max_requests`.
    pub remaining_rq: OptionalGauge,
    /// Of `max_retries`, or of the retry budget.
    pub remaining_retries: OptionalGauge,
}

/// What outlier detection found and did.
#[derive(Debug, Default)]
pub struct OutlierStats {
    /// Hosts that are ejected now.
    pub ejections_active: Gauge,
    /// Ejections done.
    pub ejections_enforced_total: Counter,
    /// Ejections not done because of `max_ejection_percent`.
    pub ejections_overflow: Counter,
    /// Hosts found, whether ejected or not: 5xx responses in a row.
    pub ejections_detected_consecutive_5xx: Counter,
    /// Hosts ejected: 5xx responses in a row.
    pub ejections_enforced_consecutive_5xx: Counter,
    /// Hosts found, whether ejected or not: 502, 503 and 504 responses in a row.
    pub ejections_detected_consecutive_gateway_failure: Counter,
    /// Hosts ejected: 502, 503 and 504 responses in a row.
    pub ejections_enforced_consecutive_gateway_failure: Counter,
    /// Hosts found, whether ejected or not: failures in a row that did not come from the host.
    pub ejections_detected_consecutive_local_origin_failure: Counter,
    /// Hosts ejected: failures in a row that did not come from the host.
    pub ejections_enforced_consecutive_local_origin_failure: Counter,
    /// Hosts found, whether ejected or not: a success rate far below that of the others.
    pub ejections_detected_success_rate: Counter,
    /// Hosts ejected: a success rate far below that of the others.
    pub ejections_enforced_success_rate: Counter,
    /// Hosts found, whether ejected or not: a success rate of connections far below that of the others.
    pub ejections_detected_local_origin_success_rate: Counter,
    /// Hosts ejected: a success rate of connections far below that of the others.
    pub ejections_enforced_local_origin_success_rate: Counter,
    /// Hosts found, whether ejected or not: too many failed requests.
    pub ejections_detected_failure_percentage: Counter,
    /// Hosts ejected: too many failed requests.
    pub ejections_enforced_failure_percentage: Counter,
    /// Hosts found, whether ejected or not: too many failed connections.
    pub ejections_detected_local_origin_failure_percentage: Counter,
    /// Hosts ejected: too many failed connections.
    pub ejections_enforced_local_origin_failure_percentage: Counter,
}

/// What active health checks found.
#[derive(Debug, Default)]
pub struct HealthCheckStats {
    /// Checks begun.
    pub attempt: Counter,
    /// Checks that passed.
    pub success: Counter,
    /// Checks that failed, and hosts that failed by themselves.
    pub failure: Counter,
    /// Hosts that failed by themselves: `x-envoy-immediate-health-check-fail`.
    pub passive_failure: Counter,
    /// Checks without an answer.
    pub network_failure: Counter,
    /// Checks that looked at the name of the cluster.
    pub verify_cluster: Counter,
    /// Hosts that pass.
    pub healthy: Gauge,
    /// Hosts that say of themselves that they are degraded.
    pub degraded: Gauge,
}

/// What routing by zone did.
#[derive(Debug, Default)]
pub struct ZoneStats {
    /// Times that it was worked out how much stays in the zone.
    pub lb_recalculate_zone_structures: Counter,
    /// Times that the local cluster said too little for routing by zone.
    pub lb_local_cluster_not_ok: Counter,
    /// Times that there were too few hosts for routing by zone.
    pub lb_zone_cluster_too_small: Counter,
    /// Picks in the zone, where everything stays.
    pub lb_zone_routing_all_directly: Counter,
    /// Picks in the zone, where a part stays.
    pub lb_zone_routing_sampled: Counter,
    /// Picks in other zones.
    pub lb_zone_routing_cross_zone: Counter,
    /// Picks in any zone, because rounding left none with room.
    pub lb_zone_no_capacity_left: Counter,
}

/// Subsets of the hosts, and what picks found there.
#[derive(Debug, Default)]
pub struct SubsetStats {
    /// Subsets that there are.
    pub lb_subsets_active: Gauge,
    /// Subsets made.
    pub lb_subsets_created: Counter,
    /// Subsets that have no host any more.
    pub lb_subsets_removed: Counter,
    /// Picks in the subset that was asked for.
    pub lb_subsets_selected: Counter,
    /// Picks by the cluster's `fallback_policy`.
    pub lb_subsets_fallback: Counter,
    /// Picks of any host, because the fallback had none.
    pub lb_subsets_fallback_panic: Counter,
    /// Hosts that are not used, because their subset has another one and is to have a single one.
    pub lb_subsets_single_host_per_subset_duplicate: Gauge,
}

/// HTTP/2 towards the hosts.
#[derive(Debug, Default)]
pub struct Http2Stats {
    /// Connections closed because their host said nothing for too long after a PING.
    pub keepalive_timeout: Counter,
}

/// Statistics that are made when something is counted in them: most clusters never have any, and memory is by the cluster.
#[derive(Debug)]
pub struct Lazy<T>(OnceLock<Box<T>>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> Lazy<T> {
    /// To count in.
    pub fn counted(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}

/// What is read of statistics in which nothing was counted.
pub trait Zeros: 'static {
    /// Of all clusters the same.
    fn zeros() -> &'static Self;
}

macro_rules! zeros {
    ($($stats:ident),*) => {
        $(impl Zeros for $stats {
            fn zeros() -> &'static Self {
                static ZEROS: LazyLock<$stats> = LazyLock::new($stats::default);
                &ZEROS
            }
        })*
    };
}

zeros!(OutlierStats, ZoneStats, RemainingGauges, Http2Stats, SubsetStats, HealthCheckStats);

/// To read: zeros until something was counted.
impl<T: Zeros> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self.0.get() {
            Some(stats) => stats,
            None => T::zeros(),
        }
    }
}

scope! {
    /// Statistics of one cluster, shared by everything that has the cluster's name.
    ClusterStats in "cluster" ["envoy_cluster_name"] {
        Counter upstream_cx_total "Connections opened or being opened to hosts.";
        Gauge upstream_cx_active "Connections to hosts that are open now.";
        Counter upstream_cx_http1_total "HTTP/1 connections.";
        Counter upstream_cx_http2_total "HTTP/2 connections.";
        Counter upstream_cx_connect_fail "Connections that could not be made.";
        Counter upstream_cx_connect_timeout "Connections that were not made within connect_timeout.";
        Counter upstream_cx_overflow "Times that the connection circuit breaker was open.";
        Histogram upstream_cx_connect_ms "Time to make a connection, milliseconds.";
        Counter upstream_cx_destroy "Connections that ended.";
        Counter upstream_cx_idle_timeout "Connections closed because they were idle.";
        Counter upstream_cx_max_requests "Connections closed because they had carried their maximum of requests.";
        Counter upstream_cx_max_duration_reached "Connections closed because they had reached their maximum age.";
        Counter upstream_cx_none_healthy "Times that there was no healthy host to connect to.";
        Counter upstream_cx_rx_bytes_total "Bytes received from hosts.";
        Counter upstream_cx_tx_bytes_total "Bytes sent to hosts.";
        Counter upstream_cx_protocol_error "Connections that ended because a host broke the protocol.";
        Counter upstream_rq_total "Requests sent to hosts.";
        Gauge upstream_rq_active "Requests that were sent and are in flight.";
        Counter upstream_rq_completed "Requests that got a response.";
        Counter upstream_rq_replayed "Requests sent again, because their host had closed the connection before it took them.";
        Counter upstream_rq_timeout "Requests that timed out.";
        Counter upstream_rq_per_try_timeout "Attempts that took longer than per_try_timeout.";
        Counter upstream_rq_max_duration_reached "Attempts that reached the duration that the request allows them.";
        Counter upstream_rq_per_try_idle_timeout "Attempts in which nothing moved for per_try_idle_timeout.";
        Counter upstream_rq_retry "Attempts that were made again.";
        Counter upstream_rq_retry_success "Requests whose last attempt was a retry that needed no other.";
        Counter upstream_rq_retry_overflow "Retries that were not made because of max_retries or the retry budget.";
        Counter upstream_rq_retry_limit_exceeded "Retries that were not made because num_retries had been made.";
        Counter upstream_rq_retry_backoff_exponential "Retries after an exponential back-off.";
        Counter upstream_rq_retry_backoff_ratelimited "Retries after the wait that the upstream had asked for.";
        Counter retry_or_shadow_abandoned "Requests that were not retried because their body is larger than the buffer limit.";
        Counter upstream_internal_redirect_succeeded_total "Redirects of hosts that were followed here.";
        Counter upstream_internal_redirect_failed_total "Redirects of hosts that were to be followed here, and went to the client.";
        Counter upstream_rq_cancelled "Requests given up before they had a connection.";
        Counter upstream_rq_pending_total "Requests that waited for a connection.";
        Gauge upstream_rq_pending_active "Requests that wait for a connection now.";
        Counter upstream_rq_pending_overflow "Requests refused by the pending-requests or requests circuit breaker.";
        Counter upstream_rq_pending_failure_eject "Requests that failed because their connection could not be made.";
        Counter upstream_rq_rx_reset "Requests that a host reset.";
        Counter upstream_rq_tx_reset "Requests that were reset towards a host.";
        Histogram upstream_rq_time "Time from sending a request to the end of its response, milliseconds.";
        Gauge membership_total "Hosts of the cluster.";
        Gauge membership_healthy "Hosts that get requests.";
        Gauge membership_degraded "Hosts that get the requests that healthy ones cannot take.";
        Counter membership_change "Times that the set of hosts changed.";
        Counter lb_healthy_panic "Picks made in panic mode, when too few hosts are healthy.";
        Counter update_attempt "Endpoint updates that came.";
        Counter update_success "Endpoint updates applied.";
        Counter update_failure "Endpoint updates that failed on their way.";
        Counter update_rejected "Endpoint updates that were not valid.";
        Counter update_empty "Endpoint updates without any endpoint.";
        Counter update_no_rebuild "Endpoint updates that changed nothing.";
    }
    with {
        /// TLS towards the hosts.
        ssl: SslStats,
        /// Hosts that fail too often.
        outlier_detection: Lazy<OutlierStats>,
        /// Active health checks.
        health_check: Lazy<HealthCheckStats>,
        /// Routing by zone.
        zones: Lazy<ZoneStats>,
        /// HTTP/2 towards the hosts.
        http2: Lazy<Http2Stats>,
        /// Subsets.
        subsets: Lazy<SubsetStats>,
        /// Default and high priority, in this order.
        circuit_breakers: [BreakerGauges; 2],
        /// The same order.
        remaining: [Lazy<RemainingGauges>; 2],
        /// `upstream_rq_Nxx`.
        classes: ResponseClasses,
        /// `upstream_rq_NNN`.
        codes: ResponseCodes,
        /// `grpc.*`.
        grpc: GrpcSeries<false>,
        /// `grpc-web.*`.
        grpc_web: GrpcSeries<true>,
    }
    nested {
        ssl.handshake as "ssl.handshake" "TLS handshakes that succeeded.";
        ssl.connection_error as "ssl.connection_error" "TLS connections that failed, certificate checks apart.";
        ssl.fail_verify_no_cert as "ssl.fail_verify_no_cert" "TLS connections refused: the peer sent no certificate.";
        ssl.fail_verify_error as "ssl.fail_verify_error" "TLS connections refused: the peer's certificate is not trusted.";
        ssl.fail_verify_san as "ssl.fail_verify_san" "TLS connections refused: the peer's name does not match.";
        ssl.no_certificate as "ssl.no_certificate" "TLS connections whose peer sent no certificate and needed none.";
        ssl.session_reused as "ssl.session_reused" "TLS handshakes that resumed a session.";
        outlier_detection.ejections_active as "outlier_detection.ejections_active" "Hosts that are ejected now.";
        outlier_detection.ejections_enforced_total as "outlier_detection.ejections_enforced_total" "Ejections done.";
        outlier_detection.ejections_overflow as "outlier_detection.ejections_overflow"
            "Ejections not done because of max_ejection_percent.";
        outlier_detection.ejections_detected_consecutive_5xx as "outlier_detection.ejections_detected_consecutive_5xx"
            "Ejections due for 5xx responses in a row, done or not.";
        outlier_detection.ejections_enforced_consecutive_5xx as "outlier_detection.ejections_enforced_consecutive_5xx"
            "Ejections done for 5xx responses in a row.";
        outlier_detection.ejections_detected_consecutive_gateway_failure as "outlier_detection.ejections_detected_consecutive_gateway_failure"
            "Ejections due for 502, 503 and 504 responses in a row, done or not.";
        outlier_detection.ejections_enforced_consecutive_gateway_failure as "outlier_detection.ejections_enforced_consecutive_gateway_failure"
            "Ejections done for 502, 503 and 504 responses in a row.";
        outlier_detection.ejections_detected_consecutive_local_origin_failure as "outlier_detection.ejections_detected_consecutive_local_origin_failure"
            "Ejections due for failures in a row that did not come from the host, done or not.";
        outlier_detection.ejections_enforced_consecutive_local_origin_failure as "outlier_detection.ejections_enforced_consecutive_local_origin_failure"
            "Ejections done for failures in a row that did not come from the host.";
        outlier_detection.ejections_detected_success_rate as "outlier_detection.ejections_detected_success_rate"
            "Ejections due for a success rate far below that of the others, done or not.";
        outlier_detection.ejections_enforced_success_rate as "outlier_detection.ejections_enforced_success_rate"
            "Ejections done for a success rate far below that of the others.";
        outlier_detection.ejections_detected_local_origin_success_rate as "outlier_detection.ejections_detected_local_origin_success_rate"
            "Ejections due for a success rate of connections far below that of the others, done or not.";
        outlier_detection.ejections_enforced_local_origin_success_rate as "outlier_detection.ejections_enforced_local_origin_success_rate"
            "Ejections done for a success rate of connections far below that of the others.";
        outlier_detection.ejections_detected_failure_percentage as "outlier_detection.ejections_detected_failure_percentage"
            "Ejections due for too many failed requests, done or not.";
        outlier_detection.ejections_enforced_failure_percentage as "outlier_detection.ejections_enforced_failure_percentage"
            "Ejections done for too many failed requests.";
        outlier_detection.ejections_detected_local_origin_failure_percentage as "outlier_detection.ejections_detected_local_origin_failure_percentage"
            "Ejections due for too many failed connections, done or not.";
        outlier_detection.ejections_enforced_local_origin_failure_percentage as "outlier_detection.ejections_enforced_local_origin_failure_percentage"
            "Ejections done for too many failed connections.";
        zones.lb_recalculate_zone_structures as "lb_recalculate_zone_structures" "Times that it was worked out how much stays in the zone.";
        zones.lb_local_cluster_not_ok as "lb_local_cluster_not_ok" "Times that the local cluster said too little for routing by zone.";
        zones.lb_zone_cluster_too_small as "lb_zone_cluster_too_small" "Times that there were too few hosts for routing by zone.";
        zones.lb_zone_routing_all_directly as "lb_zone_routing_all_directly" "Picks in the zone, where everything stays.";
        zones.lb_zone_routing_sampled as "lb_zone_routing_sampled" "Picks in the zone, where a part stays.";
        zones.lb_zone_routing_cross_zone as "lb_zone_routing_cross_zone" "Picks in other zones.";
        zones.lb_zone_no_capacity_left as "lb_zone_no_capacity_left" "Picks in any zone, because rounding left none with room.";
        http2.keepalive_timeout as "http2.keepalive_timeout"
            "Connections closed because their host said nothing for too long after a PING.";
        subsets.lb_subsets_active as "lb_subsets_active" "Subsets of the hosts that there are.";
        subsets.lb_subsets_created as "lb_subsets_created" "Subsets made.";
        subsets.lb_subsets_removed as "lb_subsets_removed" "Subsets that have no host any more.";
        subsets.lb_subsets_selected as "lb_subsets_selected" "Picks in the subset that was asked for.";
        subsets.lb_subsets_fallback as "lb_subsets_fallback" "Picks by the cluster's fallback policy for subsets.";
        subsets.lb_subsets_fallback_panic as "lb_subsets_fallback_panic" "Picks of any host, because the fallback for subsets had none.";
        subsets.lb_subsets_single_host_per_subset_duplicate as "lb_subsets_single_host_per_subset_duplicate"
            "Hosts that are not used, because their subset has another one and is to have a single one.";
        health_check.attempt as "health_check.attempt" "Health checks begun.";
        health_check.success as "health_check.success" "Health checks that passed.";
        health_check.failure as "health_check.failure" "Health checks that failed, and hosts that failed by themselves.";
        health_check.passive_failure as "health_check.passive_failure"
            "Hosts that failed by themselves, with x-envoy-immediate-health-check-fail.";
        health_check.network_failure as "health_check.network_failure" "Health checks without an answer.";
        health_check.verify_cluster as "health_check.verify_cluster" "Health checks that looked at the name of the cluster.";
        health_check.healthy as "health_check.healthy" "Hosts that pass their health checks.";
        health_check.degraded as "health_check.degraded" "Hosts whose health checks say that they are degraded.";
        circuit_breakers[0].cx_open as "circuit_breakers.default.cx_open" "1 while max_connections is reached.";
        circuit_breakers[0].rq_pending_open as "circuit_breakers.default.rq_pending_open" "1 while max_pending_requests is reached.";
        circuit_breakers[0].rq_open as "circuit_breakers.default.rq_open" "1 while max_requests is reached.";
        circuit_breakers[0].rq_retry_open as "circuit_breakers.default.rq_retry_open"
            "1 while max_retries, or the retry budget, is reached.";
        circuit_breakers[1].cx_open as "circuit_breakers.high.cx_open" "1 while max_connections is reached, high priority.";
        circuit_breakers[1].rq_pending_open as "circuit_breakers.high.rq_pending_open"
            "1 while max_pending_requests is reached, high priority.";
        circuit_breakers[1].rq_open as "circuit_breakers.high.rq_open" "1 while max_requests is reached, high priority.";
        circuit_breakers[1].rq_retry_open as "circuit_breakers.high.rq_retry_open"
            "1 while max_retries, or the retry budget, is reached, high priority.";
        remaining[0].remaining_cx as "circuit_breakers.default.remaining_cx" "What is left of max_connections.";
        remaining[0].remaining_pending as "circuit_breakers.default.remaining_pending" "What is left of max_pending_requests.";
        remaining[0].remaining_rq as "circuit_breakers.default.remaining_rq" "What is left of max_requests.";
        remaining[0].remaining_retries as "circuit_breakers.default.remaining_retries" "What is left of max_retries, or of the retry budget.";
        remaining[1].remaining_cx as "circuit_breakers.high.remaining_cx" "What is left of max_connections, high priority.";
        remaining[1].remaining_pending as "circuit_breakers.high.remaining_pending" "What is left of max_pending_requests, high priority.";
        remaining[1].remaining_rq as "circuit_breakers.high.remaining_rq" "What is left of max_requests, high priority.";
        remaining[1].remaining_retries as "circuit_breakers.high.remaining_retries" "What is left of max_retries, or of the retry budget, high priority.";
    }
    responses "upstream_rq" { classes, codes }
}

impl ClusterStats {
    /// The name that the cluster has in statistics: its `alt_stat_name`, else its name.
    pub fn name(&self) -> &str {
        self.label()
    }

    /// The same, for series that share it.
    pub fn label(&self) -> &Arc<str> {
        &self.labels()[0]
    }

    /// Counts a finished response: by code, by class, and as completed.
    pub fn response(&self, code: u16) {
        self.upstream_rq_completed.inc();
        self.classes.count(code);
        self.codes.count(code);
    }
}
