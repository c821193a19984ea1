//! Heads of HTTP/2 messages: what may not be in them, and what is to be.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to an HTTP/1 connection (RFC 9113 section 8.2.2).
const OF_CONNECTION: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes away what belongs to an HTTP/1 connection, whoever has put it there.
pub(super) fn strip(headers: &mut HeaderMap, may_take_trailers: bool) {
    for name in &OF_CONNECTION {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| !may_take_trailers || te != "trailers") {
        headers.remove(TE);
    }
    if let Some(connection) = headers.remove(CONNECTION) {
        for name in connection.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
}

/// The length that a head tells, if it tells one.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next()?;
    // One that is told twice must be the same (RFC 9110 section 8.6).
    if lengths.any(|other| other != first) {
        return None;
    }
    first.to_str().ok()?.parse().ok()
}

/// Tells the length of a body, if it is known and not told yet.
pub(super) fn tell_length(headers: &mut HeaderMap, exact: Option<u64>) {
    if let Some(length) = exact {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_belongs_to_a_connection_goes() {
        let given = headers(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("x-kept", "1"),
        ]);
        let (mut request, mut response) = (given.clone(), given);
        strip(&mut request, true);
        strip(&mut response, false);
        assert_eq!(request, headers(&[("te", "trailers"), ("x-kept", "1")]));
        assert_eq!(response, headers(&[("x-kept", "1")]));
        let mut gzip = headers(&[("te", "gzip")]);
        strip(&mut gzip, true);
        assert!(gzip.is_empty());
    }

    #[test]
    fn lengths_are_read_and_told() {
        assert_eq!(content_length(&headers(&[("content-length", "12")])), Some(12));
        assert_eq!(content_length(&headers(&[("content-length", "1"), ("content-length", "1")])), Some(1));
        assert_eq!(content_length(&headers(&[("content-length", "1"), ("content-length", "2")])), None);
        assert_eq!(content_length(&headers(&[("content-length", "x")])), None);
        let mut told = headers(&[("content-length", "12")]);
        tell_length(&mut told, Some(3));
        assert_eq!(content_length(&told), Some(12));
        let mut untold = HeaderMap::new();
        tell_length(&mut untold, None);
        assert!(untold.is_empty());
        tell_length(&mut untold, Some(3));
        assert_eq!(content_length(&untold), Some(3));
    }
}
