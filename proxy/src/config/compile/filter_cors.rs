//! `CorsPolicy`.

use std::sync::Arc;

use ::http::HeaderValue;
use outrigger_xds_api::wire::extensions::filters::http::cors::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::route_match::{compile_fraction, compile_string_matcher};
use super::values;
use crate::http::filters::CorsPolicy;

/// Compiles a `CorsPolicy`, at the context's present path.
pub(crate) fn compile_cors_policy(cx: &mut CompileCx<'_>, value: &wire::CorsPolicy) -> Compiled<CorsPolicy> {
    let wire::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = value;
    unsupported!(cx; shadow_enabled);
    let origins = cx.each("allow_origin_string_match", allow_origin_string_match, |matcher, cx| {
        compile_string_matcher(cx, matcher).map(Arc::new)
    });
    let enabled = match filter_enabled {
        Some(fraction) => cx.field("filter_enabled", |cx| compile_fraction(cx, fraction)).map(Some),
        None => Ok(None),
    };
    Ok(CorsPolicy {
        allow_origins: origins?,
        allow_methods: text(cx, "allow_methods", allow_methods)?,
        allow_headers: text(cx, "allow_headers", allow_headers)?,
        expose_headers: text(cx, "expose_headers", expose_headers)?,
        max_age: text(cx, "max_age", max_age)?,
        allow_credentials: allow_credentials.as_ref().map(|b| b.value),
        allow_private_network: allow_private_network_access.as_ref().map(|b| b.value),
        forward_not_matching: forward_not_matching_preflights.as_ref().map(|b| b.value),
        enabled_ppm: enabled?,
    })
}

fn text(cx: &mut CompileCx<'_>, name: &str, value: &str) -> Compiled<Option<HeaderValue>> {
    match value.is_empty() {
        true => Ok(None),
        false => values::header_value(cx, name, value).map(Some),
    }
}
