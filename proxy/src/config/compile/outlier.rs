//! `OutlierDetection`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::values::{boolean, duration, uint32, unsupported_if_true};
use crate::cluster::outlier::{
    Detection, FailurePercentage, InARow, OutlierDetection, Readmission, SuccessRate,
};

/// Compiles outlier detection; `state` is kept across versions of the cluster.
pub(crate) fn compile_outlier_detection(
    cx: &mut CompileCx<'_>,
    value: &wire::OutlierDetection,
    readmission: Readmission,
    warms_up: bool,
    state: Arc<Detection>,
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
    unsupported!(cx; monitors);
    unsupported_if_true(cx, "detect_degraded_hosts", detect_degraded_hosts);
    let in_a_row = |threshold, enforcing, default| InARow {
        threshold: uint32(threshold, 5),
        enforcing_percent: uint32(enforcing, default),
    };
    let server_errors = in_a_row(consecutive_5xx, enforcing_consecutive_5xx, 100);
    let gateway_failures = in_a_row(consecutive_gateway_failure, enforcing_consecutive_gateway_failure, 0);
    let local_origin_failures =
        in_a_row(consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure, 100);
    let success_rate = SuccessRate {
        minimum_hosts: uint32(success_rate_minimum_hosts, 5),
        request_volume: uint32(success_rate_request_volume, 100).into(),
        stdev_factor_thousandths: uint32(success_rate_stdev_factor, 1_900),
        enforcing_percent: uint32(enforcing_success_rate, 100),
        enforcing_local_origin_percent: uint32(enforcing_local_origin_success_rate, 100),
    };
    let failure_percentage = FailurePercentage {
        threshold: uint32(failure_percentage_threshold, 85),
        minimum_hosts: uint32(failure_percentage_minimum_hosts, 5),
        request_volume: uint32(failure_percentage_request_volume, 50).into(),
        enforcing_percent: uint32(enforcing_failure_percentage, 0),
        enforcing_local_origin_percent: uint32(enforcing_failure_percentage_local_origin, 0),
    };
    let base = duration(cx, "base_ejection_time", base_ejection_time).unwrap_or(Duration::from_secs(30));
    let longest =
        duration(cx, "max_ejection_time", max_ejection_time).unwrap_or(base.max(Duration::from_secs(300)));
    if longest < base {
        cx.refuse("max_ejection_time", "must not be smaller than base_ejection_time");
    }
    let jitter = duration(cx, "max_ejection_time_jitter", max_ejection_time_jitter).unwrap_or_default();
    let interval = duration(cx, "interval", interval).unwrap_or(Duration::from_secs(10));
    Ok(OutlierDetection {
        id: OutlierDetection::next_id(),
        server_errors,
        gateway_failures,
        splits_local_origin: *split_external_local_origin_errors,
        local_origin_failures,
        success_rate,
        failure_percentage,
        interval,
        base_ejection_time: base,
        max_ejection_time: longest,
        max_ejection_time_jitter: jitter,
        max_ejection_percent: uint32(max_ejection_percent, 10),
        always_eject_one_host: boolean(always_eject_one_host, false),
        passed_checks_return: boolean(successful_active_health_check_uneject_host, true),
        readmission,
        warms_up,
        state,
        events: cx.inputs.ejections.clone(),
    })
}
