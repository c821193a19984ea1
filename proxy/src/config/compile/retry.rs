//! `RetryPolicy`.

use std::time::Duration;

use outrigger_xds_api::wire::protobuf;
use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::header_mutation::header_name;
use super::route_match::compile_header_matcher;
use super::values;
use crate::route::{BackOff, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};

/// Envoy's default of `rate_limited_retry_back_off.max_interval`.
const MAX_RESET_INTERVAL: Duration = Duration::from_secs(300);

/// Compiles a `RetryPolicy`, at the context's present path.
pub(crate) fn compile_retry_policy(
    cx: &mut CompileCx<'_>,
    value: &wire::RetryPolicy,
) -> Compiled<RetryPolicy> {
    let wire::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = value;
    unsupported!(cx; retry_options_predicates, refresh_cluster_on_retry);
    if retry_priority.is_some() {
        // The next attempt is drawn from all priorities like the first.
        cx.ignored("retry_priority");
    }
    for word in retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if RetryOn::word(word).is_none() {
            // Envoy passes over it without a word.
            cx.ignored(&format!("retry_on '{word}'"));
        }
    }
    let predicates = cx.each("retry_host_predicate", retry_host_predicate, compile_host_predicate);
    let status_codes = cx.each("retriable_status_codes", retriable_status_codes, |code, cx| {
        u16::try_from(*code).map_err(|_| cx.refuse("", format!("{code} is not a status code")))
    });
    let redraws = match *host_selection_retry_max_attempts {
        0 => Ok(1),
        n => u32::try_from(n).map_err(|_| cx.refuse("host_selection_retry_max_attempts", "out of range")),
    };
    let back_off = match retry_back_off {
        None => Ok(BackOff::default()),
        Some(back_off) => cx.field("retry_back_off", |cx| compile_back_off(cx, back_off)),
    };
    let rate_limited = match rate_limited_retry_back_off {
        None => Ok(None),
        Some(back_off) => {
            cx.field("rate_limited_retry_back_off", |cx| compile_rate_limited(cx, back_off)).map(Some)
        }
    };
    let headers = cx.each("retriable_headers", retriable_headers, compile_header_matcher);
    let request_headers =
        cx.each("retriable_request_headers", retriable_request_headers, compile_header_matcher);
    Ok(RetryPolicy {
        on: RetryOn::parse(retry_on),
        retries: values::uint32(num_retries, 1),
        per_try_timeout: values::timeout(cx, "per_try_timeout", per_try_timeout, None),
        per_try_idle_timeout: values::timeout(cx, "per_try_idle_timeout", per_try_idle_timeout, None),
        avoids_previous_hosts: !predicates?.is_empty(),
        redraws: redraws?,
        status_codes: status_codes?.into(),
        headers: headers?.into(),
        request_headers: request_headers?.into(),
        back_off: back_off?,
        rate_limited: rate_limited?,
    })
}

fn compile_host_predicate(
    value: &wire::retry_policy::RetryHostPredicate,
    cx: &mut CompileCx<'_>,
) -> Compiled<()> {
    use wire::retry_policy::retry_host_predicate::ConfigType;
    let wire::retry_policy::RetryHostPredicate { name, config_type } = value;
    // Older files have the name alone.
    let known = match config_type {
        Some(ConfigType::TypedConfig(any)) => {
            values::type_name(any) == "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        }
        None => name == "envoy.retry_host_predicates.previous_hosts",
    };
    match known {
        true => Ok(()),
        false => Err(cx.refuse("", format!("'{name}' is not supported: only previous_hosts is"))),
    }
}

fn compile_back_off(cx: &mut CompileCx<'_>, value: &wire::retry_policy::RetryBackOff) -> Compiled<BackOff> {
    let wire::retry_policy::RetryBackOff { base_interval, max_interval } = value;
    if base_interval.is_none() {
        return Err(cx.refuse("base_interval", "value is required"));
    }
    // Envoy counts in whole milliseconds, at least one.
    let whole = |d: Duration| Duration::from_millis(u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1));
    let base = whole(positive(cx, "base_interval", base_interval)?.unwrap_or(BackOff::default().base));
    let max = positive(cx, "max_interval", max_interval)?.map_or(base.saturating_mul(10), whole);
    if max < base {
        return Err(cx.refuse("max_interval", "must be greater than or equal to the base_interval"));
    }
    Ok(BackOff { base, max })
}

fn positive(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<protobuf::Duration>,
) -> Compiled<Option<Duration>> {
    match values::duration(cx, name, value) {
        Some(d) if d.is_zero() => Err(cx.refuse(name, "value must be greater than 0s")),
        other => Ok(other),
    }
}

fn compile_rate_limited(
    cx: &mut CompileCx<'_>,
    value: &wire::retry_policy::RateLimitedRetryBackOff,
) -> Compiled<RateLimitedBackOff> {
    use wire::retry_policy::ResetHeaderFormat;
    let wire::retry_policy::RateLimitedRetryBackOff { reset_headers, max_interval } = value;
    if reset_headers.is_empty() {
        return Err(cx.refuse("reset_headers", "value must contain at least 1 item(s)"));
    }
    let headers = cx.each("reset_headers", reset_headers, |header, cx| {
        let wire::retry_policy::ResetHeader { name, format } = header;
        let format = match values::enumeration(cx, "format", *format)? {
            ResetHeaderFormat::Seconds => ResetFormat::Seconds,
            ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
        };
        Ok((header_name(cx, "name", name)?, format))
    });
    let max = positive(cx, "max_interval", max_interval)?.unwrap_or(MAX_RESET_INTERVAL);
    Ok(RateLimitedBackOff { headers: headers?.into(), max })
}
