//! Taking a host out: who may, and why it was.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::settings::OutlierDetection;
use super::watch::{Ejected, Event, Subject};
use crate::cluster::Host;
use crate::stats::{Counter, OutlierStats};

/// What found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// 5xx in a row.
    Consecutive5xx,
    /// 502, 503, 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures in a row that did not come from the host.
    ConsecutiveLocalOriginFailure,
    /// A success rate far below that of the others.
    SuccessRate,
    /// The same of its connections.
    SuccessRateLocalOrigin,
    /// Too many failures of a hundred requests.
    FailurePercentage,
    /// The same of its connections.
    FailurePercentageLocalOrigin,
}

/// What was found: the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// So many 5xx in a row.
    Consecutive5xx {
        /// How many.
        failures: u32,
    },
    /// So many 502, 503, 504 in a row.
    ConsecutiveGatewayFailure {
        /// How many.
        failures: u32,
    },
    /// So many failures in a row that did not come from the host.
    ConsecutiveLocalOriginFailure {
        /// How many.
        failures: u32,
    },
    /// Of `requests` in the interval `rate` percent succeeded, and all hosts had `average`.
    SuccessRate {
        /// Of its connections, not its answers.
        local_origin: bool,
        /// Percent.
        rate: f64,
        /// In the interval.
        requests: u64,
        /// Mean of all hosts, percent.
        average: f64,
        /// A lower rate is an outlier.
        threshold: f64,
    },
    /// Of `requests` in the interval only `rate` percent succeeded.
    FailurePercentage {
        /// Of its connections, not its answers.
        local_origin: bool,
        /// Percent that succeeded.
        rate: f64,
        /// In the interval.
        requests: u64,
        /// So many percent of failures are too many.
        threshold: u32,
    },
}

impl Why {
    /// The detector that found it.
    pub fn detector(&self) -> Detector {
        match self {
            Why::Consecutive5xx { .. } => Detector::Consecutive5xx,
            Why::ConsecutiveGatewayFailure { .. } => Detector::ConsecutiveGatewayFailure,
            Why::ConsecutiveLocalOriginFailure { .. } => Detector::ConsecutiveLocalOriginFailure,
            Why::SuccessRate { local_origin: false, .. } => Detector::SuccessRate,
            Why::SuccessRate { local_origin: true, .. } => Detector::SuccessRateLocalOrigin,
            Why::FailurePercentage { local_origin: false, .. } => Detector::FailurePercentage,
            Why::FailurePercentage { local_origin: true, .. } => Detector::FailurePercentageLocalOrigin,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |local_origin| if local_origin { "connections" } else { "requests" };
        match *self {
            Why::Consecutive5xx { failures } => write!(f, "{failures} consecutive 5xx"),
            Why::ConsecutiveGatewayFailure { failures } => {
                write!(f, "{failures} consecutive gateway failures")
            }
            Why::ConsecutiveLocalOriginFailure { failures } => {
                write!(f, "{failures} consecutive local origin failures")
            }
            Why::SuccessRate { local_origin, rate, requests, average, threshold } => write!(
                f,
                "{rate:.1} % of {requests} {} succeeded, less than {threshold:.1} % (all hosts: {average:.1} %)",
                of(local_origin)
            ),
            Why::FailurePercentage { local_origin, rate, requests, threshold } => {
                let failed = 100.0 - rate;
                write!(
                    f,
                    "{failed:.1} % of {requests} {} failed, {threshold} % is the limit",
                    of(local_origin)
                )
            }
        }
    }
}

impl Detector {
    /// `envoy.data.cluster.v3.OutlierEjectionType`.
    pub fn name(self) -> &'static str {
        match self {
            Detector::Consecutive5xx => "CONSECUTIVE_5XX",
            Detector::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
            Detector::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
            Detector::SuccessRate => "SUCCESS_RATE",
            Detector::SuccessRateLocalOrigin => "SUCCESS_RATE_LOCAL_ORIGIN",
            Detector::FailurePercentage => "FAILURE_PERCENTAGE",
            Detector::FailurePercentageLocalOrigin => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
        }
    }

    /// How many of a hundred hosts that it finds are ejected.
    fn enforcing_percent(self, detection: &OutlierDetection) -> u32 {
        match self {
            Detector::Consecutive5xx => detection.server_errors.enforcing_percent,
            Detector::ConsecutiveGatewayFailure => detection.gateway_failures.enforcing_percent,
            Detector::ConsecutiveLocalOriginFailure => detection.local_origin_failures.enforcing_percent,
            Detector::SuccessRate => detection.success_rate.enforcing_percent,
            Detector::SuccessRateLocalOrigin => detection.success_rate.enforcing_local_origin_percent,
            Detector::FailurePercentage => detection.failure_percentage.enforcing_percent,
            Detector::FailurePercentageLocalOrigin => {
                detection.failure_percentage.enforcing_local_origin_percent
            }
        }
    }

    /// Hosts found, hosts ejected.
    fn counters(self, stats: &OutlierStats) -> [&Counter; 2] {
        match self {
            Detector::Consecutive5xx => {
                [&stats.ejections_detected_consecutive_5xx, &stats.ejections_enforced_consecutive_5xx]
            }
            Detector::ConsecutiveGatewayFailure => [
                &stats.ejections_detected_consecutive_gateway_failure,
                &stats.ejections_enforced_consecutive_gateway_failure,
            ],
            Detector::ConsecutiveLocalOriginFailure => [
                &stats.ejections_detected_consecutive_local_origin_failure,
                &stats.ejections_enforced_consecutive_local_origin_failure,
            ],
            Detector::SuccessRate => {
                [&stats.ejections_detected_success_rate, &stats.ejections_enforced_success_rate]
            }
            Detector::SuccessRateLocalOrigin => [
                &stats.ejections_detected_local_origin_success_rate,
                &stats.ejections_enforced_local_origin_success_rate,
            ],
            Detector::FailurePercentage => {
                [&stats.ejections_detected_failure_percentage, &stats.ejections_enforced_failure_percentage]
            }
            Detector::FailurePercentageLocalOrigin => [
                &stats.ejections_detected_local_origin_failure_percentage,
                &stats.ejections_enforced_local_origin_failure_percentage,
            ],
        }
    }
}

/// Takes the host out, unless too many are out already or the detector is not enforced. Main hears of it.
pub(super) fn eject(subject: &Subject, host: &Arc<Host>, why: Why) {
    if host.ejected.load(Ordering::Relaxed) || host.removed.load(Ordering::Relaxed) {
        return;
    }
    let (detection, stats) = (&subject.detection, subject.stats.outlier_detection.counted());
    let [detected, enforced] = why.detector().counters(stats);
    detected.inc();
    let hosts = subject.endpoints.peek().as_ref().map_or(0, |set| set.len()) as u32;
    let (percent, always_one) = (detection.max_ejection_percent, detection.always_eject_one_host);
    let out = &detection.state.ejected;
    if !may_eject(out.load(Ordering::Relaxed), hosts, percent, always_one) {
        stats.ejections_overflow.inc();
        return;
    }
    let is_enforced = fastrand::u32(..100) < why.detector().enforcing_percent(detection);
    if is_enforced {
        // Another worker may be faster.
        let reserved = out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |out| {
            may_eject(out, hosts, percent, always_one).then_some(out + 1)
        });
        if reserved.is_err() {
            stats.ejections_overflow.inc();
            return;
        }
        if host.ejected.swap(true, Ordering::Relaxed) {
            out.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        stats.ejections_active.inc();
        stats.ejections_enforced_total.inc();
        enforced.inc();
    }
    detection.events.send(Event::Ejected(Ejected {
        subject: subject.clone(),
        host: host.clone(),
        why,
        is_enforced,
        at: Instant::now(),
    }));
}

/// Envoy's rule: one more must stay within the percentage, except for the first one when asked for.
fn may_eject(out: u32, hosts: u32, max_percent: u32, always_one: bool) -> bool {
    (out == 0 && always_one) || u64::from(out + 1) * 100 <= u64::from(hosts) * u64::from(max_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_holds() {
        for (out, hosts, percent, always_one, expected) in [
            (0, 10, 10, false, true),
            (1, 10, 10, false, false),
            (0, 5, 10, false, false),
            (0, 5, 10, true, true),
            (1, 5, 10, true, false),
            (1, 2, 100, false, true),
            (2, 2, 100, false, false),
        ] {
            assert_eq!(may_eject(out, hosts, percent, always_one), expected, "{out} of {hosts}, {percent} %");
        }
    }

    #[test]
    fn it_says_why() {
        let rate = Why::SuccessRate {
            local_origin: false,
            rate: 50.0,
            requests: 120,
            average: 90.0,
            threshold: 52.04,
        };
        assert_eq!(
            rate.to_string(),
            "50.0 % of 120 requests succeeded, less than 52.0 % (all hosts: 90.0 %)"
        );
        let failures = Why::FailurePercentage { local_origin: true, rate: 8.0, requests: 50, threshold: 85 };
        assert_eq!(failures.to_string(), "92.0 % of 50 connections failed, 85 % is the limit");
        assert_eq!(failures.detector().name(), "FAILURE_PERCENTAGE_LOCAL_ORIGIN");
    }
}
