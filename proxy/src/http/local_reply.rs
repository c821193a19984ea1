//! Responses that the proxy makes itself, in HTTP or gRPC form, worded as Envoy words them.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::error::{Failure, StreamError};
use super::headers::{GRPC_STATUS, OVERLOADED};
use crate::access_log::LogFilter;
use crate::formatter::{Clock, Format, Values};
use crate::route::HeaderMutations;
use crate::stream_info::{StreamInfo, grpc_status_of_http};

/// Of gRPC's statuses.
const DEADLINE_EXCEEDED: u16 = 4;
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `local_reply_config`.
#[derive(Debug)]
pub struct LocalReplies {
    /// `mappers`: the first one whose filter takes the stream.
    pub mappers: Box<[ReplyMapper]>,
    /// `body_format`.
    pub format: Option<BodyFormat>,
}

/// `ResponseMapper`.
#[derive(Debug)]
pub struct ReplyMapper {
    /// `filter`.
    pub filter: LogFilter,
    /// `status_code`.
    pub status: Option<StatusCode>,
    /// `body`.
    pub body: Option<Bytes>,
    /// `body_format_override`.
    pub format: Option<BodyFormat>,
    /// `headers_to_add`.
    pub headers: HeaderMutations,
}

/// A body that is made of a format.
#[derive(Debug)]
pub struct BodyFormat {
    /// The format.
    pub format: Format,
    /// `content_type`, default `text/plain` or `application/json`.
    pub content_type: HeaderValue,
}

/// A reply in HTTP form, which becomes gRPC's on its way out.
#[derive(Debug)]
pub(crate) struct LocalReply {
    pub(crate) response: Response<Bytes>,
    /// For gRPC; `None`: what stands for the HTTP status.
    pub(crate) grpc_status: Option<u16>,
}

impl LocalReplies {
    /// Makes another reply of this one, if configuration wants one. `info` has the reply's status.
    pub(crate) fn rewrite(&self, info: &mut StreamInfo, parts: &mut Parts, body: &mut Bytes) {
        let original = body.clone();
        let own_type = parts.headers.get(CONTENT_TYPE).cloned();
        info.duration = info.start.elapsed();
        let mapper = self.mappers.iter().find(|mapper| mapper.filter.passes((&*info).into()));
        if let Some(mapper) = mapper {
            if let Some(other) = &mapper.body {
                body.clone_from(other);
            }
            mapper.headers.apply_to_response(&mut parts.headers, (&*info).into());
            if let Some(status) = mapper.status {
                parts.status = status;
                info.response_code = status.as_u16();
            }
        }
        let format = mapper.and_then(|mapper| mapper.format.as_ref()).or(self.format.as_ref());
        let mut content_type = HeaderValue::from_static("text/plain");
        if let Some(format) = format {
            let mut text = Vec::new();
            let values =
                Values { response: Some(&parts.headers), local_reply_body: Some(body), ..(&*info).into() };
            format.format.append(values, &mut Clock::default(), &mut text);
            *body = text.into();
            content_type.clone_from(&format.content_type);
        }
        let headers = &mut parts.headers;
        if body.is_empty() {
            headers.remove(CONTENT_LENGTH);
            headers.remove(CONTENT_TYPE);
            return;
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        // A type that a mapper sets, or one of the reply's own body, stays.
        let of_mapper = headers.get(CONTENT_TYPE) != own_type.as_ref();
        if !of_mapper && (*body != original || own_type.is_none()) {
            headers.insert(CONTENT_TYPE, content_type);
        }
    }
}

/// The reply in gRPC's form: its own status and message, and no body.
pub(crate) fn as_grpc(parts: &mut Parts, body: &Bytes, grpc_status: Option<u16>) {
    let status = grpc_status.unwrap_or_else(|| grpc_status_of_http(parts.status.as_u16()));
    parts.status = StatusCode::OK;
    parts.headers.remove(CONTENT_LENGTH);
    let is_json = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.entry(GRPC_STATUS).or_insert(HeaderValue::from(status));
    // The end of a line of JSON is none of a message.
    let body = if is_json { body.strip_suffix(b"\n").unwrap_or(body) } else { body };
    if let Some(message) = grpc_message(body) {
        parts.headers.insert(GRPC_MESSAGE, message);
    }
}

/// A reply with a plain text body; an empty body has no content type.
pub(crate) fn reply(status: StatusCode, body: Bytes) -> LocalReply {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    if !body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    *response.status_mut() = status;
    *response.body_mut() = body;
    LocalReply { response, grpc_status: None }
}

/// The reply for a failed attempt, which stands for this status.
pub(crate) fn for_error(error: &StreamError, status: StatusCode) -> LocalReply {
    let body = match error.kind {
        _ if status == StatusCode::NO_CONTENT => Bytes::new(),
        Failure::NoHealthyHost => Bytes::from_static(b"no healthy upstream"),
        Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle => {
            Bytes::from_static(b"upstream request timeout")
        }
        Failure::HeaderTimeout => Bytes::from_static(b"request header timeout"),
        Failure::RequestTimeout => Bytes::from_static(b"request timeout"),
        Failure::GrpcWebLength | Failure::GrpcWebData => {
            Bytes::from_static(b"Bad gRPC-web request, invalid base64 data.")
        }
        Failure::DownstreamProtocol => Bytes::from_static(b"Bad Request"),
        Failure::StreamIdle => Bytes::from_static(b"stream timeout"),
        Failure::MaxDuration => Bytes::from_static(b"downstream duration timeout"),
        Failure::UpstreamMaxDuration => Bytes::from_static(b"upstream max stream duration reached"),
        kind => match kind.reset_reason() {
            Some(reason) => {
                let retried = if error.retried { "retried and the latest " } else { "" };
                format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}")
                    .into()
            }
            None => Bytes::new(),
        },
    };
    let mut reply = reply(status, body);
    if error.kind == Failure::MaxDuration {
        reply.grpc_status = Some(DEADLINE_EXCEEDED);
    }
    if error.kind == Failure::Overflow {
        reply.response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    reply
}

/// `grpc-message` percent-encodes everything that is not printable ASCII, and `~`, as Envoy does.
pub(crate) fn grpc_message(body: &[u8]) -> Option<HeaderValue> {
    if body.is_empty() {
        return None;
    }
    let mut encoded = String::with_capacity(body.len());
    for &b in body {
        if (0x20..0x7e).contains(&b) && b != b'%' {
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

    fn reply_for(failure: Failure) -> LocalReply {
        for_error(&failure.into(), failure.status())
    }

    #[test]
    fn grpc_form() {
        let (mut parts, body) = reply_for(Failure::NoHealthyHost).response.into_parts();
        as_grpc(&mut parts, &body, None);
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers[GRPC_STATUS], "14");
        assert_eq!(parts.headers[GRPC_MESSAGE], "no healthy upstream");
        assert!(!parts.headers.contains_key(CONTENT_LENGTH));
        assert_eq!(grpc_message(b"a%\n").unwrap(), "a%25%0A");
    }

    #[test]
    fn http_form() {
        let r = reply_for(Failure::Overflow).response;
        assert_eq!(r.status(), 503);
        assert_eq!(r.headers()["x-envoy-overloaded"], "true");
        assert_eq!(
            r.body().as_ref(),
            b"upstream connect error or disconnect/reset before headers. reset reason: overflow"
        );
        assert!(reply_for(Failure::NoCluster(StatusCode::SERVICE_UNAVAILABLE)).response.body().is_empty());
    }
}
