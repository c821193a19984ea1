//! `envoy.filters.http.header_mutation`: headers and query parameters that change on the way, one mutation after the other.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};

use super::{Decision, Override};
use crate::formatter::RequestLine;
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::headers::adds_router_controls;
use crate::route::{AppendAction, HeaderMutations, StringMatcher};

/// `envoy.extensions.filters.http.header_mutation.v3.Mutations`, compiled.
#[derive(Debug, Default)]
pub struct Mutations {
    /// `request_mutations`.
    pub request: Box<[Mutation]>,
    /// `response_mutations`.
    pub response: Box<[Mutation]>,
    /// `query_parameter_mutations`.
    pub query: Box<[QueryMutation]>,
    /// A format of `response` prints something of the request, which has to be kept for it.
    pub keeps_request_head: bool,
}

/// `envoy.config.common.mutation_rules.v3.HeaderMutation`.
#[derive(Debug)]
pub enum Mutation {
    /// `remove` or `append`: exactly one change.
    Change(HeaderMutations),
    /// `remove_on_match`: every header whose name matches.
    RemoveOnMatch(StringMatcher),
}

/// `envoy.config.core.v3.KeyValueMutation` of a query.
#[derive(Debug)]
pub enum QueryMutation {
    /// `remove`: all parameters of this name.
    Remove(Box<str>),
    /// `append`.
    Set {
        /// The parameter's name.
        name: Box<str>,
        /// Its value, as it is to stand in the query.
        value: Box<str>,
        /// What to do with those of the name that are there.
        action: AppendAction,
    },
}

pub(super) fn on_request(
    own: &Arc<Mutations>,
    most_specific_wins: bool,
    said: Option<&Override>,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) -> Decision {
    for mutations in in_order(own, most_specific_wins, said) {
        for mutation in &mutations.request {
            match mutation {
                Mutation::Change(change) => change_request(change, stream, request),
                Mutation::RemoveOnMatch(matcher) => remove_matching(matcher, request.headers_mut()),
            }
        }
        if !mutations.query.is_empty() {
            change_query(&mutations.query, request);
        }
        if mutations.keeps_request_head {
            stream.keep_head(request);
        }
    }
    stream.capture_request(request);
    Decision::Continue
}

pub(super) fn on_response(
    own: &Arc<Mutations>,
    most_specific_wins: bool,
    said: Option<&Override>,
    stream: &ActiveStream,
    headers: &mut HeaderMap,
) {
    for mutations in in_order(own, most_specific_wins, said) {
        for mutation in &mutations.response {
            match mutation {
                Mutation::Change(change) => change.apply_to_response(headers, stream.values()),
                Mutation::RemoveOnMatch(matcher) => remove_matching(matcher, headers),
            }
        }
    }
}

/// The filter's own mutations, then those of routes: the last one that speaks wins.
fn in_order<'m>(
    own: &'m Arc<Mutations>,
    most_specific_wins: bool,
    said: Option<&'m Override>,
) -> impl Iterator<Item = &'m Mutations> {
    let of_routes = match said {
        Some(Override::HeaderMutation(of_routes)) => of_routes.as_slice(),
        _ => &[],
    };
    let (forward, backward) = match most_specific_wins {
        true => (of_routes, &[][..]),
        false => (&[][..], of_routes),
    };
    [own].into_iter().chain(forward).chain(backward.iter().rev()).map(|m| &**m)
}

/// Makes one change of a request's headers.
pub(super) fn change_request(
    change: &HeaderMutations,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) {
    let mut headers = std::mem::take(request.headers_mut());
    let host = headers.get(http::header::HOST).cloned();
    let line = RequestLine {
        method: request.method().as_str(),
        path: request.uri().path_and_query().map_or("", PathAndQuery::as_str),
        authority: host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or_default(),
        scheme: stream.connection.scheme,
    };
    change.apply_to_request(&mut headers, line, &stream.info);
    *request.headers_mut() = headers;
    stream.asks_router |= adds_router_controls(change);
}

fn remove_matching(matcher: &StringMatcher, headers: &mut HeaderMap) {
    let names: Vec<_> = headers.keys().filter(|name| matcher.matches(name.as_str())).cloned().collect();
    for name in names.into_iter().filter(|name| name != http::header::HOST) {
        headers.remove(name);
    }
}

pub(super) fn change_query<B>(mutations: &[QueryMutation], request: &mut Request<B>) {
    let Some(old) = request.uri().path_and_query() else { return };
    let mut parameters: Vec<(&str, &str)> = old
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .collect();
    for mutation in mutations {
        match mutation {
            QueryMutation::Remove(name) => parameters.retain(|(n, _)| **n != **name),
            QueryMutation::Set { name, value, action } => {
                let is_there = parameters.iter().any(|(n, _)| **n == **name);
                match (action, is_there) {
                    (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => continue,
                    (AppendAction::OverwriteOrAdd | AppendAction::OverwriteIfExists, _) => {
                        parameters.retain(|(n, _)| **n != **name);
                    }
                    _ => {}
                }
                parameters.push((name, value));
            }
        }
    }
    // By name, as Envoy writes them, but encoded as they came.
    parameters.sort_by_key(|(name, _)| *name);
    let mut text = old.path().to_owned();
    for (i, (name, value)) in parameters.iter().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    // Names and values were checked when they were compiled.
    if let Ok(uri) = Uri::try_from(text) {
        *request.uri_mut() = uri;
    }
}
