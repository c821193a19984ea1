//! The first bytes of a connection that may speak HTTP (`envoy.filters.listener.http_inspector`).

use outrigger_proxy::listener::http_inspector::{HttpVersion, Parsed, parse};

/// What is known is known for good.
pub(crate) fn fuzz(bytes: &[u8]) {
    let first = (0..=bytes.len()).map(|n| parse(&bytes[..n])).find(|parsed| *parsed != Parsed::Incomplete);
    let whole = parse(bytes);
    assert_eq!(first.unwrap_or(Parsed::Incomplete), whole);
    if whole == Parsed::Http(HttpVersion::Http2) {
        assert!(bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    }
}
