//! `GrpcHealthCheck`: `grpc.health.v1.Health/Check`.
//!
//! Its two messages have a field each, which are written and read here by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::connection::{HttpConnection, RequestBody, streamed};
use super::decide::Failure;
use super::probe::{Context, Outcome};
use super::{GrpcCheck, Version};

const METHOD: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `HealthCheckResponse.SERVING`.
const SERVING: u64 = 1;
/// A frame's flag and length.
const PREFIX_BYTES: usize = 5;
/// More than any answer has: one with a length and a field.
const MAX_ANSWER_BYTES: usize = 4 << 10;
/// The answer is wrong, whatever it is.
const WRONG: Outcome = Outcome::Failed(Failure::Active { status: 0, retriable: false });

/// The connection of the check before, while it lasts.
#[derive(Debug, Default)]
pub(super) struct GrpcProbe(Option<HttpConnection>);

impl GrpcProbe {
    pub(super) fn close(&mut self) {
        self.0 = None;
    }

    pub(super) async fn check(&mut self, context: &Context, check: &GrpcCheck) -> Outcome {
        let Some(request) = request(context, check) else { return Outcome::NO_ANSWER };
        if self.0.as_ref().is_none_or(HttpConnection::is_closed) {
            self.0 = HttpConnection::open(context, Version::Http2).await;
        }
        let Some(connection) = &mut self.0 else { return Outcome::NO_ANSWER };
        let outcome = match connection.send(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                judge(head.status, &head.headers, body).await
            }
            Err(_) => Outcome::NO_ANSWER,
        };
        if !context.check().reuses_connection {
            self.close();
        }
        outcome
    }
}

/// `None`: the name that the host is asked by cannot be one.
fn request(context: &Context, check: &GrpcCheck) -> Option<Request<RequestBody>> {
    let name = context.name(&check.authority);
    let mut request = Request::new(streamed(asked(&check.service)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = context.uri(name, &METHOD)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    context.complete(headers, &check.metadata, (&Method::POST, &METHOD, name));
    headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(&grpc_timeout(context.check().timeout)).ok()?);
    Some(request)
}

/// `HealthCheckRequest { string service = 1; }` in a frame.
fn asked(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// At most eight digits and a unit: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis if millis < 100_000_000 => format!("{millis}m"),
        millis => format!("{}S", (millis / 1_000).min(99_999_999)),
    }
}

async fn judge(status: StatusCode, headers: &HeaderMap, mut body: Incoming) -> Outcome {
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value == b"application/grpc" || value.starts_with(b"application/grpc+")
    });
    // A status in the head is the end of the call, and there was no message.
    if status != StatusCode::OK || !is_grpc || body.is_end_stream() {
        return WRONG;
    }
    let mut data = BytesMut::new();
    loop {
        match body.frame().await {
            None => return WRONG,
            Some(Err(_)) => return Outcome::NO_ANSWER,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(part) if data.len() + part.len() <= MAX_ANSWER_BYTES => data.extend_from_slice(&part),
                Ok(_) => return WRONG,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let is_ok = trailers.get(GRPC_STATUS).is_some_and(|status| status.as_bytes() == b"0");
                    return if is_ok && serving(&data) { Outcome::WELL } else { WRONG };
                }
            },
        }
    }
}

/// Whether this is one frame, not compressed, of `HealthCheckResponse { ServingStatus status = 1; }` with SERVING.
fn serving(data: &[u8]) -> bool {
    let Some((prefix, message)) = data.split_at_checked(PREFIX_BYTES) else { return false };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || length as usize != message.len() {
        return false;
    }
    status(message) == Some(SERVING)
}

/// The last value of field 1; others are passed over. `None`: no such message.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_a_frame_with_the_service() {
        assert_eq!(&*asked(""), [0; 5]);
        assert_eq!(&*asked("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = asked(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 200, 1]);
    }

    #[test]
    fn only_serving_is_well() {
        for (data, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], true),
            (&[0, 0, 0, 0, 2, 8, 2], false),
            (&[0, 0, 0, 0, 0], false),
            (&[1, 0, 0, 0, 2, 8, 1], false),
            (&[0, 0, 0, 0, 3, 8, 1], false),
            (&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0], false),
            (&[0, 0, 0, 0, 6, 0x12, 2, 1, 1, 8, 1], true),
            (&[0, 0, 0, 0, 1, 8], false),
            (&[], false),
        ] {
            assert_eq!(serving(data), expected, "{data:?}");
        }
        assert_eq!(status(&[8, 0x80, 1]), Some(128));
        assert_eq!(status(&[0x0b]), None);
        assert_eq!(status(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), None);
    }

    #[test]
    fn timeouts_have_eight_digits() {
        assert_eq!(grpc_timeout(Duration::from_millis(300)), "300m");
        assert_eq!(grpc_timeout(Duration::from_secs(99_999)), "99999000m");
        assert_eq!(grpc_timeout(Duration::from_secs(100_000)), "100000S");
    }
}
