//! Fields that came on several lines and become one (RFC 9110 section 5.3): those that Envoy joins, which it calls inline headers. What looks at one of
//! them sees all that the peer said, and both proxies tell the next hop the same. All other fields keep their lines.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// In order, for the search.
const OF_REQUESTS: [&str; 47] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "cdn-loop",
    "content-encoding",
    "content-type",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-external-address",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

const OF_RESPONSES: [&str; 29] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "proxy-status",
    "server",
    "vary",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-degraded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-ratelimited",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-healthchecked-cluster",
    "x-request-id",
];

pub(crate) fn join_in_request(headers: &mut HeaderMap) {
    join(headers, &OF_REQUESTS);
}

pub(crate) fn join_in_response(headers: &mut HeaderMap) {
    join(headers, &OF_RESPONSES);
}

fn join(headers: &mut HeaderMap, joined: &[&str]) {
    // Nearly always there is nothing to do, and this is all that it costs.
    if headers.len() == headers.keys_len() {
        return;
    }
    let is_joined = |name: &&HeaderName| joined.binary_search(&name.as_str()).is_ok();
    let names: Vec<HeaderName> = headers.keys().filter(is_joined).cloned().collect();
    for name in names {
        join_lines(headers, &name, b",");
    }
}

/// Makes one line of all lines of a field.
pub(crate) fn join_lines(headers: &mut HeaderMap, name: &HeaderName, separator: &[u8]) {
    let mut lines = headers.get_all(name).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut value = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        value.extend_from_slice(separator);
        value.extend_from_slice(line.as_bytes());
    }
    // Joined valid values are valid.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(name, value);
    }
}

/// Puts a value behind the one that is there.
pub(crate) fn append_value(headers: &mut HeaderMap, name: &HeaderName, separator: &[u8], value: HeaderValue) {
    headers.append(name, value);
    join_lines(headers, name, separator);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    #[test]
    fn only_what_is_listed_is_joined() {
        assert!(OF_REQUESTS.is_sorted() && OF_RESPONSES.is_sorted());
        let lines =
            [("accept", "a"), ("x-own", "1"), ("accept", "b"), ("vary", "v"), ("x-own", "2"), ("vary", "w")];
        let mut request = headers(&lines);
        join_in_request(&mut request);
        assert_eq!(
            request,
            headers(&[("accept", "a,b"), ("x-own", "1"), ("x-own", "2"), ("vary", "v"), ("vary", "w")])
        );
        let mut response = headers(&lines);
        join_in_response(&mut response);
        assert_eq!(response.get_all("vary").iter().collect::<Vec<_>>(), ["v,w"]);
        assert_eq!(response.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn appended_to_what_is_there() {
        let mut via = headers(&[]);
        append_value(&mut via, &http::header::VIA, b", ", HeaderValue::from_static("a"));
        append_value(&mut via, &http::header::VIA, b", ", HeaderValue::from_static("b"));
        assert_eq!(via, headers(&[("via", "a, b")]));
    }
}
