//! `LocalRateLimit`.

use std::time::{Duration, Instant};

use ::http::StatusCode;
use outrigger_xds_api::wire::core::v3::RuntimeFractionalPercent;
use outrigger_xds_api::wire::extensions::filters::http::local_ratelimit::v3 as wire;
use outrigger_xds_api::wire::r#type::v3::{HttpStatus, TokenBucket as WireBucket};

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::header_mutation::compile_addition;
use super::route_match::compile_fraction;
use super::values;
use crate::formatter::CapturePlan;
use crate::http::filters::{LocalRateLimit, TokenBucket};
use crate::route::HeaderMutations;

/// Envoy's shortest `fill_interval`.
const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

/// Compiles a `LocalRateLimit`, at the context's present path.
pub(crate) fn compile_local_rate_limit(
    cx: &mut CompileCx<'_>,
    value: &wire::LocalRateLimit,
) -> Compiled<LocalRateLimit> {
    let wire::LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = value;
    unsupported!(cx; descriptors, local_rate_limit_per_downstream_connection, local_cluster_rate_limit,
        enable_x_ratelimit_headers, rate_limits, enable_retry_after_header);
    // No effect without descriptors.
    informational!(stage, vh_rate_limits, always_consume_default_token_bucket, max_dynamic_descriptors);
    // Counted under the connection manager's prefix.
    ignored!(cx; stat_prefix);
    let bucket = match token_bucket {
        Some(bucket) => cx.field("token_bucket", |cx| compile_bucket(cx, bucket)).map(Some),
        None => Ok(None),
    };
    let mut plan = CapturePlan::live();
    let not_enforced = cx.each(
        "request_headers_to_add_when_not_enforced",
        request_headers_to_add_when_not_enforced,
        |option, cx| compile_addition(option, &mut CapturePlan::live(), cx),
    );
    let response_headers = cx.each("response_headers_to_add", response_headers_to_add, |option, cx| {
        compile_addition(option, &mut plan, cx)
    });
    Ok(LocalRateLimit {
        bucket: bucket?,
        status: compile_status(cx, status)?,
        enabled_ppm: share(cx, "filter_enabled", filter_enabled)?,
        enforced_ppm: share(cx, "filter_enforced", filter_enforced)?,
        not_enforced: HeaderMutations { remove: Box::default(), add: not_enforced?.into() },
        response_headers: HeaderMutations { remove: Box::default(), add: response_headers?.into() },
        resource_exhausted: *rate_limited_as_resource_exhausted,
    })
}

fn compile_bucket(cx: &mut CompileCx<'_>, value: &WireBucket) -> Compiled<TokenBucket> {
    let WireBucket { max_tokens, tokens_per_fill, fill_interval } = value;
    if *max_tokens == 0 {
        return Err(cx.refuse("max_tokens", "value must be greater than 0"));
    }
    let tokens = values::uint32(tokens_per_fill, 1);
    if tokens == 0 {
        return Err(cx.refuse("tokens_per_fill", "value must be greater than 0"));
    }
    let Some(interval) = values::duration(cx, "fill_interval", fill_interval) else {
        return Err(cx.refuse("fill_interval", "value is required"));
    };
    if interval < MIN_FILL_INTERVAL {
        return Err(cx.refuse("fill_interval", "local rate limit token bucket fill timer must be >= 50ms"));
    }
    Ok(TokenBucket::new(*max_tokens, tokens, interval, Instant::now()))
}

/// Default and everything below 400: 429.
fn compile_status(cx: &mut CompileCx<'_>, value: &Option<HttpStatus>) -> Compiled<StatusCode> {
    match value.as_ref().map(|HttpStatus { code }| u16::try_from(*code)) {
        Some(Ok(code)) if code >= 400 => {
            StatusCode::from_u16(code).map_err(|_| cx.refuse("status.code", format!("{code} is no status")))
        }
        _ => Ok(StatusCode::TOO_MANY_REQUESTS),
    }
}

/// Unset is never, as in Envoy.
fn share(cx: &mut CompileCx<'_>, name: &str, value: &Option<RuntimeFractionalPercent>) -> Compiled<u32> {
    match value {
        Some(fraction) => cx.field(name, |cx| compile_fraction(cx, fraction)),
        None => Ok(0),
    }
}
