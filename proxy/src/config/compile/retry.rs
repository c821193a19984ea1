//! `RetryPolicy`.

use std::num::NonZeroU32;
use std::time::Duration;

use outrigger_xds_api::wire::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use outrigger_xds_api::wire::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use outrigger_xds_api::wire::protobuf;
use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::header_mutation::header_name;
use super::metadata::json_object;
use super::route_match::compile_header_matcher;
use super::values;
use crate::metadata::BALANCING;
use crate::route::{BackOff, HostPredicate, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};

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
    for word in retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if RetryOn::word(word).is_none() {
            // Envoy passes over it without a word.
            cx.ignored(&format!("retry_on '{word}'"));
        }
    }
    let host_predicates = cx.each("retry_host_predicate", retry_host_predicate, compile_host_predicate);
    let previous_priorities = match retry_priority {
        None => Ok(None),
        Some(priority) => cx.field("retry_priority", |cx| compile_retry_priority(cx, priority)).map(Some),
    };
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
        host_predicates: host_predicates?.into(),
        redraws: redraws?,
        previous_priorities: previous_priorities?,
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
) -> Compiled<HostPredicate> {
    use wire::retry_policy::retry_host_predicate::ConfigType;
    let wire::retry_policy::RetryHostPredicate { name, config_type } = value;
    let known = match config_type {
        Some(ConfigType::TypedConfig(any)) => match values::type_name(any) {
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" => {
                Some(HostPredicate::Previous)
            }
            "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate" => {
                Some(HostPredicate::Canary)
            }
            "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig" => {
                let OmitHostMetadataConfig { metadata_match } =
                    cx.field("typed_config", |cx| values::unpack(cx, any))?;
                let matched = metadata_match.unwrap_or_default().filter_metadata.remove(BALANCING);
                let values = json_object(&matched.unwrap_or_default()).into_iter();
                Some(HostPredicate::Metadata(values.map(|(name, value)| (name.into(), value)).collect()))
            }
            _ => None,
        },
        // Older files have the name alone.
        None => match name.as_str() {
            "envoy.retry_host_predicates.previous_hosts" => Some(HostPredicate::Previous),
            "envoy.retry_host_predicates.omit_canary_hosts" => Some(HostPredicate::Canary),
            _ => None,
        },
    };
    known.ok_or_else(|| {
        let known = "previous_hosts, omit_canary_hosts and omit_host_metadata are";
        cx.refuse("", format!("'{name}' is not supported: {known}"))
    })
}

/// `update_frequency` of the one extension there is.
fn compile_retry_priority(
    cx: &mut CompileCx<'_>,
    value: &wire::retry_policy::RetryPriority,
) -> Compiled<NonZeroU32> {
    use wire::retry_policy::retry_priority::ConfigType;
    let wire::retry_policy::RetryPriority { name, config_type } = value;
    match config_type {
        Some(ConfigType::TypedConfig(any))
            if values::type_name(any)
                == "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig" =>
        {
            cx.field("typed_config", |cx| {
                let PreviousPrioritiesConfig { update_frequency } = values::unpack(cx, any)?;
                let frequency = u32::try_from(update_frequency).ok().and_then(NonZeroU32::new);
                frequency.ok_or_else(|| cx.refuse("update_frequency", "value must be greater than 0"))
            })
        }
        _ => Err(cx.refuse("", format!("'{name}' is not supported: only previous_priorities is"))),
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
