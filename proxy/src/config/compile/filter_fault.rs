//! `HTTPFault`.

use ::http::StatusCode;
use outrigger_xds_api::wire::extensions::filters::common::fault::v3 as common;
use outrigger_xds_api::wire::extensions::filters::http::fault::v3 as wire;
use outrigger_xds_api::wire::r#type::v3::FractionalPercent;

use super::cx::{CompileCx, Compiled, ignored};
use super::route_match::{compile_header_matcher, compile_percent};
use super::values;
use crate::http::filters::{Fault, FaultAbort, FaultDelay, FaultRateLimit, FaultShare, FaultStatus};

/// Envoy's default of `response_body`.
const BODY: &str = "fault filter abort";

/// Compiles an `HTTPFault`, at the context's present path.
pub(crate) fn compile_fault(cx: &mut CompileCx<'_>, value: &wire::HttpFault) -> Compiled<Fault> {
    let wire::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = value;
    // There is no runtime to look keys up in; there are no statistics of downstream clusters; metadata is for other filters.
    ignored!(cx; delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
        max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
        disable_downstream_cluster_stats, filter_metadata);
    let delay = match delay {
        Some(delay) => cx.field("delay", |cx| compile_delay(cx, delay)).map(Some),
        None => Ok(None),
    };
    let abort = match abort {
        Some(abort) => cx.field("abort", |cx| compile_abort(cx, abort)).map(Some),
        None => Ok(None),
    };
    let rate_limit = match response_rate_limit {
        Some(limit) => cx.field("response_rate_limit", |cx| compile_rate_limit(cx, limit)).map(Some),
        None => Ok(None),
    };
    let headers = cx.each("headers", headers, compile_header_matcher);
    Ok(Fault {
        delay: delay?,
        abort: abort?,
        rate_limit: rate_limit?,
        upstream_cluster: Some(upstream_cluster.as_str().into()).filter(|_| !upstream_cluster.is_empty()),
        headers: headers?.into(),
        downstream_nodes: downstream_nodes.iter().map(|node| node.as_str().into()).collect(),
        max_active: max_active_faults.as_ref().map(|max| max.value),
    })
}

fn compile_delay(cx: &mut CompileCx<'_>, value: &common::FaultDelay) -> Compiled<FaultDelay> {
    use common::fault_delay::{FaultDelaySecifier as Specifier, HeaderDelay};
    let common::FaultDelay { percentage, fault_delay_secifier } = value;
    let fixed = match fault_delay_secifier {
        Some(Specifier::FixedDelay(delay)) => {
            let delay = values::duration(cx, "fixed_delay", &Some(*delay)).unwrap_or_default();
            if delay.is_zero() {
                return Err(cx.refuse("fixed_delay", "value must be greater than 0s"));
            }
            Some(delay)
        }
        Some(Specifier::HeaderDelay(HeaderDelay {})) => None,
        None => return Err(cx.refuse("", "one of fixed_delay or header_delay is required")),
    };
    Ok(FaultDelay { fixed, share: share(cx, percentage)? })
}

fn compile_rate_limit(cx: &mut CompileCx<'_>, value: &common::FaultRateLimit) -> Compiled<FaultRateLimit> {
    use common::fault_rate_limit::{FixedLimit, HeaderLimit, LimitType};
    let common::FaultRateLimit { percentage, limit_type } = value;
    let kbps = match limit_type {
        Some(LimitType::FixedLimit(FixedLimit { limit_kbps: 0 })) => {
            return Err(cx.refuse("fixed_limit.limit_kbps", "value must be greater than or equal to 1"));
        }
        Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => Some(*limit_kbps),
        Some(LimitType::HeaderLimit(HeaderLimit {})) => None,
        None => return Err(cx.refuse("", "one of fixed_limit or header_limit is required")),
    };
    Ok(FaultRateLimit { kbps, share: share(cx, percentage)? })
}

fn compile_abort(cx: &mut CompileCx<'_>, value: &wire::FaultAbort) -> Compiled<FaultAbort> {
    use wire::fault_abort::{ErrorType, HeaderAbort};
    let wire::FaultAbort { percentage, response_body, error_type } = value;
    let status = match error_type {
        Some(ErrorType::HttpStatus(code)) => {
            let status = u16::try_from(*code).ok().filter(|code| (200..600).contains(code));
            match status.and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) => FaultStatus::Http(status),
                None => return Err(cx.refuse("http_status", "value must be inside range [200, 600)")),
            }
        }
        Some(ErrorType::GrpcStatus(status)) => FaultStatus::Grpc(
            u16::try_from(*status)
                .map_err(|_| cx.refuse("grpc_status", format!("{status} is no gRPC status")))?,
        ),
        Some(ErrorType::HeaderAbort(HeaderAbort {})) => FaultStatus::Header,
        None => return Err(cx.refuse("", "one of http_status, grpc_status or header_abort is required")),
    };
    let body = if response_body.is_empty() { BODY } else { response_body };
    Ok(FaultAbort { status, share: share(cx, percentage)?, body: body.to_owned().into() })
}

/// Unset is never, as in Envoy.
fn share(cx: &mut CompileCx<'_>, value: &Option<FractionalPercent>) -> Compiled<FaultShare> {
    let Some(percent) = value else { return Ok(FaultShare::default()) };
    cx.field("percentage", |cx| {
        let one = FractionalPercent { numerator: 1, ..*percent };
        Ok(FaultShare { ppm: compile_percent(cx, percent)?, unit_ppm: compile_percent(cx, &one)? })
    })
}
