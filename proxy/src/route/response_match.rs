//! `envoy.config.common.matcher.v3.MatchPredicate` of the heads of responses.

use http::{HeaderMap, StatusCode};

use super::HeaderMatcher;

/// What a response must be like.
#[derive(Debug)]
pub enum ResponsePredicate {
    /// `or_match`: one of them.
    Or(Vec<Self>),
    /// `and_match`: each of them.
    And(Vec<Self>),
    /// `not_match`.
    Not(Box<Self>),
    /// `any_match`.
    Any,
    /// `http_response_headers_match`: all of these.
    Headers(Vec<HeaderMatcher>),
}

impl ResponsePredicate {
    /// Whether a response with this head is like that.
    pub fn matches(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match self {
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(status, headers)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(status, headers)),
            Self::Not(rule) => !rule.matches(status, headers),
            Self::Any => true,
            Self::Headers(matchers) => {
                matchers.iter().all(|matcher| matcher.matches_response(status, headers))
            }
        }
    }
}
