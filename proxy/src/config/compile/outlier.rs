//! `OutlierDetection`: consecutive 5xx answers.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3 as wire;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::values::{boolean, duration, uint32, unsupported_if_true};
use crate::cluster::outlier::OutlierDetection;

/// Compiles outlier detection; `ejected` counts the hosts that are out and is kept across versions of the cluster.
pub(crate) fn compile_outlier_detection(
    cx: &mut CompileCx<'_>,
    value: &wire::OutlierDetection,
    ejected: Arc<AtomicU32>,
) -> Compiled<OutlierDetection> {
    let wire::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = value;
    unsupported!(cx; split_external_local_origin_errors, monitors);
    unsupported_if_true(cx, "detect_degraded_hosts", detect_degraded_hosts);
    // Gateway failures and failure percentage eject nobody by default; enforcing them is a wish we cannot meet.
    for (name, enforcing) in [
        ("enforcing_consecutive_gateway_failure", enforcing_consecutive_gateway_failure),
        ("enforcing_failure_percentage", enforcing_failure_percentage),
        ("enforcing_failure_percentage_local_origin", enforcing_failure_percentage_local_origin),
    ] {
        if uint32(enforcing, 0) > 0 {
            cx.refuse(name, "not supported");
        }
    }
    // Success rates are not watched, although Envoy enforces them by default (from five busy hosts on).
    if uint32(enforcing_success_rate, 0) > 0 {
        cx.refuse("enforcing_success_rate", "not supported");
    }
    informational!(
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        failure_percentage_threshold,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        successful_active_health_check_uneject_host
    );
    // Only with split_external_local_origin_errors, which is refused.
    informational!(
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate
    );
    ignored!(cx; max_ejection_time_jitter);
    let base = positive(cx, "base_ejection_time", base_ejection_time, Duration::from_secs(30));
    let longest = positive(cx, "max_ejection_time", max_ejection_time, base.max(Duration::from_secs(300)));
    if longest < base {
        cx.refuse("max_ejection_time", "must not be smaller than base_ejection_time");
    }
    let interval = positive(cx, "interval", interval, Duration::from_secs(10));
    Ok(OutlierDetection {
        consecutive_5xx: uint32(consecutive_5xx, 5),
        enforcing_consecutive_5xx: percent(cx, "enforcing_consecutive_5xx", enforcing_consecutive_5xx, 100),
        interval,
        base_ejection_time: base,
        max_ejection_time: longest,
        max_ejection_percent: percent(cx, "max_ejection_percent", max_ejection_percent, 10),
        always_eject_one_host: boolean(always_eject_one_host, false),
        ejected,
        events: cx.inputs.ejections.clone(),
    })
}

fn positive(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<outrigger_xds_api::wire::protobuf::Duration>,
    default: Duration,
) -> Duration {
    let value = duration(cx, name, value).unwrap_or(default);
    if value.is_zero() {
        cx.refuse(name, "value must be greater than 0s");
    }
    value
}

fn percent(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<outrigger_xds_api::wire::protobuf::UInt32Value>,
    default: u32,
) -> u32 {
    let value = uint32(value, default);
    if value > 100 {
        cx.refuse(name, "value must be less than or equal to 100");
    }
    value
}
