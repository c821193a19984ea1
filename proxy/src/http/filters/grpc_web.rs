//! `envoy.filters.http.grpc_web`: browsers, which cannot read trailers, as gRPC clients (PROTOCOL-WEB of the gRPC project).
//!
//! The request goes on as gRPC, decoded if it is text. Trailers of the response become the last message of its body. A response that
//! is no gRPC becomes a head with a status and, as its message, the text of the body.

use std::sync::Arc;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::{DecodeError, Engine as _};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use super::body::{FilteredRequest, RequestStage, ResponseStage};
use super::grpc_stats::{PREFIX_BYTES, service_and_method};
use super::{Content, Decision, Kept, ResponseHead};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::codec;
use crate::http::error::Failure;
use crate::http::headers::GRPC_STATUS;
use crate::http::local_reply;
use crate::http::router::UpstreamBody;
use crate::route::is_grpc;
use crate::stats::GrpcStats;
use crate::stream_info::grpc_status_of_http;

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// So much of a response that is no gRPC becomes its message.
const MESSAGE_BYTES: usize = 16_384;

/// The flag of the message that is made of trailers.
const TRAILERS: u8 = 0x80;

/// What the stream keeps for the response.
#[derive(Debug)]
pub(super) struct WebCall {
    /// The client wants base64.
    text: bool,
    stats: Option<Arc<GrpcStats<true>>>,
}

pub(super) fn on_request(
    at: usize,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) -> Decision {
    let text = match request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
        Some(b"application/grpc-web" | b"application/grpc-web+proto") => false,
        Some(value) if is_text(value) => true,
        _ => return Decision::Continue,
    };
    let method = service_and_method(request.uri().path());
    let stats = method.and_then(|(service, method)| {
        let cluster = stream.route_cluster()?;
        Some(cluster.stats.grpc_web.named(cluster.stats.label(), service, method))
    });
    let headers = request.headers_mut();
    let text_response = headers.get(ACCEPT).is_some_and(|accept| is_text(accept.as_bytes()));
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.entry(GRPC_ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    if !request.body().is_end_stream() {
        let stage = match text {
            true => RequestStage::Decode(Decode { rest: BytesMut::new(), progress: stream.progress.clone() }),
            false => RequestStage::WithoutLength,
        };
        FilteredRequest::wrap(request.body_mut(), stage);
    }
    let call = WebCall { text: text_response, stats };
    stream.filter_state.get_or_insert_default().keep(at, Kept::WebCall(call));
    stream.capture_request(request);
    Decision::Continue
}

fn is_text(value: &[u8]) -> bool {
    matches!(value, b"application/grpc-web-text" | b"application/grpc-web-text+proto")
}

pub(super) fn on_response(kept: Option<&Kept>, head: &mut ResponseHead<'_>) -> Option<ResponseStage> {
    let Some(Kept::WebCall(call)) = kept else { return None };
    charge(call.stats.as_deref(), head.headers);
    let is_foreign = is_foreign(head.status, head.headers);
    head.headers.remove(CONTENT_LENGTH);
    let content_type =
        if call.text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    match &head.content {
        Content::Nothing => None,
        Content::Whole(body) if is_foreign => {
            let status = grpc_status_of_http(head.status.as_u16());
            head.headers.insert(GRPC_STATUS, HeaderValue::from(status));
            let message = local_reply::grpc_message(body).unwrap_or(HeaderValue::from_static(""));
            head.headers.insert(GRPC_MESSAGE, message);
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            Some(ResponseStage::Nothing)
        }
        Content::Whole(_) | Content::Streamed => {
            Some(ResponseStage::Web(Encode::new(call.text, call.stats.clone())))
        }
    }
}

/// Whether the response of a call has to be here to its end before its head can go.
pub(super) fn wants_whole(response: &Response<UpstreamBody>) -> bool {
    !response.body().is_end_stream() && is_foreign(response.status(), response.headers())
}

/// Neither gRPC nor gRPC-Web in protobuf.
fn is_foreign(status: StatusCode, headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let content_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let is_web = [b"application/grpc-web".as_slice(), b"application/grpc-web+proto"]
        .iter()
        .any(|known| content_type.eq_ignore_ascii_case(known));
    status != StatusCode::OK || !(is_web || is_grpc(headers))
}

/// The beginning of a response's body; the rest is read and dropped.
///
/// # Errors
/// What ended the body before its end.
pub(super) async fn message_of(body: &mut UpstreamBody) -> Result<Bytes, Failure> {
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| codec::failure(&error))?;
        if let Some(data) = frame.data_ref() {
            let room = MESSAGE_BYTES - message.len();
            message.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok(message.freeze())
}

fn charge(stats: Option<&GrpcStats<true>>, headers: &HeaderMap) {
    if let (Some(stats), Some(status)) = (stats, headers.get(GRPC_STATUS)) {
        stats.charge(status.as_bytes());
    }
}

/// Decodes a request's base64.
#[derive(Debug, Default)]
pub(super) struct Decode {
    /// Up to three characters of the next four.
    rest: BytesMut,
    progress: Option<std::rc::Rc<crate::http::body::RequestProgress>>,
}

impl Decode {
    /// The bytes that are whole by now; `ends`: no more comes.
    pub(super) fn push(&mut self, data: &[u8], ends: bool) -> Option<Bytes> {
        self.rest.extend_from_slice(data);
        let whole = self.rest.len() / 4 * 4;
        if ends && whole != self.rest.len() {
            return self.refuse(Failure::GrpcWebLength);
        }
        let whole = self.rest.split_to(whole);
        match decode_parts(&whole) {
            Ok(decoded) => Some(decoded.into()),
            Err(_) => self.refuse(Failure::GrpcWebData),
        }
    }

    fn refuse(&self, failure: Failure) -> Option<Bytes> {
        if let Some(progress) = &self.progress {
            progress.failed.set(Some(failure));
        }
        None
    }
}

/// A client may flush its text in parts, each with its own padding (PROTOCOL-WEB), which are cut anew on the way.
fn decode_parts(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        let end =
            rest.iter().position(|byte| *byte == b'=').map_or(rest.len(), |padding| (padding / 4 + 1) * 4);
        let (part, after) = rest.split_at(end);
        BASE64.decode_vec(part, &mut decoded)?;
        rest = after;
    }
    Ok(decoded)
}

/// Puts a response's trailers into its body, and makes base64 of it for clients that want text.
#[derive(Debug)]
pub(crate) struct Encode {
    text: bool,
    stats: Option<Arc<GrpcStats<true>>>,
    /// The beginning of a message that is not whole yet: text is made of whole messages.
    buffer: BytesMut,
    ended: bool,
}

impl Encode {
    pub(super) fn new(text: bool, stats: Option<Arc<GrpcStats<true>>>) -> Self {
        Self { text, stats, buffer: BytesMut::new(), ended: false }
    }

    /// What goes to the client for this; nothing yet, if it is only a part of a message.
    pub(super) fn push(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let data = match frame.into_data() {
            Ok(data) if !self.text => data,
            Ok(data) => self.whole_messages(&data)?,
            Err(frame) => {
                self.ended = true;
                let trailers = frame.into_trailers().ok()?;
                charge(self.stats.as_deref(), &trailers);
                let message = last_message(&trailers);
                if self.text { BASE64.encode(&message).into() } else { message }
            }
        };
        Some(Frame::data(data))
    }

    fn whole_messages(&mut self, data: &Bytes) -> Option<Bytes> {
        self.buffer.extend_from_slice(data);
        let mut text = String::new();
        while let Some(length) = message_length(&self.buffer)
            && self.buffer.len() >= length
        {
            BASE64.encode_string(self.buffer.split_to(length), &mut text);
        }
        Some(text.into()).filter(|text: &Bytes| !text.is_empty())
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// The length of the message that begins here, with its prefix.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let (prefix, _) = bytes.split_at_checked(PREFIX_BYTES.into())?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    Some(usize::from(PREFIX_BYTES) + length as usize)
}

/// The message that is made of trailers.
fn last_message(trailers: &HeaderMap) -> Bytes {
    let mut text = Vec::new();
    for (name, value) in trailers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let mut message = BytesMut::with_capacity(usize::from(PREFIX_BYTES) + text.len());
    message.put_u8(TRAILERS);
    message.put_u32(text.len() as u32);
    message.put_slice(&text);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: bool) -> Encode {
        Encode::new(text, None)
    }

    #[test]
    fn base64_is_decoded_however_it_is_cut() {
        let text = BASE64.encode(b"\0\0\0\0\x05hello");
        for size in 1..=text.len() {
            let mut decode = Decode::default();
            let parts: Vec<_> = text.as_bytes().chunks(size).collect();
            let decoded: Vec<u8> = parts
                .iter()
                .enumerate()
                .flat_map(|(i, part)| decode.push(part, i + 1 == parts.len()).unwrap_or_default())
                .collect();
            assert_eq!(decoded, b"\0\0\0\0\x05hello", "in parts of {size}");
        }
        let mut decode = Decode::default();
        assert_eq!(decode.push(b"AAA", true), None, "not four");
        let mut decode = Decode::default();
        assert_eq!(decode.push(b"A=AA", false), None, "no base64");
        let mut decode = Decode::default();
        assert_eq!(
            decode.push(b"AA==AQI=AwQF", true).as_deref(),
            Some([0, 1, 2, 3, 4, 5].as_slice()),
            "in parts"
        );
    }

    #[test]
    fn text_is_made_of_whole_messages() {
        let mut encode = encode(true);
        assert!(encode.push(Frame::data(Bytes::from_static(b"\0\0\0\0\x02h"))).is_none());
        let frame =
            encode.push(Frame::data(Bytes::from_static(b"i\0\0\0\0\0\0"))).and_then(|f| f.into_data().ok());
        let expected = [BASE64.encode(b"\0\0\0\0\x02hi"), BASE64.encode(b"\0\0\0\0\0")].concat();
        assert_eq!(frame, Some(expected.into()));
    }

    #[test]
    fn trailers_are_the_last_message() {
        let trailers: HeaderMap = [(GRPC_STATUS, HeaderValue::from_static("5"))].into_iter().collect();
        let frame = encode(false).push(Frame::trailers(trailers)).and_then(|f| f.into_data().ok());
        assert_eq!(frame.as_deref(), Some(b"\x80\0\0\0\x0fgrpc-status:5\r\n".as_slice()));
    }
}
