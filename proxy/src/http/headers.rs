//! Header rules of the connection manager: hop-by-hop headers, forwarding headers, request id.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use smallvec::SmallVec;

use super::origin::INTERNAL;
use super::repeated;
use crate::route::HeaderMutations;
use crate::stream_info::new_uuid;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub(crate) const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// What a gRPC call came to.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const LOCAL_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-local-overloaded");
pub(crate) const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
pub(crate) const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what belongs to one connection only (RFC 9110 section 7.6.1), `te: trailers` excepted. Gives what the connection's peer says
/// of how long it stays.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named = match headers.entry(header::CONNECTION) {
        header::Entry::Vacant(_) => SmallVec::new(),
        header::Entry::Occupied(connection) => named_by(connection.remove_entry_mult().1),
    };
    let keep_alive = headers.remove(KEEP_ALIVE);
    for name in named {
        headers.remove(name);
    }
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    if let Some(te) = headers.get(header::TE)
        && te != "trailers"
    {
        let trailers =
            te.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
    keep_alive
}

/// Removes what only callers inside may say, and more at the `edge`; and what is for the router, unless that listens. Tells whether
/// something for it is left.
pub(crate) fn remove_internal(
    headers: &mut HeaderMap,
    internal: bool,
    edge: bool,
    router_listens: bool,
) -> bool {
    if !headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        return false;
    }
    headers.remove(INTERNAL);
    if !router_listens {
        for name in FOR_THE_ROUTER {
            headers.remove(*name);
        }
    }
    if !internal {
        for name in FROM_INSIDE_ONLY {
            headers.remove(*name);
        }
    }
    if edge {
        for name in NOT_AT_THE_EDGE {
            headers.remove(*name);
        }
    }
    router_listens && headers.keys().any(is_for_router)
}

/// Whether a request that is changed like this may ask something of the router.
pub(crate) fn adds_router_controls(change: &HeaderMutations) -> bool {
    change.add.iter().any(|addition| is_for_router(&addition.name))
}

fn is_for_router(name: &HeaderName) -> bool {
    FOR_THE_ROUTER.contains(&name.as_str())
}

/// The router's own controls (`router/asked.rs` and `router/timeout.rs` read them).
const FOR_THE_ROUTER: &[&str] = &[
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-stream-duration-ms",
];

/// What only a caller inside may say.
const FROM_INSIDE_ONLY: &[&str] =
    &["x-envoy-expected-rq-timeout-ms", "x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-original-url"];

/// What only another proxy may say.
const NOT_AT_THE_EDGE: &[&str] = &[
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
    "x-envoy-original-host",
];

/// Whether an HTTP/1 request asks for another protocol; HTTP/2 by this way is ignored, as in Envoy.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let Some(upgrade) = headers.get(header::UPGRADE) else { return false };
    let connection = headers.get(header::CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or("");
    upgrade.as_bytes() != b"h2c" && connection.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"))
}

/// The headers that `connection` fields name. What tells the upstream whom it deals with cannot be taken away like this.
fn named_by(connection: impl Iterator<Item = HeaderValue>) -> SmallVec<[HeaderName; 2]> {
    // The usual values name no other header: nothing to look up.
    const PLAIN: [&[u8]; 5] = [b"keep-alive", b"close", b"Keep-Alive", b"upgrade", b"Upgrade"];
    const KEPT: [HeaderName; 4] = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID];
    let mut named = SmallVec::new();
    for value in connection.filter(|v| !PLAIN.contains(&v.as_bytes())) {
        let names = value.to_str().unwrap_or_default().split(',');
        named.extend(names.filter_map(|n| n.trim().parse().ok()).filter(|name| !KEPT.contains(name)));
    }
    named
}

/// One `cookie` field, as HTTP/1 wants it; HTTP/2 clients split it for compression (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    repeated::join_lines(headers, &header::COOKIE, b"; ");
}

/// A random (version 4) UUID.
pub(crate) fn new_request_id() -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&new_uuid()))
        .unwrap_or_else(|_| HeaderValue::from_static("00000000-0000-4000-8000-000000000000"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hop_by_hop() {
        let mut headers: HeaderMap = [
            ("connection", "x-a, keep-alive"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
        ]
        .iter()
        .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
        .collect();
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["x-b"], "2");
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn every_connection_field_counts_but_not_against_forwarding_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close"),
            ("connection", "x-a, x-forwarded-for"),
            ("x-a", "1"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
    }

    #[test]
    fn cookies_are_joined() {
        let mut headers = HeaderMap::new();
        for cookie in ["a=1", "b=2", "c=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
