//! Conditions on requests in xDS.

use outrigger_xds_api::wire::protobuf::BoolValue;
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use outrigger_xds_api::wire::route::v3::route_match::PathSpecifier;
use outrigger_xds_api::wire::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use outrigger_xds_api::wire::r#type::matcher::v3::string_matcher::MatchPattern;
use outrigger_xds_api::wire::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher, StringMatcher};

use crate::model::{HeaderMatch, PathMatch, PathRewrite, RequestMatch, StringMatch};

/// How the path changes, for what Envoy is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// What the match found becomes this.
    Matched(String),
    /// The whole path becomes this.
    Whole(String),
    /// What the expression finds becomes the text.
    Regex(String, String),
}

/// A match of a route by its path, which [`path_specifiers`] made.
pub(super) fn route_match(request: &RequestMatch, path: PathSpecifier) -> RouteMatch {
    let method = request.method.iter().map(|method| header(":method", method, false));
    let headers = request
        .headers
        .iter()
        .map(|HeaderMatch { name, value, is_inverted }| header(name, value, *is_inverted));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: request.ignore_case.then_some(BoolValue { value: false }),
        headers: method.chain(headers).collect(),
        query_parameters: request
            .query
            .iter()
            .map(|parameter| QueryParameterMatcher {
                name: parameter.name.clone(),
                query_parameter_match_specifier: Some(match pattern(&parameter.value) {
                    Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
                    None => QueryParameterMatchSpecifier::PresentMatch(true),
                }),
            })
            .collect(),
        ..RouteMatch::default()
    }
}

fn header(name: &str, value: &StringMatch, is_inverted: bool) -> HeaderMatcher {
    let specifier = match pattern(value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        invert_match: is_inverted,
        // Without it a header that is missing would fail an inverted match too.
        treat_missing_header_as_empty: is_inverted && *value != StringMatch::Present,
        header_match_specifier: Some(specifier),
    }
}

/// `None`: it only has to be there.
fn pattern(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(expression) => MatchPattern::SafeRegex(regex(expression)),
        StringMatch::Present => return None,
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}

/// Conditions on an origin (CORS). There is always one to compare with.
pub(super) fn string_matcher(value: &StringMatch) -> StringMatcher {
    pattern(value).unwrap_or_else(|| StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(String::new())),
        ..StringMatcher::default()
    })
}

pub(super) fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher { regex: expression.to_owned(), ..RegexMatcher::default() }
}

impl Rewrite {
    /// As `regex_rewrite` has it. `None`: Envoy has other fields for it.
    pub(super) fn regex(&self) -> Option<RegexMatchAndSubstitute> {
        let (expression, substitution) = match self {
            Self::Matched(_) => return None,
            // A backslash in a substitution begins a group's number.
            Self::Whole(path) => ("^.*$", path.replace('\\', r"\\")),
            Self::Regex(expression, substitution) => (expression.as_str(), substitution.clone()),
        };
        Some(RegexMatchAndSubstitute { pattern: Some(regex(expression)), substitution })
    }
}

/// The paths of a match, mostly one, and how each changes.
pub(super) fn path_specifiers(
    path: &PathMatch,
    rewrite: Option<&PathRewrite>,
) -> Vec<(PathSpecifier, Option<Rewrite>)> {
    let unchanged = path_specifier(path);
    match (rewrite, path) {
        (None, _) => vec![(unchanged, None)],
        (Some(PathRewrite::Full(full)), _) => vec![(unchanged, Some(Rewrite::Whole(full.clone())))],
        (Some(PathRewrite::Characters(new)), _) => vec![(unchanged, Some(Rewrite::Matched(new.clone())))],
        (Some(PathRewrite::Regex(expression, substitution)), _) => {
            vec![(unchanged, Some(Rewrite::Regex(expression.clone(), substitution.clone())))]
        }
        (Some(PathRewrite::Prefix(new)), PathMatch::Prefix(old)) => {
            let new = new.trim_end_matches('/');
            match (old.as_str(), new) {
                // `/a` -> `/new/a`: what is replaced ends in a slash, so must what it becomes.
                ("/", _) => vec![(unchanged, Some(Rewrite::Matched(format!("{new}/"))))],
                // `/old/a` -> `/a` and `/old` -> `/`.
                (old, "") => vec![
                    (PathSpecifier::Prefix(format!("{old}/")), Some(Rewrite::Matched("/".to_owned()))),
                    (PathSpecifier::Path(old.to_owned()), Some(Rewrite::Whole("/".to_owned()))),
                ],
                (_, new) => vec![(unchanged, Some(Rewrite::Matched(new.to_owned())))],
            }
        }
        // The front end refuses the rewriting of a prefix on any other match.
        (Some(PathRewrite::Prefix(_)), _) => vec![(unchanged, None)],
    }
}

fn path_specifier(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(path) if path == "/" => PathSpecifier::Prefix(path.clone()),
        PathMatch::Prefix(path) => PathSpecifier::PathSeparatedPrefix(path.clone()),
        PathMatch::Characters(path) => PathSpecifier::Prefix(path.clone()),
        PathMatch::Regex(expression) => PathSpecifier::SafeRegex(regex(expression)),
        PathMatch::Grpc { service, method } => grpc(service.as_ref(), method.as_ref()),
    }
}

/// The path of a call is `/SERVICE/METHOD`.
fn grpc(service: Option<&StringMatch>, method: Option<&StringMatch>) -> PathSpecifier {
    match (service, method) {
        (Some(StringMatch::Exact(service)), Some(StringMatch::Exact(method))) => {
            PathSpecifier::Path(format!("/{service}/{method}"))
        }
        (Some(StringMatch::Exact(service)), None) => PathSpecifier::Prefix(format!("/{service}/")),
        (service, method) => {
            let part = |part: Option<&StringMatch>| match part {
                Some(StringMatch::Exact(text)) => regex::escape(text),
                Some(StringMatch::Regex(expression)) => format!("(?:{expression})"),
                _ => "[^/]+".to_owned(),
            };
            PathSpecifier::SafeRegex(regex(&format!("/{}/{}", part(service), part(method))))
        }
    }
}
