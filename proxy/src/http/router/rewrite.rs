//! What a route changes of a request before it goes upstream: headers, host, path.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::cluster::Host;
use crate::formatter::{RequestLine, Values};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::headers::{
    ATTEMPT_COUNT, ORIGINAL_HOST, ORIGINAL_PATH, X_FORWARDED_HOST, adds_router_controls,
};
use crate::route::{Route, RouteAction};

/// Makes all changes that do not depend on the picked host. The usual route has none, and costs a few comparisons.
pub(super) fn rewrite(
    stream: &mut ActiveStream,
    route: &Route,
    action: &RouteAction,
    request: &mut Request<RequestBody>,
    authority: &mut Authority,
) {
    let weighted = action.clusters.weighted(stream.drawn);
    if route.attempt_count_in_request {
        request.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(1));
    }
    let weighted_steps = weighted.map(|w| &w.request_headers).filter(|steps| !steps.is_empty());
    let weighted_host = weighted.and_then(|w| w.host_rewrite.as_ref());
    if route.request_headers.is_empty()
        && weighted_steps.is_none()
        && weighted_host.is_none()
        && action.host_rewrite.is_none()
        && action.path_rewrite.is_none()
    {
        return;
    }
    if weighted_steps.is_some() || !route.request_headers.is_empty() {
        let mut headers = std::mem::take(request.headers_mut());
        let line = RequestLine {
            method: request.method().as_str(),
            path: request.uri().path_and_query().map_or("", PathAndQuery::as_str),
            authority: authority.as_str(),
            scheme: stream.connection.scheme,
        };
        for steps in weighted_steps.into_iter().chain(route.request_headers.iter().map(|m| &**m)) {
            steps.apply_to_request(&mut headers, line, &stream.info);
            stream.asks_router |= adds_router_controls(steps);
        }
        *request.headers_mut() = headers;
    }
    let keeps_original = !stream.hcm.suppress_envoy_headers;
    let path = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let values = |authority| Values {
        line: Some(RequestLine {
            method: request.method().as_str(),
            path,
            authority,
            scheme: stream.connection.scheme,
        }),
        request: Some(request.headers()),
        ..Values::from(&stream.info)
    };
    let of_route = action
        .host_rewrite
        .as_ref()
        .and_then(|rewrite| rewrite.host(path, request.headers(), values(authority.as_str())));
    // The route's host comes last, and wins.
    let hosts = [weighted_host.cloned(), of_route];
    let new_path = action.path_rewrite.as_ref().and_then(|rewrite| {
        let host = hosts.iter().flatten().next_back().and_then(|host| host.to_str().ok());
        rewrite.apply(&route.matcher.path, path, values(host.unwrap_or(authority.as_str())))
    });
    if let Some(uri) = new_path.and_then(|new| Uri::try_from(uri_text(new)).ok()) {
        let old = HeaderValue::from_str(path);
        *request.uri_mut() = uri;
        if let (true, Ok(old)) = (keeps_original, old) {
            request.headers_mut().insert(ORIGINAL_PATH, old);
        }
    }
    // Only the route's is told: `x-forwarded-host` and `x-envoy-original-host`.
    let told = [(false, false), (action.append_forwarded_host, keeps_original)];
    for (host, (forwarded, original)) in hosts.into_iter().zip(told) {
        if let Some(host) = host
            && let Some(new) = set_host(request.headers_mut(), host, forwarded, original)
        {
            *authority = new;
        }
    }
    // Logs print what goes upstream.
    stream.capture_request(request);
    stream.keep_head_for_route(request);
}

/// Percent-encodes what a substitution has brought in and a path must not have (RFC 3986 section 3.3).
fn uri_text(path: String) -> String {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"<>`#".contains(&b);
    if path.bytes().all(allowed) {
        return path;
    }
    let mut text = String::with_capacity(path.len() + 8);
    for b in path.bytes() {
        match allowed(b) {
            true => text.push(b as char),
            false => text.push_str(&format!("%{b:02X}")),
        }
    }
    text
}

/// `auto_host_rewrite`: the picked host's name, when it has one.
pub(super) fn to_upstream_host(
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
    action: &RouteAction,
    host: &Host,
) -> Option<Authority> {
    let name = HeaderValue::from_str(&host.hostname).ok().filter(|name| !name.is_empty())?;
    let keeps_original = !stream.hcm.suppress_envoy_headers;
    let authority = set_host(request.headers_mut(), name, action.append_forwarded_host, keeps_original);
    stream.capture_request(request);
    authority
}

fn set_host(
    headers: &mut HeaderMap,
    host: HeaderValue,
    append_forwarded: bool,
    keeps_original: bool,
) -> Option<Authority> {
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    if let Some(old) = headers.insert(HOST, host) {
        if append_forwarded {
            append_forwarded_host(headers, &old);
        }
        if keeps_original {
            headers.insert(ORIGINAL_HOST, old);
        }
    }
    Some(authority)
}

/// Each host once, in the order of the rewrites.
fn append_forwarded_host(headers: &mut HeaderMap, old: &HeaderValue) {
    let joined = match headers.get(X_FORWARDED_HOST).map(HeaderValue::as_bytes) {
        Some(before) if before.rsplit(|b| *b == b',').next() == Some(old.as_bytes()) => return,
        Some(before) => [before, b",", old.as_bytes()].concat(),
        None => old.as_bytes().to_vec(),
    };
    // Joined valid values are valid.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(X_FORWARDED_HOST, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutions_are_made_fit_for_a_path() {
        for (path, expected) in
            [("/a/b?c=d%20[]", "/a/b?c=d%20[]"), ("/<a b>", "/%3Ca%20b%3E"), ("/\\\u{e9}", "/\\%C3%A9")]
        {
            assert_eq!(uri_text(path.into()), expected);
        }
    }

    #[test]
    fn forwarded_hosts_are_not_repeated() {
        for (before, expected) in [("a", "a,h"), ("a,h", "a,h"), ("h,a", "h,a,h")] {
            let mut headers = HeaderMap::from_iter([(X_FORWARDED_HOST, HeaderValue::from_static(before))]);
            append_forwarded_host(&mut headers, &HeaderValue::from_static("h"));
            assert_eq!(headers[X_FORWARDED_HOST], expected);
        }
    }
}
