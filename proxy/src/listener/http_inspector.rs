//! `envoy.filters.listener.http_inspector`: whether a connection begins with an HTTP request, and of which version.
//!
//! The bytes stay in the socket. `parse` is pure, takes anything, and judges by the same rules as Envoy's: what is no HTTP is
//! known by its first character that a method cannot have, anything else by its first line.

use super::inspect::InspectError;
use crate::net::RawStream;

/// Longest request line that is looked at, in bytes (as in Envoy).
pub const MAX_REQUEST_LINE_BYTES: usize = 64 << 10;
/// What every HTTP/2 client with prior knowledge sends first (RFC 9113 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// They may become HTTP: more bytes are needed.
    Incomplete,
    /// Something else.
    NotHttp,
    /// An HTTP request.
    Http(HttpVersion),
}

/// The version of an HTTP request, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0; any other HTTP/1 or unknown version too (as in Envoy).
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl HttpVersion {
    /// Its name as an application protocol.
    pub fn application_protocol(self) -> &'static str {
        match self {
            HttpVersion::Http10 => "http/1.0",
            HttpVersion::Http11 => "http/1.1",
            HttpVersion::Http2 => "h2c",
        }
    }
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Parsed::Http(HttpVersion::Http2);
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Parsed::Incomplete;
    }
    let is_space = |b: &u8| matches!(b, b' ' | b'\t' | 0x0b | 0x0c | b'\r' | b'\n');
    let method = bytes.split(is_space).next().unwrap_or_default();
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Parsed::NotHttp;
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Parsed::Incomplete };
    match request_line(&bytes[..end]) {
        Some(version) => Parsed::Http(version),
        None => Parsed::NotHttp,
    }
}

/// `method target [HTTP-version]`, without the line's end. Any control character separates, as a lenient parser has it.
fn request_line(line: &[u8]) -> Option<HttpVersion> {
    let mut words = line.split(|b| *b <= b' ').filter(|word| !word.is_empty());
    let (method, target, version) = (words.next()?, words.next()?, words.next());
    if words.next().is_some() || !is_target(target, method == b"CONNECT") {
        return None;
    }
    match version {
        Some(b"HTTP/1.1") => Some(HttpVersion::Http11),
        None | Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => {
            Some(HttpVersion::Http10)
        }
        Some(_) => None,
    }
}

/// A path, `*`, an absolute URI; of CONNECT also an authority.
fn is_target(target: &[u8], is_connect: bool) -> bool {
    let is_absolute = || {
        let scheme = target.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        scheme > 0 && target[scheme..].starts_with(b"://")
    };
    target.iter().all(u8::is_ascii_graphic)
        && (matches!(target.first(), Some(b'/' | b'*')) || is_connect || is_absolute())
}

/// `tchar` of RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Waits until the first bytes tell what they are; `None` is not HTTP.
///
/// # Errors
/// See [`InspectError`], and `inspect` for giving up.
pub async fn inspect(raw: &RawStream) -> Result<Option<HttpVersion>, InspectError> {
    let known = |bytes: &[u8]| match parse(bytes) {
        Parsed::Http(version) => Some(Some(version)),
        Parsed::NotHttp => Some(None),
        Parsed::Incomplete => None,
    };
    match super::inspect::inspect(raw, MAX_REQUEST_LINE_BYTES, known).await {
        // All that the client will ever send, and no request.
        Err(InspectError::Ended) => Ok(None),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    const HTTP_10: Parsed = Parsed::Http(HttpVersion::Http10);
    const HTTP_11: Parsed = Parsed::Http(HttpVersion::Http11);

    #[test]
    fn first_bytes_are_judged_as_envoy_judges_them() {
        // What Envoy 1.40 counts for each: `http10_found`, `http11_found`, `http_not_found`, or nothing yet.
        let table: &[(&[u8], Parsed)] = &[
            (b"GET / HTTP/1.1\r\n", HTTP_11),
            (b"GET / HTTP/1.1\n", HTTP_11),
            (b"GET / HTTP/1.1\r\nHost", HTTP_11),
            (b"GET / HTTP/1.1 \r\n", HTTP_11),
            (b"GET  / HTTP/1.1\r\n", HTTP_11),
            (b"GET\t/\tHTTP/1.1\r\n", HTTP_11),
            (b"get / HTTP/1.1\r\n", HTTP_11),
            (b"FOO / HTTP/1.1\r\n", HTTP_11),
            (b"M-SEARCH * HTTP/1.1\r\n", HTTP_11),
            (b"GET http://x/ HTTP/1.1\r\n", HTTP_11),
            (b"CONNECT a:1 HTTP/1.1\r\n", HTTP_11),
            (b"CONNECT [::1]:1 HTTP/1.1\r\n", HTTP_11),
            (b"PRI * HTTP/1.1\r\n", HTTP_11),
            (b"GET /\x01 HTTP/1.1\r\n", HTTP_11),
            (b"GET / HTTP/1.0\r\n", HTTP_10),
            (b"GET / HTTP/1.2\r\n", HTTP_10),
            (b"GET / HTTP/0.9\r\n", HTTP_10),
            (b"GET /\r\n", HTTP_10),
            (b"GET / \n", HTTP_10),
            (b"PRI * HTTP/2.0\r\n\r\nXX", HTTP_10),
            (HTTP2_PREFACE, Parsed::Http(HttpVersion::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Parsed::Incomplete),
            (b"PRI", Parsed::Incomplete),
            (b"", Parsed::Incomplete),
            (b"X", Parsed::Incomplete),
            (b"GET / HTTP/1.1\r", Parsed::Incomplete),
            (b"GET / FOO", Parsed::Incomplete),
            (b"AMQP", Parsed::Incomplete),
            (b"SSH-2.0-x", Parsed::Incomplete),
            (b"*1\r", Parsed::Incomplete),
            (b"\r\n", Parsed::NotHttp),
            (b" ", Parsed::NotHttp),
            (b"\x00", Parsed::NotHttp),
            (b"\x16\x03", Parsed::NotHttp),
            (b"\xff", Parsed::NotHttp),
            (b"A(", Parsed::NotHttp),
            (b"A\x80", Parsed::NotHttp),
            (b"AMQP\x00\x00\x09\x01", Parsed::NotHttp),
            (b"\x00\x00\x00\x08\x04\xd2\x16/", Parsed::NotHttp),
            (b"SSH-2.0-x\r\n", Parsed::NotHttp),
            (b"*1\r\n$4\r\nPING\r\n", Parsed::NotHttp),
            (b"PING\r\n", Parsed::NotHttp),
            (b"EHLO x\r\n", Parsed::NotHttp),
            (b"HTTP/1.1 200 OK\r\n", Parsed::NotHttp),
            (b"GET\r\n", Parsed::NotHttp),
            (b"GET HTTP/1.1\n", Parsed::NotHttp),
            (b"GET x HTTP/1.1\r\n", Parsed::NotHttp),
            (b"GET http:/a HTTP/1.1\r\n", Parsed::NotHttp),
            (b"GET / a HTTP/1.1\r\n", Parsed::NotHttp),
            (b"GET / FOO/1.1\r\n", Parsed::NotHttp),
            (b"GET / HTTP/1.10\r\n", Parsed::NotHttp),
            (b"GET / http/1.1\r\n", Parsed::NotHttp),
            (b"GET /\xff HTTP/1.1\r\n", Parsed::NotHttp),
        ];
        for (bytes, expected) in table {
            assert_eq!(parse(bytes), *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn more_bytes_never_take_back_a_judgement() {
        let mut random = fastrand::Rng::with_seed(7);
        let alphabet = b"GETPRI*/ HTTP/1.120\r\n\r\nSM\x00\xff:a";
        for _ in 0..50_000 {
            let bytes: Vec<u8> =
                (0..random.usize(..40)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            let known = (0..=bytes.len()).map(|n| parse(&bytes[..n])).find(|p| *p != Parsed::Incomplete);
            // The preface alone looks like an HTTP/1 request until it is whole or broken.
            if let Some(known) = known {
                assert_eq!(parse(&bytes), known, "{}", bytes.escape_ascii());
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_comes_in_pieces_is_waited_for_and_stays_in_the_socket() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let inspected = tokio::spawn(async move {
            let mut near = RawStream::Unix(near);
            let found = inspect(&near).await;
            let mut bytes = [0; 18];
            near.read_exact(&mut bytes).await.unwrap();
            (found.unwrap(), bytes)
        });
        for piece in b"GET /a HTTP/1.1\r\n\r".chunks(4) {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (found, bytes) = inspected.await.unwrap();
        assert_eq!(found, Some(HttpVersion::Http11));
        assert_eq!(&bytes, b"GET /a HTTP/1.1\r\n\r");
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up_and_a_long_one_is_read() {
        for (length, whole) in [(20_000, true), (MAX_REQUEST_LINE_BYTES, false)] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let line = [b"GET /", "a".repeat(length).as_bytes(), b" HTTP/1.1\r\n"].concat();
            let writer = tokio::spawn(async move {
                far.write_all(&line).await.unwrap();
                far
            });
            let found = inspect(&RawStream::Unix(near)).await;
            match whole {
                true => assert_eq!(found.unwrap(), Some(HttpVersion::Http11)),
                false => assert!(matches!(found, Err(InspectError::TooLong)), "{found:?}"),
            }
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_ends_in_the_middle_is_not_http() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"GET /").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(inspect(&RawStream::Unix(near)).await.unwrap(), None);
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        assert!(matches!(inspect(&RawStream::Unix(near)).await, Err(InspectError::Closed)));
    }
}
