//! What gRPC says in headers: `grpc-timeout` of a request, `grpc-message` of a response.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_proxy::fuzzing::{grpc_message, grpc_timeout};

/// A timeout is at most what eight digits can say; a message can be decoded to what it was.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), value)]);
        let most = Duration::from_secs(99_999_999 * 3_600);
        assert!(grpc_timeout(&headers).is_none_or(|timeout| timeout <= most));
    }
    let Some(message) = grpc_message(bytes) else { return };
    assert_eq!(decode(message.as_bytes()), bytes);
}

/// Percent-decoding of what is well-formed.
fn decode(mut encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [byte, rest @ ..] = encoded {
        encoded = rest;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, rest) = rest.split_at(2);
        out.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
        encoded = rest;
    }
    out
}
