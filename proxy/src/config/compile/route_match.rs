//! `RouteMatch`, `HeaderMatcher`, `StringMatcher`.

use outrigger_xds_api::expression;
use outrigger_xds_api::wire::core::v3::RuntimeFractionalPercent;
use outrigger_xds_api::wire::route::v3 as wire;
use outrigger_xds_api::wire::r#type::matcher::v3 as matcher;
use outrigger_xds_api::wire::r#type::v3::{
    FractionalPercent, Int64Range, fractional_percent::DenominatorType,
};

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::values;
use crate::route::{
    CookieMatcher, HeaderMatcher, MatchedHeader, PathMatcher, PeerCertificateMatcher, QueryMatcher,
    RouteMatch, StringMatcher, ValueMatcher,
};

/// Compiles `Route.match`.
pub(crate) fn compile_route_match(cx: &mut CompileCx<'_>, value: &wire::RouteMatch) -> Compiled<RouteMatch> {
    use wire::route_match::PathSpecifier;
    let wire::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = value;
    unsupported!(cx; dynamic_metadata, filter_state);
    let cookies = cx.each("cookies", cookies, compile_cookie_matcher);
    let wire::route_match::TlsContextMatchOptions { presented, validated } = tls_context.unwrap_or_default();
    let peer = PeerCertificateMatcher {
        presented: presented.map(|wanted| wanted.value),
        validated: validated.map(|wanted| wanted.value),
    };
    let query = cx.each("query_parameters", query_parameters, compile_query_matcher);
    let fraction_ppm = match runtime_fraction {
        Some(fraction) => cx.field("runtime_fraction", |cx| compile_fraction(cx, fraction)).map(Some),
        None => Ok(None),
    };
    let path = match path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => Ok(PathMatcher::Prefix(prefix.as_str().into())),
        Some(PathSpecifier::Path(path)) => Ok(PathMatcher::Exact(path.as_str().into())),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => separated_prefix(cx, prefix),
        Some(PathSpecifier::SafeRegex(regex)) => {
            cx.field("safe_regex", |cx| compile_regex(cx, regex)).map(PathMatcher::Regex)
        }
        Some(PathSpecifier::ConnectMatcher(wire::route_match::ConnectMatcher {})) => Ok(PathMatcher::Connect),
        Some(PathSpecifier::PathMatchPolicy(_)) => Err(cx.refuse("path_match_policy", "not supported")),
        None => Err(cx.refuse("", "one of prefix, path, safe_regex or path_separated_prefix is required")),
    };
    let headers = cx.each("headers", headers, compile_header_matcher);
    Ok(RouteMatch {
        path: path?,
        case_sensitive: values::boolean(case_sensitive, true),
        headers: headers?,
        query: query?,
        cookies: cookies?,
        peer,
        grpc: grpc.is_some(),
        fraction_ppm: fraction_ppm?,
    })
}

/// Envoy: no trailing slash, no query, no fragment.
fn separated_prefix(cx: &mut CompileCx<'_>, prefix: &str) -> Compiled<PathMatcher> {
    if !prefix.starts_with('/') || prefix.len() < 2 || prefix.ends_with('/') || prefix.contains(['?', '#']) {
        return Err(cx.refuse(
            "path_separated_prefix",
            format!("value '{prefix}' does not match regex pattern \"^[^?#]+[^?#/]$\" with a leading slash"),
        ));
    }
    Ok(PathMatcher::SeparatedPrefix(prefix.into()))
}

/// Compiles a `RuntimeFractionalPercent` to parts per million.
pub(crate) fn compile_fraction(cx: &mut CompileCx<'_>, value: &RuntimeFractionalPercent) -> Compiled<u32> {
    let RuntimeFractionalPercent { default_value, runtime_key } = value;
    // There is no runtime to look the key up in, so the default holds.
    ignored!(cx; runtime_key);
    match default_value {
        Some(percent) => cx.field("default_value", |cx| compile_percent(cx, percent)),
        None => Err(cx.refuse("default_value", "value is required")),
    }
}

/// Compiles a `FractionalPercent` to parts per million.
pub(crate) fn compile_percent(cx: &mut CompileCx<'_>, value: &FractionalPercent) -> Compiled<u32> {
    let FractionalPercent { numerator, denominator } = value;
    let denominator = values::enumeration::<DenominatorType>(cx, "denominator", *denominator)?;
    let parts_per_million = match denominator {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    Ok(numerator.saturating_mul(parts_per_million).min(1_000_000))
}

/// Compiles a `CookieMatcher`.
fn compile_cookie_matcher(value: &wire::CookieMatcher, cx: &mut CompileCx<'_>) -> Compiled<CookieMatcher> {
    let wire::CookieMatcher { name, string_match, invert_match } = value;
    if name.is_empty() {
        return Err(cx.refuse("name", "value length must be at least 1 characters"));
    }
    let Some(string) = string_match else { return Err(cx.refuse("string_match", "value is required")) };
    let value = cx.field("string_match", |cx| compile_string_matcher(cx, string))?;
    Ok(CookieMatcher { name: name.as_str().into(), value, invert: *invert_match })
}

/// Compiles a `QueryParameterMatcher`.
pub(crate) fn compile_query_matcher(
    value: &wire::QueryParameterMatcher,
    cx: &mut CompileCx<'_>,
) -> Compiled<QueryMatcher> {
    use wire::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
    let wire::QueryParameterMatcher { name, query_parameter_match_specifier } = value;
    if name.is_empty() {
        return Err(cx.refuse("name", "value length must be at least 1 characters"));
    }
    let (value, present) = match query_parameter_match_specifier {
        None => (None, true),
        Some(Specifier::PresentMatch(present)) => (None, *present),
        Some(Specifier::StringMatch(string)) => {
            (Some(cx.field("string_match", |cx| compile_string_matcher(cx, string))?), true)
        }
    };
    Ok(QueryMatcher { name: name.as_str().into(), value, present })
}

/// Compiles a `HeaderMatcher`.
pub(crate) fn compile_header_matcher(
    value: &wire::HeaderMatcher,
    cx: &mut CompileCx<'_>,
) -> Compiled<HeaderMatcher> {
    use wire::header_matcher::HeaderMatchSpecifier as Specifier;
    let wire::HeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } =
        value;
    let name = MatchedHeader::from_name(name).map_err(|reason| cx.refuse("name", reason));
    let text = |cx: &mut CompileCx<'_>, field: &str, value: &String| -> Compiled<Box<str>> {
        if value.is_empty() {
            return Err(cx.refuse(field, "value length must be at least 1 characters"));
        }
        Ok(value.as_str().into())
    };
    let matcher = match header_match_specifier {
        None => Ok(ValueMatcher::Present(true)),
        Some(Specifier::PresentMatch(present)) => Ok(ValueMatcher::Present(*present)),
        Some(Specifier::ExactMatch(value)) => {
            Ok(ValueMatcher::String(StringMatcher::Exact(value.as_str().into())))
        }
        Some(Specifier::PrefixMatch(value)) => {
            text(cx, "prefix_match", value).map(|v| ValueMatcher::String(StringMatcher::Prefix(v)))
        }
        Some(Specifier::SuffixMatch(value)) => {
            text(cx, "suffix_match", value).map(|v| ValueMatcher::String(StringMatcher::Suffix(v)))
        }
        Some(Specifier::ContainsMatch(value)) => {
            text(cx, "contains_match", value).map(|v| ValueMatcher::String(StringMatcher::Contains(v)))
        }
        Some(Specifier::SafeRegexMatch(regex)) => cx
            .field("safe_regex_match", |cx| compile_regex(cx, regex))
            .map(|r| ValueMatcher::String(StringMatcher::Regex(r))),
        Some(Specifier::RangeMatch(Int64Range { start, end })) => Ok(ValueMatcher::Range(*start, *end)),
        Some(Specifier::StringMatch(string)) => {
            cx.field("string_match", |cx| compile_string_matcher(cx, string)).map(ValueMatcher::String)
        }
    };
    Ok(HeaderMatcher {
        name: name?,
        value: matcher?,
        invert: *invert_match,
        missing_as_empty: *treat_missing_header_as_empty,
    })
}

/// Compiles a `StringMatcher`.
pub(crate) fn compile_string_matcher(
    cx: &mut CompileCx<'_>,
    value: &matcher::StringMatcher,
) -> Compiled<StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    let matcher::StringMatcher { ignore_case, match_pattern } = value;
    let case = |text: &str| -> Box<str> {
        if *ignore_case { text.to_ascii_lowercase().into() } else { text.into() }
    };
    let compiled = match match_pattern {
        Some(MatchPattern::Exact(text)) => StringMatcher::Exact(case(text)),
        Some(MatchPattern::Prefix(text)) if !text.is_empty() => StringMatcher::Prefix(case(text)),
        Some(MatchPattern::Suffix(text)) if !text.is_empty() => StringMatcher::Suffix(case(text)),
        Some(MatchPattern::Contains(text)) if !text.is_empty() => StringMatcher::Contains(case(text)),
        Some(MatchPattern::SafeRegex(regex)) => {
            if *ignore_case {
                return Err(cx.refuse("ignore_case", "ignore_case has no effect for safe_regex."));
            }
            return cx.field("safe_regex", |cx| compile_regex(cx, regex)).map(StringMatcher::Regex);
        }
        Some(MatchPattern::Prefix(_)) => {
            return Err(cx.refuse("prefix", "value length must be at least 1 characters"));
        }
        Some(MatchPattern::Suffix(_)) => {
            return Err(cx.refuse("suffix", "value length must be at least 1 characters"));
        }
        Some(MatchPattern::Contains(_)) => {
            return Err(cx.refuse("contains", "value length must be at least 1 characters"));
        }
        Some(MatchPattern::Custom(_)) => return Err(cx.refuse("custom", "not supported")),
        None => return Err(cx.refuse("", "one of exact, prefix, suffix, contains or safe_regex is required")),
    };
    Ok(if *ignore_case { StringMatcher::IgnoreCase(Box::new(compiled)) } else { compiled })
}

/// Compiles a `RegexMatcher`, which must match the whole input.
pub(crate) fn compile_regex(cx: &mut CompileCx<'_>, value: &matcher::RegexMatcher) -> Compiled<regex::Regex> {
    compile_expression(cx, value, expression::of_all)
}

/// Compiles a `RegexMatcher` in the way that `read` has.
pub(crate) fn compile_expression(
    cx: &mut CompileCx<'_>,
    value: &matcher::RegexMatcher,
    read: fn(&str) -> Result<regex::Regex, String>,
) -> Compiled<regex::Regex> {
    let text = regex_text(cx, value)?;
    read(text).map_err(|e| cx.refuse("regex", format!("invalid regex '{text}': {e}")))
}

/// The pattern of a `RegexMatcher`.
fn regex_text<'m>(cx: &mut CompileCx<'_>, value: &'m matcher::RegexMatcher) -> Compiled<&'m str> {
    use matcher::regex_matcher::{EngineType, GoogleRe2};
    let matcher::RegexMatcher { regex, engine_type } = value;
    if let Some(EngineType::GoogleRe2(re2)) = engine_type {
        let GoogleRe2 { max_program_size } = re2;
        cx.field("google_re2", |cx| {
            ignored!(cx; max_program_size);
        });
    }
    if regex.is_empty() {
        return Err(cx.refuse("regex", "value length must be at least 1 characters"));
    }
    Ok(regex)
}
