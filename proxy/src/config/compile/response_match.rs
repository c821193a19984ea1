//! `MatchPredicate` of the heads of responses. Envoy's validation rules have seen that each has a rule, and sets two.

use outrigger_xds_api::wire::common::matcher::v3 as wire;

use super::cx::{CompileCx, Compiled};
use super::route_match::compile_header_matcher;
use crate::route::ResponsePredicate;

/// Compiles a predicate, at the context's present path.
pub(super) fn compile_response_predicate(
    cx: &mut CompileCx<'_>,
    value: &wire::MatchPredicate,
) -> Compiled<ResponsePredicate> {
    use wire::match_predicate::{MatchSet, Rule};
    let wire::MatchPredicate { rule } = value;
    let rules = |cx: &mut CompileCx<'_>, name: &str, set: &MatchSet| {
        let MatchSet { rules } = set;
        cx.field(name, |cx| cx.each("rules", rules, |rule, cx| compile_response_predicate(cx, rule)))
    };
    // What a response alone does not tell, or its head.
    let other = |cx: &mut CompileCx<'_>, name: &str| {
        Err(cx.refuse(name, "not supported: only heads of responses are looked at"))
    };
    match rule {
        Some(Rule::OrMatch(set)) => rules(cx, "or_match", set).map(ResponsePredicate::Or),
        Some(Rule::AndMatch(set)) => rules(cx, "and_match", set).map(ResponsePredicate::And),
        Some(Rule::NotMatch(one)) => cx
            .field("not_match", |cx| compile_response_predicate(cx, one))
            .map(|one| ResponsePredicate::Not(Box::new(one))),
        Some(Rule::AnyMatch(_)) | None => Ok(ResponsePredicate::Any),
        Some(Rule::HttpResponseHeadersMatch(wire::HttpHeadersMatch { headers })) => {
            let headers = cx.field("http_response_headers_match", |cx| {
                cx.each("headers", headers, compile_header_matcher)
            });
            headers.map(ResponsePredicate::Headers)
        }
        Some(Rule::HttpRequestHeadersMatch(_)) => other(cx, "http_request_headers_match"),
        Some(Rule::HttpRequestTrailersMatch(_)) => other(cx, "http_request_trailers_match"),
        Some(Rule::HttpResponseTrailersMatch(_)) => other(cx, "http_response_trailers_match"),
        Some(Rule::HttpRequestGenericBodyMatch(_)) => other(cx, "http_request_generic_body_match"),
        Some(Rule::HttpResponseGenericBodyMatch(_)) => other(cx, "http_response_generic_body_match"),
    }
}
