//! `RedirectAction`.

use ::http::{HeaderValue, StatusCode};
use outrigger_xds_api::wire::route::v3 as wire;

use super::cx::{CompileCx, Compiled};
use super::rewrite::{compile_path_format, compile_regex_rewrite};
use super::values;
use crate::route::{PathRedirect, Redirect};

/// Compiles a `RedirectAction`, at the context's present path.
pub(crate) fn compile_redirect(cx: &mut CompileCx<'_>, action: &wire::RedirectAction) -> Compiled<Redirect> {
    use wire::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let wire::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = action;
    let status = match values::enumeration(cx, "response_code", *response_code)? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let port = u16::try_from(*port_redirect)
        .map_err(|_| cx.refuse("port_redirect", "value must be less than or equal to 65535"));
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            Some(scheme.as_str().into())
        }
        _ => None,
    };
    let path = match path_rewrite_specifier {
        None => PathRedirect::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => redirect_text(cx, "path_redirect", path)
            .map(|path| if path.is_empty() { PathRedirect::Keep } else { PathRedirect::Replace(path) })?,
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            PathRedirect::Prefix(redirect_text(cx, "prefix_rewrite", prefix)?)
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            PathRedirect::Regex(cx.field("regex_rewrite", |cx| compile_regex_rewrite(cx, rewrite))?)
        }
        Some(PathRewriteSpecifier::PathRewrite(format)) if format.is_empty() => PathRedirect::Keep,
        Some(PathRewriteSpecifier::PathRewrite(format)) => {
            PathRedirect::Format(compile_path_format(cx, format)?)
        }
    };
    let host = redirect_text(cx, "host_redirect", host_redirect)?;
    Ok(Redirect {
        status,
        scheme,
        host: Some(host).filter(|h| !h.is_empty()),
        port: port?,
        path,
        strip_query: *strip_query,
    })
}

/// Text that becomes part of a `location` header.
fn redirect_text(cx: &mut CompileCx<'_>, name: &str, text: &str) -> Compiled<Box<str>> {
    if HeaderValue::from_str(text).is_err() {
        return Err(cx.refuse(name, "not allowed in a header"));
    }
    Ok(text.into())
}
