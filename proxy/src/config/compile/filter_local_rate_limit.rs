//! `LocalRateLimit`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::StatusCode;
use outrigger_xds_api::wire::core::v3::RuntimeFractionalPercent;
use outrigger_xds_api::wire::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion as Headers,
};
use outrigger_xds_api::wire::extensions::filters::http::local_ratelimit::v3 as wire;
use outrigger_xds_api::wire::r#type::v3::{HttpStatus, TokenBucket as WireBucket};
use rustc_hash::FxHashSet;

use super::cx::{CompileCx, Compiled, unsupported};
use super::header_mutation::compile_addition;
use super::rate_limit::{Place, compile_rate_limits};
use super::route_match::compile_fraction;
use super::values;
use crate::formatter::CapturePlan;
use crate::http::filters::{
    BucketSize, LimitedDescriptor, Limiter, LimiterPlan, LocalRateLimit, VirtualHostLimits,
};
use crate::route::HeaderMutations;

/// Envoy's shortest `fill_interval`.
const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

/// Envoy's highest `stage`.
const MAX_STAGE: u32 = 10;

/// Envoy's default of `max_dynamic_descriptors`.
const MAX_DYNAMIC_DESCRIPTORS: u32 = 20;

/// More values at once than this would take memory that nobody means to give: each has its place from the start.
const MOST_DYNAMIC_DESCRIPTORS: u32 = 65_536;

const DEFAULT_BUCKET: &str = "local rate limit token bucket";
const DESCRIPTOR_BUCKET: &str = "local rate limit descriptor token bucket";

/// Compiles a `LocalRateLimit`, at the context's present path.
pub(crate) fn compile_local_rate_limit(
    cx: &mut CompileCx<'_>,
    value: &wire::LocalRateLimit,
    place: Place,
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
    unsupported!(cx; local_cluster_rate_limit);
    if stat_prefix.is_empty() {
        return Err(cx.refuse("stat_prefix", "value length must be at least 1 characters"));
    }
    if *stage > MAX_STAGE {
        return Err(cx.refuse("stage", "value must be less than or equal to 10"));
    }
    let bucket = match token_bucket {
        Some(bucket) => cx.field("token_bucket", |cx| compile_bucket(cx, bucket, DEFAULT_BUCKET)).map(Some),
        None if place == Place::Route => {
            Err(cx.refuse("token_bucket", "local rate limit token bucket must be set for per filter configs"))
        }
        None => Ok(None),
    };
    let max_values = values::uint32(max_dynamic_descriptors, MAX_DYNAMIC_DESCRIPTORS);
    if max_values == 0 {
        return Err(cx.refuse("max_dynamic_descriptors", "value must be greater than or equal to 1"));
    }
    if max_values > MOST_DYNAMIC_DESCRIPTORS {
        let reason = format!("value must be less than or equal to {MOST_DYNAMIC_DESCRIPTORS}");
        return Err(cx.refuse("max_dynamic_descriptors", reason));
    }
    let descriptors = compile_descriptors(cx, descriptors);
    let rate_limits = compile_rate_limits(cx, rate_limits, Place::Filter);
    let virtual_host = match values::enumeration(cx, "vh_rate_limits", *vh_rate_limits)? {
        VhRateLimitsOptions::Override => VirtualHostLimits::Override,
        VhRateLimitsOptions::Include => VirtualHostLimits::Include,
        VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
    };
    let tells_limits =
        values::enumeration::<Headers>(cx, "enable_x_ratelimit_headers", *enable_x_ratelimit_headers)?
            == Headers::DraftVersion03;
    let not_enforced = cx.each(
        "request_headers_to_add_when_not_enforced",
        request_headers_to_add_when_not_enforced,
        |option, cx| compile_addition(option, &mut CapturePlan::live(), cx),
    );
    let response_headers = cx.each("response_headers_to_add", response_headers_to_add, |option, cx| {
        compile_addition(option, &mut CapturePlan::live(), cx)
    });
    let plan = Arc::new(LimiterPlan {
        default: bucket?,
        descriptors: descriptors?,
        always_takes_default: values::boolean(always_consume_default_token_bucket, true),
        max_values,
    });
    let shared = !local_rate_limit_per_downstream_connection;
    Ok(LocalRateLimit {
        stats: cx.inputs.stats.local_rate_limit(stat_prefix),
        limiter: shared.then(|| Limiter::new(&plan, Instant::now())),
        plan,
        rate_limits: rate_limits?.into(),
        stage: *stage,
        virtual_host,
        service_cluster: cx.inputs.service_cluster.clone(),
        tells_limits,
        tells_retry_after: *enable_retry_after_header,
        status: compile_status(cx, status)?,
        enabled_ppm: share(cx, "filter_enabled", filter_enabled)?,
        enforced_ppm: share(cx, "filter_enforced", filter_enforced)?,
        not_enforced: HeaderMutations { remove: Box::default(), add: not_enforced?.into() },
        response_headers: HeaderMutations { remove: Box::default(), add: response_headers?.into() },
        resource_exhausted: *rate_limited_as_resource_exhausted,
    })
}

/// Envoy does not know which of two equal descriptors is meant.
fn compile_descriptors(
    cx: &mut CompileCx<'_>,
    descriptors: &[LocalRateLimitDescriptor],
) -> Compiled<Vec<LimitedDescriptor>> {
    let mut seen = FxHashSet::default();
    cx.each("descriptors", descriptors, |descriptor, cx| {
        let LocalRateLimitDescriptor { entries, token_bucket, shadow_mode } = descriptor;
        if entries.is_empty() {
            return Err(cx.refuse("entries", "value must contain at least 1 item(s)"));
        }
        let entries = cx.each("entries", entries, |entry, cx| match entry.key.is_empty() {
            true => Err(cx.refuse("key", "value length must be at least 1 characters")),
            false => Ok((Box::<str>::from(&*entry.key), Box::<str>::from(&*entry.value))),
        })?;
        let Some(bucket) = token_bucket else {
            return Err(cx.refuse("token_bucket", "value is required"));
        };
        let size = cx.field("token_bucket", |cx| compile_bucket(cx, bucket, DESCRIPTOR_BUCKET))?;
        if !seen.insert(entries.clone()) {
            let names: Vec<String> = entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let names = names.join(", ");
            return Err(cx.refuse("", format!("duplicate descriptor in the local rate descriptor: {names}")));
        }
        Ok(LimitedDescriptor { entries: entries.into(), size, shadow: *shadow_mode })
    })
}

fn compile_bucket(cx: &mut CompileCx<'_>, value: &WireBucket, of: &str) -> Compiled<BucketSize> {
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
        return Err(cx.refuse("fill_interval", format!("{of} fill timer must be >= 50ms")));
    }
    Ok(BucketSize { max_tokens: *max_tokens, tokens, interval })
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
