//! `RateLimit`: of routes, of virtual hosts, and of the filter itself.

use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::filter_chain_match::compile_cidr;
use super::route_match::{compile_header_matcher, compile_query_matcher};
use super::values::{self, boolean, uint32};
use crate::formatter::{CapturePlan, Format};
use crate::route::{DescriptorValue, MatchedHeader, RateLimit, RateLimitAction, RateLimitCondition};

/// Envoy's highest `stage`.
const MAX_STAGE: u32 = 10;

/// Where a rate limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a route or virtual host: filters choose by stage, and may switch it off.
    Route,
    /// In a filter.
    Filter,
}

/// Compiles a list of `RateLimit`. Those with a `disable_key` are for the global rate limit alone, as in Envoy.
pub(crate) fn compile_rate_limits(
    cx: &mut CompileCx<'_>,
    rate_limits: &[wire::RateLimit],
    place: Place,
) -> Compiled<Vec<RateLimit>> {
    let compiled = cx.each("rate_limits", rate_limits, |limit, cx| compile_rate_limit(cx, limit, place))?;
    Ok(compiled.into_iter().flatten().collect())
}

fn compile_rate_limit(
    cx: &mut CompileCx<'_>,
    value: &wire::RateLimit,
    place: Place,
) -> Compiled<Option<RateLimit>> {
    use wire::rate_limit::XRateLimitOption as Tells;
    let wire::RateLimit {
        stage,
        disable_key,
        actions,
        limit,
        hits_addend,
        apply_on_stream_done,
        x_ratelimit_option,
    } = value;
    unsupported!(cx; limit, hits_addend, apply_on_stream_done);
    if place == Place::Filter && (stage.is_some() || !disable_key.is_empty()) {
        return Err(cx.refuse("stage", "'stage' field and 'disable_key' field are not supported"));
    }
    let stage = uint32(stage, 0);
    if stage > MAX_STAGE {
        return Err(cx.refuse("stage", "value must be less than or equal to 10"));
    }
    if actions.is_empty() {
        return Err(cx.refuse("actions", "value must contain at least 1 item(s)"));
    }
    let actions = cx.each("actions", actions, compile_action)?;
    let tells_limits = match values::enumeration(cx, "x_ratelimit_option", *x_ratelimit_option)? {
        Tells::Unspecified => None,
        Tells::Off => Some(false),
        Tells::DraftVersion03 => Some(true),
    };
    let rate_limit = RateLimit { stage, actions: actions.into(), tells_limits };
    Ok(Some(rate_limit).filter(|_| disable_key.is_empty()))
}

fn compile_action(value: &wire::rate_limit::Action, cx: &mut CompileCx<'_>) -> Compiled<RateLimitAction> {
    use wire::rate_limit::action::{self, ActionSpecifier as Action};
    let Some(action) = &value.action_specifier else {
        return Err(cx.refuse("", "an action is required"));
    };
    match action {
        Action::SourceCluster(action::SourceCluster {}) => Ok(RateLimitAction::SourceCluster),
        Action::DestinationCluster(action::DestinationCluster {}) => Ok(RateLimitAction::DestinationCluster),
        Action::RemoteAddress(action::RemoteAddress {}) => Ok(RateLimitAction::RemoteAddress),
        Action::RequestHeaders(value) => cx.field("request_headers", |cx| {
            let action::RequestHeaders { header_name, descriptor_key, skip_if_absent } = value;
            Ok(RateLimitAction::RequestHeader {
                key: required(cx, "descriptor_key", descriptor_key)?,
                header: MatchedHeader::from_name(header_name).map_err(|e| cx.refuse("header_name", e))?,
                skip_if_absent: *skip_if_absent,
            })
        }),
        Action::QueryParameters(value) => cx.field("query_parameters", |cx| {
            let action::QueryParameters { query_parameter_name, descriptor_key, skip_if_absent } = value;
            Ok(RateLimitAction::QueryParameter {
                key: required(cx, "descriptor_key", descriptor_key)?,
                name: required(cx, "query_parameter_name", query_parameter_name)?,
                skip_if_absent: *skip_if_absent,
            })
        }),
        Action::MaskedRemoteAddress(value) => cx.field("masked_remote_address", |cx| {
            let action::MaskedRemoteAddress { v4_prefix_mask_len, v6_prefix_mask_len } = value;
            Ok(RateLimitAction::MaskedRemoteAddress {
                v4_bits: bits(cx, "v4_prefix_mask_len", uint32(v4_prefix_mask_len, 32), 32)?,
                v6_bits: bits(cx, "v6_prefix_mask_len", uint32(v6_prefix_mask_len, 128), 128)?,
            })
        }),
        Action::GenericKey(value) => cx.field("generic_key", |cx| {
            let action::GenericKey { descriptor_value, default_value, descriptor_key } = value;
            let when = RateLimitCondition::Always;
            fixed(cx, (descriptor_key, "generic_key"), (descriptor_value, default_value), when)
        }),
        Action::HeaderValueMatch(value) => cx.field("header_value_match", |cx| {
            let action::HeaderValueMatch {
                descriptor_value,
                default_value,
                descriptor_key,
                expect_match,
                headers,
            } = value;
            if headers.is_empty() {
                return Err(cx.refuse("headers", "value must contain at least 1 item(s)"));
            }
            let matchers = cx.each("headers", headers, compile_header_matcher)?;
            let when = RateLimitCondition::Headers(matchers, boolean(expect_match, true));
            fixed(cx, (descriptor_key, "header_match"), (descriptor_value, default_value), when)
        }),
        Action::QueryParameterValueMatch(value) => cx.field("query_parameter_value_match", |cx| {
            let action::QueryParameterValueMatch {
                descriptor_value,
                default_value,
                descriptor_key,
                expect_match,
                query_parameters,
            } = value;
            if query_parameters.is_empty() {
                return Err(cx.refuse("query_parameters", "value must contain at least 1 item(s)"));
            }
            let matchers = cx.each("query_parameters", query_parameters, compile_query_matcher)?;
            let when = RateLimitCondition::Query(matchers, boolean(expect_match, true));
            fixed(cx, (descriptor_key, "query_match"), (descriptor_value, default_value), when)
        }),
        // There is no metadata of requests, and no extension.
        Action::DynamicMetadata(_) => Err(cx.refuse("dynamic_metadata", "not supported")),
        Action::Metadata(_) => Err(cx.refuse("metadata", "not supported")),
        Action::Extension(_) => Err(cx.refuse("extension", "not supported")),
        Action::RemoteAddressMatch(value) => cx.field("remote_address_match", |cx| {
            let action::RemoteAddressMatch {
                descriptor_value,
                descriptor_key,
                default_value,
                address_matcher,
            } = value;
            let Some(matcher) = address_matcher else {
                return Err(cx.refuse("address_matcher", "value is required"));
            };
            let networks = cx.field("address_matcher", |cx| {
                cx.each("ranges", &matcher.ranges, |range, cx| {
                    let range = core::CidrRange {
                        address_prefix: range.address_prefix.clone(),
                        prefix_len: range.prefix_len,
                    };
                    compile_cidr(&range, cx)
                })
            })?;
            let when = RateLimitCondition::Address(networks, matcher.invert_match);
            fixed(cx, (descriptor_key, "remote_address_match"), (descriptor_value, default_value), when)
        }),
    }
}

/// An entry of a key, or its default, and a value, with what stands for one that prints nothing. Commands in values are read always;
/// Envoy wants its runtime key `envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value` for them.
fn fixed(
    cx: &mut CompileCx<'_>,
    (key, default_key): (&str, &str),
    (value, default_value): (&str, &str),
    when: RateLimitCondition,
) -> Compiled<RateLimitAction> {
    let value = required(cx, "descriptor_value", value)?;
    let value = match value.contains('%') {
        true => {
            let format = Format::compile_text(&value, true, &mut CapturePlan::live())
                .map_err(|e| cx.refuse("descriptor_value", e))?;
            let default = (!default_value.is_empty()).then(|| default_value.into());
            DescriptorValue::Format(format, default)
        }
        false => DescriptorValue::Text(value),
    };
    let key = if key.is_empty() { default_key } else { key };
    Ok(RateLimitAction::Fixed { key: key.into(), value, when })
}

fn required(cx: &mut CompileCx<'_>, name: &str, text: &str) -> Compiled<Box<str>> {
    match text.is_empty() {
        true => Err(cx.refuse(name, "value length must be at least 1 characters")),
        false => Ok(text.into()),
    }
}

fn bits(cx: &mut CompileCx<'_>, name: &str, bits: u32, max: u8) -> Compiled<u8> {
    let fits = u8::try_from(bits).ok().filter(|bits| *bits <= max);
    fits.ok_or_else(|| cx.refuse(name, format!("value must be less than or equal to {max}")))
}
