//! Heads of messages: found in what was read, parsed once they are whole, and judged.
//!
//! What peers could read in two ways is how requests are smuggled (RFC 9112 section 11.2): two lengths, or a length beside a coding, are
//! never taken.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::case::NameCase;
use super::decode::Decoder;
use crate::stream_info::details;

/// Fields for which there is room without asking for memory.
const FIELDS: usize = 100;

/// How large a head may be, and what is kept of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// All of it, bytes.
    pub(super) bytes: usize,
    /// Fields.
    pub(super) fields: usize,
    /// Whether the letter case of names is kept.
    pub(super) keeps_case: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) details: &'static str,
    /// Whether it counts as a protocol error of the client (flag `DPE`).
    pub(crate) protocol_error: bool,
}

impl Refusal {
    fn malformed(details: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, details, protocol_error: true }
    }
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// With a [`Refusal`] as an extension, when the head can be read but must not be served.
    pub(super) request: Request<()>,
    pub(super) body: Decoder,
    /// Whether the client wants the connection to stay.
    pub(super) keeps_alive: bool,
    /// `expect: 100-continue`.
    pub(super) expects_continue: bool,
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    pub(super) body: Decoder,
    pub(super) keeps_alive: bool,
}

/// Finds heads in what was read: remembers how far it has looked.
#[derive(Debug, Default)]
pub(super) struct Finder {
    seen: usize,
}

impl Finder {
    /// Takes a whole head from `input`, without the empty lines before it. `None`: it is not here yet.
    ///
    /// # Errors
    /// It is larger than `limit`.
    fn take(&mut self, input: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, TooLarge> {
        if self.seen == 0 {
            let empty = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            input.advance(empty);
        }
        // The line end may be where the last look has stopped.
        let found = end(input, self.seen.saturating_sub(2));
        self.seen = input.len();
        if found.unwrap_or(input.len()) > limit {
            return Err(TooLarge);
        }
        let Some(end) = found else { return Ok(None) };
        self.seen = 0;
        Ok(Some(input.split_to(end).freeze()))
    }
}

struct TooLarge;

/// Where the head ends, behind its empty line. A line may end in LF alone.
fn end(bytes: &[u8], mut from: usize) -> Option<usize> {
    while let Some(at) = memchr::memchr(b'\n', &bytes[from..]) {
        from += at + 1;
        match &bytes[from..] {
            [b'\n', ..] => return Some(from + 1),
            [b'\r', b'\n', ..] => return Some(from + 2),
            _ => {}
        }
    }
    None
}

/// What the fields of a head say of its message.
#[derive(Debug, Default)]
struct Framing {
    length: Option<HeaderValue>,
    /// Another length than the first.
    second_length: bool,
    coding: Option<HeaderValue>,
    second_coding: bool,
    closes: bool,
    keeps_alive: bool,
    expects_continue: bool,
}

impl Framing {
    /// Reads the fields into a map.
    fn read(
        head: &Bytes,
        fields: &[httparse::Header<'_>],
        case: Option<&mut NameCase>,
    ) -> Option<(Self, HeaderMap)> {
        let mut framing = Self::default();
        let mut headers = HeaderMap::with_capacity(fields.len() + 8);
        let mut case = case;
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
            framing.note(&name, &value);
            if let Some(case) = &mut case {
                case.note(&name, head.slice_ref(field.name.as_bytes()));
            }
            headers.append(name, value);
        }
        Some((framing, headers))
    }

    fn note(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == CONTENT_LENGTH {
            self.second_length |= self.length.replace(value.clone()).is_some();
        } else if *name == TRANSFER_ENCODING {
            self.second_coding |= self.coding.replace(value.clone()).is_some();
        } else if *name == CONNECTION {
            for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.closes |= option.eq_ignore_ascii_case(b"close");
                self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == EXPECT {
            self.expects_continue = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.closes && (version == Version::HTTP_11 || self.keeps_alive)
    }
}

/// Digits only (RFC 9110 section 8.6).
pub(super) fn length_of(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Takes the head of a request from `input`; `None`: it is not here yet.
///
/// # Errors
/// What cannot be served at all, not even with an answer of the pipeline.
pub(super) fn request(
    finder: &mut Finder,
    input: &mut BytesMut,
    limits: Limits,
) -> Result<Option<RequestHead>, Refusal> {
    let too_large = |details| Refusal {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ..Refusal::malformed(details)
    };
    let head = finder.take(input, limits.bytes).map_err(|TooLarge| too_large(details::HEADERS_TOO_LARGE))?;
    let Some(head) = head else { return Ok(None) };
    let (mut few, mut many) = ([const { MaybeUninit::uninit() }; FIELDS], Vec::new());
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(&head, room(limits.fields, &mut few, &mut many)) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(unreadable(&head)),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large(details::TOO_MANY_HEADERS)),
        Err(_) => return Err(unreadable(&head)),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(unreadable(&head));
    };
    if length != head.len() {
        return Err(unreadable(&head));
    }
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut case = limits.keeps_case.then(NameCase::default);
    let read = Framing::read(&head, parsed.headers, case.as_mut());
    let (framing, headers) = read.ok_or_else(|| unreadable(&head))?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| unreadable(&head))?;
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| unreadable(&head))?;
    let judged = match target_refusal(target) {
        Some(refusal) => Err(refusal),
        None => request_body(&method, version, &framing),
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    if let Some(case) = case {
        request.extensions_mut().insert(case);
    }
    let body = judged.unwrap_or_else(|refusal| {
        request.extensions_mut().insert(refusal);
        Decoder::None
    });
    Ok(Some(RequestHead {
        keeps_alive: framing.keeps_alive(version),
        expects_continue: framing.expects_continue && version == Version::HTTP_11,
        request,
        body,
    }))
}

/// Room for so many fields: on the stack, when they are few.
fn room<'r, 'b>(
    fields: usize,
    few: &'r mut [MaybeUninit<httparse::Header<'b>>; FIELDS],
    many: &'r mut Vec<MaybeUninit<httparse::Header<'b>>>,
) -> &'r mut [MaybeUninit<httparse::Header<'b>>] {
    if let Some(few) = few.get_mut(..fields) {
        return few;
    }
    many.resize(fields, MaybeUninit::uninit());
    many
}

/// What is wrong with a head that the parser does not take.
fn unreadable(head: &[u8]) -> Refusal {
    let details = if head.contains(&0) { details::INVALID_CHARACTERS } else { details::HTTP1_CODEC_ERROR };
    Refusal::malformed(details)
}

fn target_refusal(target: &str) -> Option<Refusal> {
    if !target.is_ascii() {
        return Some(Refusal::malformed(details::HTTP1_CODEC_ERROR));
    }
    target
        .contains('#')
        .then(|| Refusal { protocol_error: false, ..Refusal::malformed(details::PATH_NORMALIZATION_FAILED) })
}

/// What follows the head of a request (RFC 9112 section 6.3).
fn request_body(method: &Method, version: Version, framing: &Framing) -> Result<Decoder, Refusal> {
    let malformed = Refusal::malformed;
    let unknown_coding =
        Refusal { status: StatusCode::NOT_IMPLEMENTED, ..malformed(details::INVALID_TRANSFER_ENCODING) };
    if framing.second_length {
        return Err(malformed(details::HTTP1_CODEC_ERROR));
    }
    if framing.second_coding {
        return Err(unknown_coding);
    }
    let length = match &framing.length {
        Some(length) => Some(length_of(length).ok_or(malformed(details::HTTP1_CODEC_ERROR))?),
        None => None,
    };
    if *method == Method::CONNECT {
        // What follows is the tunnel's.
        return match (length, &framing.coding) {
            (None | Some(0), None) => Ok(Decoder::None),
            _ => Err(malformed(details::BODY_DISALLOWED)),
        };
    }
    match (length, &framing.coding) {
        (Some(_), Some(_)) => Err(malformed(details::LENGTH_AND_CHUNKED)),
        (None, Some(coding)) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Err(unknown_coding),
        (None, Some(_)) if version != Version::HTTP_11 => Err(malformed(details::HTTP1_CODEC_ERROR)),
        (None, Some(_)) => Ok(Decoder::chunked()),
        (length, None) => Ok(Decoder::length(length.unwrap_or(0))),
    }
}

/// The head of a response cannot be read, or is too large.
#[derive(Debug)]
pub(super) struct BadResponse;

/// Takes the head of the response to a request with this method from `input`; `None`: it is not here yet.
///
/// # Errors
/// See [`BadResponse`].
pub(super) fn response(
    finder: &mut Finder,
    input: &mut BytesMut,
    limits: Limits,
    method: &Method,
) -> Result<Option<ResponseHead>, BadResponse> {
    let head = finder.take(input, limits.bytes).map_err(|TooLarge| BadResponse)?;
    let Some(head) = head else { return Ok(None) };
    let (mut few, mut many) = ([const { MaybeUninit::uninit() }; FIELDS], Vec::new());
    let mut parsed = httparse::Response::new(&mut []);
    let room = room(limits.fields, &mut few, &mut many);
    let parse =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &head, room);
    if !matches!(parse, Ok(httparse::Status::Complete(length)) if length == head.len()) {
        return Err(BadResponse);
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(BadResponse) };
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut case = limits.keeps_case.then(NameCase::default);
    let (framing, headers) = Framing::read(&head, parsed.headers, case.as_mut()).ok_or(BadResponse)?;
    let status = StatusCode::from_u16(code).map_err(|_| BadResponse)?;
    let body = response_body(status, method, version, &framing)?;
    let keeps_alive = framing.keeps_alive(version) && !body.ends_with_connection();
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    if let Some(case) = case {
        response.extensions_mut().insert(case);
    }
    Ok(Some(ResponseHead { response, body, keeps_alive }))
}

/// What follows the head of a response (RFC 9112 section 6.3).
fn response_body(
    status: StatusCode,
    method: &Method,
    version: Version,
    framing: &Framing,
) -> Result<Decoder, BadResponse> {
    let length = match &framing.length {
        _ if framing.second_length || framing.second_coding => return Err(BadResponse),
        Some(length) => Some(length_of(length).ok_or(BadResponse)?),
        None => None,
    };
    if status == StatusCode::NO_CONTENT && length.is_some_and(|length| length > 0) {
        return Err(BadResponse);
    }
    let has_none = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD
        || (*method == Method::CONNECT && status.is_success());
    if has_none {
        return Ok(Decoder::None);
    }
    match (length, &framing.coding) {
        (Some(_), Some(_)) => Err(BadResponse),
        (None, Some(coding)) => {
            // Other codings are not ours to undo.
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            (is_chunked && version == Version::HTTP_11).then(Decoder::chunked).ok_or(BadResponse)
        }
        (Some(length), None) => Ok(Decoder::length(length)),
        (None, None) => Ok(Decoder::UntilClose),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: Limits = Limits { bytes: 60 << 10, fields: 100, keeps_case: false };

    /// What a head means, whole and byte by byte: how its body ends, or why it is refused.
    fn read(text: &str) -> Result<Option<u64>, &'static str> {
        let run = |step: usize| {
            let (mut finder, mut input) = (Finder::default(), BytesMut::new());
            for piece in text.as_bytes().chunks(step) {
                input.extend_from_slice(piece);
                match request(&mut finder, &mut input, LIMITS) {
                    Ok(None) => {}
                    Ok(Some(head)) => {
                        let refusal = head.request.extensions().get::<Refusal>();
                        return refusal.map_or(Ok(head.body.exact()), |refusal| Err(refusal.details));
                    }
                    Err(refusal) => return Err(refusal.details),
                }
            }
            Err("not whole")
        };
        let whole = run(usize::MAX);
        assert_eq!(whole, run(1), "{text:?}");
        whole
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nhost: h\r\n\r\n", Ok(Some(0))),
            ("\r\n\nPOST / HTTP/1.1\ncontent-length: 3\n\n", Ok(Some(3))),
            ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n", Ok(None)),
            (
                "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(details::LENGTH_AND_CHUNKED),
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n",
                Err(details::LENGTH_AND_CHUNKED),
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
                Err(details::HTTP1_CODEC_ERROR),
            ),
            ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", Err(details::HTTP1_CODEC_ERROR)),
            ("POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n", Err(details::HTTP1_CODEC_ERROR)),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
                Err(details::INVALID_TRANSFER_ENCODING),
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
                Err(details::INVALID_TRANSFER_ENCODING),
            ),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Err(details::HTTP1_CODEC_ERROR)),
            ("GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", Err(details::INVALID_CHARACTERS)),
            ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", Err(details::HTTP1_CODEC_ERROR)),
            ("GET / HTTP/1.1\r\nx : a\r\n\r\n", Err(details::HTTP1_CODEC_ERROR)),
            ("GET /a#b HTTP/1.1\r\n\r\n", Err(details::PATH_NORMALIZATION_FAILED)),
            ("GET /\u{e9} HTTP/1.1\r\n\r\n", Err(details::HTTP1_CODEC_ERROR)),
            ("CONNECT a:1 HTTP/1.1\r\ncontent-length: 0\r\n\r\n", Ok(Some(0))),
            ("CONNECT a:1 HTTP/1.1\r\ncontent-length: 1\r\n\r\n", Err(details::BODY_DISALLOWED)),
            ("CONNECT a:1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", Err(details::BODY_DISALLOWED)),
            ("GET / HT", Err("not whole")),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn heads_have_limits() {
        let of = |text: &str, bytes, fields| {
            let limits = Limits { bytes, fields, keeps_case: false };
            let read = request(&mut Finder::default(), &mut BytesMut::from(text), limits);
            read.map(|head| head.is_some()).map_err(|refusal| (refusal.status.as_u16(), refusal.details))
        };
        let text = "GET / HTTP/1.1\r\na: 1\r\nb: 2\r\n\r\n";
        assert_eq!(of(text, text.len(), 2), Ok(true));
        assert_eq!(of(text, text.len() - 1, 2), Err((431, details::HEADERS_TOO_LARGE)));
        assert_eq!(of(&text[..text.len() - 2], text.len() - 3, 2), Err((431, details::HEADERS_TOO_LARGE)));
        assert_eq!(of(text, text.len(), 1), Err((431, details::TOO_MANY_HEADERS)));
    }

    #[test]
    fn bodies_of_responses() {
        let of = |method: Method, text: &str| {
            let mut input = BytesMut::from(text);
            let head = response(&mut Finder::default(), &mut input, LIMITS, &method).ok()??;
            Some((head.body.exact(), head.body.ends_with_connection(), head.keeps_alive))
        };
        for (method, text, expected) in [
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", Some((Some(2), false, true))),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", Some((Some(0), false, true))),
            (Method::GET, "HTTP/1.1 204 No\r\n\r\n", Some((Some(0), false, true))),
            (Method::GET, "HTTP/1.1 200 OK\r\n\r\n", Some((None, true, false))),
            (Method::CONNECT, "HTTP/1.1 200 OK\r\n\r\n", Some((Some(0), false, true))),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x, close\r\n\r\n",
                Some((None, false, false)),
            ),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", None),
            (Method::GET, "HTTP/1.1 204 No\r\ncontent-length: 1\r\n\r\n", None),
            (Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n", Some((Some(2), false, false))),
            (
                Method::GET,
                "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n",
                Some((Some(2), false, true)),
            ),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n", None),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", None),
            (Method::GET, "HTTP/1.1 2 OK\r\n\r\n", None),
        ] {
            assert_eq!(of(method, text), expected, "{text:?}");
        }
    }
}
