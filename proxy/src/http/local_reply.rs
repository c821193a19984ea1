//! Responses that the proxy makes itself, in HTTP or gRPC form, worded as Envoy words them.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::error::{Failure, StreamError};
use super::headers::OVERLOADED;
use crate::stream_info::grpc_status_of_http;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A reply with a plain text body; an empty body has no content type.
pub(crate) fn reply(status: StatusCode, body: Bytes, grpc: bool) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status_of_http(status.as_u16())));
        if let Some(message) = grpc_message(&body) {
            headers.insert(GRPC_MESSAGE, message);
        }
        return response;
    }
    if !body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    *response.status_mut() = status;
    *response.body_mut() = body;
    response
}

/// The reply for a failed attempt.
pub(crate) fn for_error(error: &StreamError, grpc: bool) -> Response<Bytes> {
    let body = match error.kind {
        Failure::NoHealthyHost => Bytes::from_static(b"no healthy upstream"),
        Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle => {
            Bytes::from_static(b"upstream request timeout")
        }
        Failure::RequestTimeout => Bytes::from_static(b"request timeout"),
        Failure::StreamIdle => Bytes::from_static(b"stream timeout"),
        Failure::MaxDuration => Bytes::from_static(b"downstream duration timeout"),
        kind => match kind.reset_reason() {
            Some(reason) => {
                let retried = if error.retried { "retried and the latest " } else { "" };
                format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}")
                    .into()
            }
            None => Bytes::new(),
        },
    };
    let mut response = reply(error.kind.status(), body, grpc);
    if error.kind == Failure::Overflow {
        response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    response
}

/// The same reply with another gRPC status, when it is in gRPC form.
pub(crate) fn set_grpc_status(reply: &mut Response<Bytes>, status: u16) {
    if reply.headers().contains_key(GRPC_STATUS) {
        reply.headers_mut().insert(GRPC_STATUS, HeaderValue::from(status));
    }
}

/// `grpc-message` percent-encodes everything that is not printable ASCII.
fn grpc_message(body: &[u8]) -> Option<HeaderValue> {
    if body.is_empty() {
        return None;
    }
    let mut encoded = String::with_capacity(body.len());
    for &b in body {
        if (0x20..=0x7e).contains(&b) && b != b'%' {
            encoded.push(b as char);
        } else {
            encoded.push_str(&format!("%{b:02X}"));
        }
    }
    HeaderValue::try_from(encoded).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn grpc_form() {
        let r = for_error(&Failure::NoHealthyHost.into(), true);
        assert_eq!(r.status(), 200);
        assert_eq!(r.headers()[GRPC_STATUS], "14");
        assert_eq!(r.headers()[GRPC_MESSAGE], "no healthy upstream");
        assert_eq!(grpc_message(b"a%\n").unwrap(), "a%25%0A");
    }

    #[test]
    fn http_form() {
        let r = for_error(&Failure::Overflow.into(), false);
        assert_eq!(r.status(), 503);
        assert_eq!(r.headers()["x-envoy-overloaded"], "true");
        assert_eq!(
            r.body().as_ref(),
            b"upstream connect error or disconnect/reset before headers. reset reason: overflow"
        );
        assert!(
            for_error(&Failure::NoCluster(StatusCode::SERVICE_UNAVAILABLE).into(), false).body().is_empty()
        );
    }
}
