//! `InternalRedirectPolicy`.

use outrigger_xds_api::wire::core::v3::TypedExtensionConfig;
use outrigger_xds_api::wire::extensions::internal_redirect as wire;
use outrigger_xds_api::wire::route::v3::InternalRedirectPolicy as Wire;

use super::cx::{CompileCx, Compiled};
use super::header_mutation::header_name;
use super::values;
use crate::route::{InternalRedirectPolicy, RedirectPredicate};

/// Compiles an `InternalRedirectPolicy`, at the context's present path.
pub(crate) fn compile_internal_redirects(
    cx: &mut CompileCx<'_>,
    value: &Wire,
) -> Compiled<InternalRedirectPolicy> {
    let Wire {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = value;
    let statuses = match redirect_response_codes.as_slice() {
        [] => vec![302],
        codes => codes.iter().filter_map(|code| redirect_status(cx, *code)).collect(),
    };
    let predicates = cx.each("predicates", predicates, compile_predicate);
    let copied = cx.each("response_headers_to_copy", response_headers_to_copy, |name, cx| {
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            return Err(cx.refuse("", ":-prefixed headers or Hosts may not be specified here."));
        }
        header_name(cx, "", name)
    });
    Ok(InternalRedirectPolicy {
        max: values::uint32(max_internal_redirects, 1),
        statuses: statuses.into(),
        predicates: predicates?.into(),
        cross_scheme: *allow_cross_scheme_redirect,
        copied_headers: copied?.into(),
    })
}

/// As in Envoy others are left out.
fn redirect_status(cx: &mut CompileCx<'_>, code: u32) -> Option<u16> {
    let status = u16::try_from(code).ok().filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
    if status.is_none() {
        cx.ignored(&format!("redirect_response_codes {code}"));
    }
    status
}

fn compile_predicate(value: &TypedExtensionConfig, cx: &mut CompileCx<'_>) -> Compiled<RedirectPredicate> {
    let TypedExtensionConfig { name, typed_config } = value;
    let Some(any) = typed_config else { return Err(cx.refuse("typed_config", "value is required")) };
    cx.field("typed_config", |cx| {
        Ok(match values::type_name(any) {
            "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig" => {
                let wire::previous_routes::v3::PreviousRoutesConfig {} = values::unpack(cx, any)?;
                RedirectPredicate::PreviousRoutes
            }
            "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig" => {
                let wire::allow_listed_routes::v3::AllowListedRoutesConfig { allowed_route_names } =
                    values::unpack(cx, any)?;
                let names = allowed_route_names.into_iter().map(String::into_boxed_str);
                RedirectPredicate::AllowListedRoutes(names.collect())
            }
            "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig" => {
                let wire::safe_cross_scheme::v3::SafeCrossSchemeConfig {} = values::unpack(cx, any)?;
                RedirectPredicate::SafeCrossScheme
            }
            other => return Err(cx.refuse("@type", format!("predicate '{name}' ({other}) is not supported"))),
        })
    })
}
