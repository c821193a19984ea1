//! Messages on their way out: heads, and how their bodies are framed.

use std::cell::RefCell;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request, response};
use http_body::{Body, Frame};

use super::case::{NameCase, Names};
use super::channel::Channel;
use super::head::length_of;
use crate::http::codec::date;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoder {
    /// There is no body.
    None,
    /// By its length: so many bytes are left.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What of a request decides how its response is written.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether the client wants the connection to stay, and it may.
    pub(super) keeps_alive: bool,
}

/// How a response was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) encoder: Encoder,
    /// It is the last one of its connection.
    pub(super) is_last: bool,
    /// Bytes of its header fields.
    pub(super) fields: usize,
}

/// Writes the head of a response with a body of this length, if that is known.
pub(super) fn response(
    out: &mut BytesMut,
    parts: &response::Parts,
    asked: &Asked,
    proper_case: bool,
    exact: Option<u64>,
) -> Written {
    let status = parts.status;
    let names = Names { kept: parts.extensions.get::<NameCase>(), proper: proper_case };
    out.reserve(64 + 48 * parts.headers.len());
    status_line(out, status);
    let start = out.len();
    let switches =
        status == StatusCode::SWITCHING_PROTOCOLS || (asked.method == Method::CONNECT && status.is_success());
    let has_no_length = switches || status.is_informational() || status == StatusCode::NO_CONTENT;
    let length = field_length(&parts.headers).filter(|_| !has_no_length);
    let has_no_body = has_no_length || status == StatusCode::NOT_MODIFIED || asked.method == Method::HEAD;
    fields(out, &parts.headers, names, |name| {
        *name != TRANSFER_ENCODING && (*name != CONTENT_LENGTH || length.is_some())
    });
    let encoder = match (length, exact) {
        _ if has_no_body => Encoder::None,
        (Some(length), _) => Encoder::Length(length),
        (None, Some(length)) => {
            length_field(out, names, length);
            Encoder::Length(length)
        }
        (None, None) if asked.version == Version::HTTP_11 => {
            chunked_field(out, names);
            Encoder::Chunked
        }
        (None, None) => Encoder::UntilClose,
    };
    let connection = parts.headers.get(CONNECTION).map(HeaderValue::as_bytes);
    let mut is_last = !asked.keeps_alive || encoder == Encoder::UntilClose;
    match connection {
        Some(option) => is_last |= option.eq_ignore_ascii_case(b"close"),
        None if switches => {}
        None if is_last => field(out, names, &CONNECTION, b"close"),
        None if asked.version < Version::HTTP_11 => field(out, names, &CONNECTION, b"keep-alive"),
        None => {}
    }
    if !parts.headers.contains_key(DATE) {
        names.write(out, &DATE, 0);
        out.extend_from_slice(b": ");
        out.extend_from_slice(date::now().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let fields = out.len() - start;
    out.extend_from_slice(b"\r\n");
    Written { encoder, is_last: is_last && !switches, fields }
}

/// Writes the head of an informational response (RFC 9110 section 15.2).
pub(super) fn informational(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    status_line(out, status);
    fields(out, headers, Names { kept: None, proper: false }, |_| true);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a request with a body of this length, if that is known; `is_empty`: there is no body. Gives the bytes of its header
/// fields too.
pub(super) fn request(
    out: &mut BytesMut,
    parts: &request::Parts,
    proper_case: bool,
    is_empty: bool,
    exact: Option<u64>,
) -> (Encoder, usize) {
    let names = Names { kept: parts.extensions.get::<NameCase>(), proper: proper_case };
    out.reserve(64 + parts.uri.path().len() + 48 * parts.headers.len());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    match (parts.uri.authority(), parts.uri.path_and_query()) {
        (None, Some(path)) => out.extend_from_slice(path.as_str().as_bytes()),
        // Writing to memory does not fail.
        _ => _ = write!(out.writer(), "{}", parts.uri),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let start = out.len();
    let length = field_length(&parts.headers);
    fields(out, &parts.headers, names, |name| {
        *name != TRANSFER_ENCODING && (*name != CONTENT_LENGTH || length.is_some())
    });
    let encoder = match (length, exact) {
        _ if is_empty => Encoder::None,
        (Some(length), _) => Encoder::Length(length),
        (None, Some(length)) => {
            length_field(out, names, length);
            Encoder::Length(length)
        }
        (None, None) => {
            chunked_field(out, names);
            Encoder::Chunked
        }
    };
    let fields = out.len() - start;
    out.extend_from_slice(b"\r\n");
    (encoder, fields)
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn fields(out: &mut BytesMut, headers: &HeaderMap, names: Names<'_>, wanted: impl Fn(&HeaderName) -> bool) {
    let are_special = names.are_special();
    let mut last: Option<(&HeaderName, usize)> = None;
    for (name, value) in headers.iter().filter(|(name, _)| wanted(name)) {
        if are_special {
            // The fields of one name follow each other.
            let nth = last.filter(|(last, _)| *last == name).map_or(0, |(_, nth)| nth + 1);
            last = Some((name, nth));
            names.write(out, name, nth);
        } else {
            out.extend_from_slice(name.as_str().as_bytes());
        }
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn field(out: &mut BytesMut, names: Names<'_>, name: &HeaderName, value: &[u8]) {
    names.write(out, name, 0);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_field(out: &mut BytesMut, names: Names<'_>, length: u64) {
    names.write(out, &CONTENT_LENGTH, 0);
    // Writing to memory does not fail.
    let _ = write!(out.writer(), ": {length}\r\n");
}

fn chunked_field(out: &mut BytesMut, names: Names<'_>) {
    field(out, names, &TRANSFER_ENCODING, b"chunked");
}

fn field_length(headers: &HeaderMap) -> Option<u64> {
    length_of(headers.get(CONTENT_LENGTH)?)
}

/// A body on its way out.
#[derive(Debug)]
pub(super) struct BodyWriter<B> {
    /// `None`: all of it waits to be written, or has been.
    body: Option<B>,
    encoder: Encoder,
    with_trailers: bool,
}

/// A body cannot be written to its end.
#[derive(Debug)]
pub(super) enum WriteError<E> {
    /// It cannot be read.
    Body(E),
    /// It is shorter than its length.
    Short,
    /// The connection has broken.
    Connection,
}

impl<B: Body<Data = Bytes> + Unpin> BodyWriter<B> {
    pub(super) fn new(body: B, encoder: Encoder, with_trailers: bool) -> Self {
        let is_empty = matches!(encoder, Encoder::None | Encoder::Length(0));
        Self { body: (!is_empty).then_some(body), encoder, with_trailers }
    }

    /// Writes what there is of the body, behind the head. Ready when all of it has been written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        channel: &RefCell<Channel>,
    ) -> Poll<Result<(), WriteError<B::Error>>> {
        loop {
            let mut waits = false;
            while let Some(body) = &mut self.body
                && !channel.borrow().is_full()
            {
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                    waits = true;
                    break;
                };
                let frame = frame.transpose().map_err(WriteError::Body)?;
                let is_last = body.is_end_stream();
                let ended = self.put(&mut channel.borrow_mut(), frame, is_last)?;
                if ended {
                    self.body = None;
                }
            }
            ready!(channel.borrow_mut().poll_flush(cx)).map_err(|_| WriteError::Connection)?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Frames a part of the body. Whether that was the last one.
    fn put(
        &mut self,
        channel: &mut Channel,
        frame: Option<Frame<Bytes>>,
        is_last: bool,
    ) -> Result<bool, WriteError<B::Error>> {
        let Some(frame) = frame else { return self.end(channel, None).map(|()| true) };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(channel, frame.into_trailers().ok()).map(|()| true),
        };
        let ended = match &mut self.encoder {
            Encoder::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                let ended = *left == 0;
                channel.put(data);
                ended
            }
            Encoder::Chunked if data.is_empty() => false,
            Encoder::Chunked => {
                // Writing to memory does not fail.
                channel.put_head(|out| _ = write!(out.writer(), "{:x}\r\n", data.len()));
                channel.put(data);
                channel.put_slice(b"\r\n");
                false
            }
            Encoder::UntilClose => {
                channel.put(data);
                false
            }
            Encoder::None => true,
        };
        if is_last && !ended {
            self.end(channel, None)?;
        }
        Ok(ended || is_last)
    }

    fn end(&self, channel: &mut Channel, trailers: Option<HeaderMap>) -> Result<(), WriteError<B::Error>> {
        match self.encoder {
            Encoder::Length(left) if left > 0 => return Err(WriteError::Short),
            Encoder::Chunked => {}
            _ => return Ok(()),
        }
        channel.put_head(|out| {
            out.extend_from_slice(b"0\r\n");
            if let Some(trailers) = trailers.filter(|_| self.with_trailers) {
                fields(out, &trailers, Names { kept: None, proper: false }, |_| true);
            }
            out.extend_from_slice(b"\r\n");
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{Request, Response};

    use super::*;

    /// A length that is none would stand beside the coding that is written for it (RFC 9112 section 6.1).
    #[test]
    fn a_body_is_framed_once() {
        for (length, expected) in
            [("3", Encoder::Length(3)), ("+3", Encoder::Chunked), ("", Encoder::Chunked)]
        {
            let mut out = BytesMut::new();
            let request = Request::post("/").header(CONTENT_LENGTH, length).body(()).unwrap();
            let (encoder, _) = super::request(&mut out, &request.into_parts().0, false, false, None);
            assert_eq!(encoder, expected, "{length:?}");
            let response = Response::builder().header(CONTENT_LENGTH, length).body(()).unwrap();
            let asked = Asked { method: Method::GET, version: Version::HTTP_11, keeps_alive: true };
            let written = super::response(&mut out, &response.into_parts().0, &asked, false, None);
            assert_eq!(written.encoder, expected, "{length:?}");
            let text = String::from_utf8_lossy(&out).into_owned();
            let framed = |name: &str| text.matches(name).count();
            let both = (framed("content-length"), framed("transfer-encoding"));
            assert_eq!(both, if length == "3" { (2, 0) } else { (0, 2) }, "{text}");
        }
    }
}
