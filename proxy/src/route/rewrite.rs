//! How a route changes the path and the host of a request before it goes upstream.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

use super::{HeaderText, PathMatcher};
use crate::formatter::Values;

/// `prefix_rewrite` and its alternatives.
#[derive(Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: in place of what was matched.
    Prefix(Box<str>),
    /// `regex_rewrite`: in place of every match.
    Regex(RegexSubstitution),
    /// `path_rewrite`: in place of the whole path.
    Format(HeaderText),
}

/// `envoy.type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Debug)]
pub struct RegexSubstitution {
    /// `pattern`; not anchored.
    pub pattern: Regex,
    /// `substitution`, groups written as `${1}`.
    pub substitution: Box<str>,
}

/// `host_rewrite_specifier`.
#[derive(Debug)]
pub enum HostRewrite {
    /// `host_rewrite_literal`.
    Literal(HeaderValue),
    /// `auto_host_rewrite`: the picked host's `hostname`, when it has one.
    Auto,
    /// `host_rewrite_header`: this header's value, when the request has it.
    Header(HeaderName),
    /// `host_rewrite_path_regex`: made of the path.
    PathRegex(RegexSubstitution),
    /// `host_rewrite`: made by a format.
    Format(HeaderText),
}

impl RegexSubstitution {
    /// `text` with every match replaced.
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.pattern.replace_all(text, &*self.substitution)
    }
}

impl PathRewrite {
    /// The new path with the old query; `None`: it stays. `matched` is what the route matched; formats print `values`.
    pub fn apply(&self, matched: &PathMatcher, path_and_query: &str, values: Values<'_>) -> Option<String> {
        let end = path_and_query.find('?').unwrap_or(path_and_query.len());
        let (path, query) = path_and_query.split_at(end);
        let mut new = String::with_capacity(path_and_query.len() + 16);
        match self {
            PathRewrite::Prefix(prefix) => {
                new.push_str(prefix);
                new.push_str(&path[matched.matched_len(path)..]);
            }
            PathRewrite::Regex(regex) => new.push_str(&regex.apply(path)),
            PathRewrite::Format(format) => {
                let text = format.value(values)?;
                new.push_str(text.to_str().ok().filter(|text| !text.is_empty())?);
            }
        }
        new.push_str(query);
        Some(new)
    }
}

impl HostRewrite {
    /// The new host; `None`: it stays, or is known only with the upstream host.
    pub fn host(&self, path: &str, headers: &HeaderMap, values: Values<'_>) -> Option<HeaderValue> {
        match self {
            HostRewrite::Literal(host) => Some(host.clone()),
            HostRewrite::Auto => None,
            HostRewrite::Header(name) => headers.get(name).filter(|host| !host.is_empty()).cloned(),
            HostRewrite::PathRegex(regex) => {
                let path = path.split('?').next().unwrap_or_default();
                HeaderValue::from_str(&regex.apply(path)).ok()
            }
            HostRewrite::Format(format) => format.value(values).filter(|host| !host.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::stream_info::StreamInfo;

    #[test]
    fn paths() {
        let info = StreamInfo::of_test();
        let regex = |pattern: &str, to: &str| {
            PathRewrite::Regex(RegexSubstitution {
                pattern: Regex::new(pattern).unwrap(),
                substitution: to.into(),
            })
        };
        let prefix = PathMatcher::Prefix("/old".into());
        for (rewrite, path, expected) in [
            (PathRewrite::Prefix("/new".into()), "/old/x?/old", "/new/x?/old"),
            (PathRewrite::Prefix("/".into()), "/old", "/"),
            (regex("/o(.)d", "/${1}"), "/old/old?/old", "/l/l?/old"),
        ] {
            assert_eq!(rewrite.apply(&prefix, path, (&info).into()).as_deref(), Some(expected));
        }
        let exact = PathMatcher::Exact("/old".into());
        let new = PathRewrite::Prefix("/new".into()).apply(&exact, "/old?x", (&info).into());
        assert_eq!(new.as_deref(), Some("/new?x"));
    }
}
