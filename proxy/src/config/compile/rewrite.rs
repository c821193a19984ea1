//! Rewrites of paths and hosts.

use ::http::HeaderValue;
use outrigger_xds_api::expression;
use outrigger_xds_api::wire::route::v3::route_action::HostRewriteSpecifier;
use outrigger_xds_api::wire::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::cx::{CompileCx, Compiled};
use super::header_mutation::header_name;
use super::route_match::compile_expression;
use super::values;
use crate::formatter::{CapturePlan, Format};
use crate::route::{HeaderText, HostRewrite, PathRewrite, RegexSubstitution};

/// `prefix_rewrite`, `regex_rewrite` or `path_rewrite`.
pub(crate) fn compile_path_rewrite(
    cx: &mut CompileCx<'_>,
    prefix: &str,
    regex: &Option<RegexMatchAndSubstitute>,
    format: &str,
) -> Compiled<Option<PathRewrite>> {
    if !format.is_empty() {
        if !prefix.is_empty() || regex.is_some() {
            return Err(cx.refuse(
                "path_rewrite",
                "only one of prefix_rewrite, regex_rewrite and path_rewrite can be specified",
            ));
        }
        return Ok(Some(PathRewrite::Format(compile_path_format(cx, format)?)));
    }
    match (prefix.is_empty(), regex) {
        (true, None) => Ok(None),
        (false, None) if HeaderValue::from_str(prefix).is_err() => {
            Err(cx.refuse("prefix_rewrite", "not allowed in a header"))
        }
        (false, None) => Ok(Some(PathRewrite::Prefix(prefix.into()))),
        (true, Some(regex)) => cx
            .field("regex_rewrite", |cx| compile_regex_rewrite(cx, regex))
            .map(|regex| Some(PathRewrite::Regex(regex))),
        (false, Some(_)) => {
            Err(cx.refuse("regex_rewrite", "Cannot specify both prefix_rewrite and regex_rewrite"))
        }
    }
}

/// A path made by a format: what is not known is nothing.
pub(super) fn compile_path_format(cx: &mut CompileCx<'_>, format: &str) -> Compiled<HeaderText> {
    compile_format(cx, "path_rewrite", format, true)
}

fn compile_format(
    cx: &mut CompileCx<'_>,
    field: &str,
    format: &str,
    omit_empty_values: bool,
) -> Compiled<HeaderText> {
    let format = Format::compile_text(format, omit_empty_values, &mut CapturePlan::live());
    format.map(HeaderText::Format).map_err(|reason| cx.refuse(field, reason))
}

/// `host_rewrite_specifier`.
pub(crate) fn compile_host_rewrite(
    cx: &mut CompileCx<'_>,
    value: &Option<HostRewriteSpecifier>,
) -> Compiled<Option<HostRewrite>> {
    Ok(match value {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if host.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(HostRewrite::Literal(values::header_value(cx, "host_rewrite_literal", host)?))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(wanted)) => wanted.value.then_some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(header_name(cx, "host_rewrite_header", name)?))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => Some(HostRewrite::PathRegex(
            cx.field("host_rewrite_path_regex", |cx| compile_regex_rewrite(cx, regex))?,
        )),
        Some(HostRewriteSpecifier::HostRewrite(format)) if format.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewrite(format)) => {
            // What is not known is `-`: so does Envoy 1.40, although its documentation says that it is nothing.
            Some(HostRewrite::Format(compile_format(cx, "host_rewrite", format, false)?))
        }
    })
}

/// Compiles a `RegexMatchAndSubstitute`, at the context's present path.
pub(crate) fn compile_regex_rewrite(
    cx: &mut CompileCx<'_>,
    value: &RegexMatchAndSubstitute,
) -> Compiled<RegexSubstitution> {
    let RegexMatchAndSubstitute { pattern, substitution } = value;
    let Some(pattern) = pattern else {
        return Err(cx.refuse("pattern", "value is required"));
    };
    let pattern = cx.field("pattern", |cx| {
        // A rewrite replaces every match, so unlike in a matcher the pattern is not anchored.
        compile_expression(cx, pattern, expression::of_parts)
    })?;
    let substitution = compile_substitution(cx, substitution, pattern.captures_len())?;
    Ok(RegexSubstitution { pattern, substitution })
}

/// A substitution whose text may stand in a header.
fn compile_substitution(cx: &mut CompileCx<'_>, text: &str, groups: usize) -> Compiled<Box<str>> {
    let out = expression::substitution(text, groups)
        .map_err(|e| cx.refuse("substitution", format!("invalid substitution '{text}': {e}")))?;
    if HeaderValue::from_str(&out).is_err() {
        return Err(cx.refuse("substitution", "not allowed in a header"));
    }
    Ok(out.into())
}
