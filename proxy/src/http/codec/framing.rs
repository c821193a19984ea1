//! The raw heads of an HTTP/1 client, looked at before the engine parses them.
//!
//! The engine drops a Content-Length that stands beside a Transfer-Encoding, and a fragment in the target, before anyone can refuse
//! them; but the first is how requests are smuggled (RFC 9112 section 6.1). So the bytes are followed from message to message, and a
//! head that must be refused is remembered by its number: the request pipeline answers it.

use std::cell::{Cell, RefCell};

use http::StatusCode;

use crate::stream_info::details;

/// Follows the messages of one connection. Shared by the connection's bytes and its request pipeline.
#[derive(Debug)]
pub(crate) struct Framing {
    /// A head that grows beyond this is the engine's to refuse.
    max_head: usize,
    state: RefCell<State>,
    /// Heads seen so far.
    heads: Cell<u64>,
    refused: Cell<Option<(u64, Refusal)>>,
    /// Bytes of the last whole head.
    head_bytes: Cell<usize>,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) details: &'static str,
    /// Whether it counts as a protocol error of the client (flag `DPE`).
    pub(crate) protocol_error: bool,
}

#[derive(Debug)]
enum State {
    /// In a head; what came of it in earlier reads.
    Head(Vec<u8>),
    /// In a body of so many more bytes.
    Body(u64),
    /// In the line with a chunk's size.
    ChunkSize { size: u64, extension: bool },
    /// In a chunk and the line end behind it.
    Chunk(u64),
    /// In the trailers: whether the present line has no byte yet, and whether the last one was a carriage return.
    Trailers { empty_line: bool, carriage_return: bool },
    /// Nothing more is looked at: the engine refuses the rest itself, or has been told to.
    Done,
}

impl Default for State {
    fn default() -> Self {
        State::Head(Vec::new())
    }
}

impl Framing {
    /// Of a connection whose engine refuses heads of more than `max_head` bytes.
    pub(crate) fn new(max_head: usize) -> Self {
        Self {
            max_head,
            state: RefCell::default(),
            heads: Cell::new(0),
            refused: Cell::new(None),
            head_bytes: Cell::new(0),
        }
    }

    /// What is wrong with the n-th request (1-based) of the connection.
    pub(crate) fn refusal(&self, request: u64) -> Option<Refusal> {
        self.refused.get().filter(|(n, _)| *n == request).map(|(_, refusal)| refusal)
    }

    /// What was found wrong with any request.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.get().map(|(_, refusal)| refusal)
    }

    /// The number of the head that has begun and not ended.
    pub(crate) fn head_in_progress(&self) -> Option<u64> {
        self.is_in_head().then(|| self.heads.get() + 1)
    }

    /// Heads seen so far, with the one that is refused.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn heads(&self) -> u64 {
        self.heads.get()
    }

    /// Bytes of the present head, as far as it has come, or of the last one.
    pub(crate) fn head_bytes(&self) -> usize {
        match &*self.state.borrow() {
            State::Head(seen) if !seen.is_empty() => seen.len(),
            _ => self.head_bytes.get(),
        }
    }

    /// Whether a head has begun that never ended.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(&*self.state.borrow(), State::Head(seen) if !seen.is_empty())
    }

    /// Whether the last message has come whole, and nothing of a next one.
    pub(crate) fn is_between_messages(&self) -> bool {
        matches!(&*self.state.borrow(), State::Head(seen) if seen.is_empty())
    }

    /// Looks at bytes that the engine is about to get.
    pub(crate) fn feed(&self, mut bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        while !bytes.is_empty() {
            match &mut *state {
                State::Head(seen) => {
                    if seen.is_empty() {
                        // Empty lines before a request are skipped, as the engine does.
                        let start =
                            bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
                        bytes = &bytes[start..];
                        let Some(end) = head_end(bytes) else {
                            seen.extend_from_slice(bytes);
                            return;
                        };
                        *state = self.head(&bytes[..end]);
                        bytes = &bytes[end..];
                    } else {
                        let before = seen.len();
                        seen.extend_from_slice(bytes);
                        match head_end(seen) {
                            Some(end) => {
                                let next = self.head(&seen[..end]);
                                bytes = &bytes[end - before..];
                                *state = next;
                            }
                            None if seen.len() > self.max_head => {
                                self.head_bytes.set(seen.len());
                                *state = State::Done;
                            }
                            None => return,
                        }
                    }
                }
                State::Body(left) | State::Chunk(left) => {
                    let n = (*left).min(bytes.len() as u64);
                    *left -= n;
                    bytes = &bytes[n as usize..];
                    if *left == 0 {
                        *state = match &*state {
                            State::Chunk(_) => State::ChunkSize { size: 0, extension: false },
                            _ => State::default(),
                        };
                    }
                }
                State::ChunkSize { size, extension } => {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    match (byte, (byte as char).to_digit(16)) {
                        (b'\n', _) => {
                            *state = match *size {
                                0 => State::Trailers { empty_line: true, carriage_return: false },
                                // The chunk's own line end belongs to it.
                                n => State::Chunk(n.saturating_add(2)),
                            }
                        }
                        (b';', _) => *extension = true,
                        (_, Some(digit)) if !*extension => {
                            *size = size.saturating_mul(16).saturating_add(u64::from(digit));
                        }
                        _ => {}
                    }
                }
                State::Trailers { empty_line, carriage_return } => {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    // For the engine a line feed alone is a part of the line.
                    let ends_line = byte == b'\n' && *carriage_return;
                    *carriage_return = byte == b'\r';
                    match ends_line {
                        true if *empty_line => *state = State::default(),
                        _ if *carriage_return => {}
                        ends_line => *empty_line = ends_line,
                    }
                }
                State::Done => return,
            }
        }
    }

    /// Judges a whole head and says what follows it.
    fn head(&self, head: &[u8]) -> State {
        self.heads.set(self.heads.get() + 1);
        self.head_bytes.set(head.len());
        match judge(head) {
            Ok(next) => next,
            Err(refusal) => {
                self.refused.set(Some((self.heads.get(), refusal)));
                State::Done
            }
        }
    }
}

/// Where the empty line ends, counted from the start.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|b| *b == b'\n') {
        let after = &bytes[from + at + 1..];
        match after {
            [b'\n', ..] => return Some(from + at + 2),
            [b'\r', b'\n', ..] => return Some(from + at + 3),
            _ => from += at + 1,
        }
    }
    None
}

fn judge(head: &[u8]) -> Result<State, Refusal> {
    let refuse = |status, details| Refusal { status, details, protocol_error: true };
    let mut lines = head.split(|b| *b == b'\n');
    let request_line = lines.next().unwrap_or_default();
    let target = request_line.split(|b| *b == b' ').nth(1).unwrap_or_default();
    if target.iter().any(|b| *b >= 0x80) {
        return Err(refuse(StatusCode::BAD_REQUEST, details::HTTP1_CODEC_ERROR));
    }
    if target.contains(&b'#') {
        let (status, details) = (StatusCode::BAD_REQUEST, details::PATH_NORMALIZATION_FAILED);
        return Err(Refusal { status, details, protocol_error: false });
    }
    if head.contains(&0) {
        return Err(refuse(StatusCode::BAD_REQUEST, details::INVALID_CHARACTERS));
    }
    let mut length: Option<&[u8]> = None;
    let mut encoding: Option<&[u8]> = None;
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(value).is_some() {
                return Err(refuse(StatusCode::BAD_REQUEST, details::HTTP1_CODEC_ERROR));
            }
        } else if name.len() == 17
            && name.eq_ignore_ascii_case(b"transfer-encoding")
            && encoding.replace(value).is_some()
        {
            return Err(refuse(StatusCode::NOT_IMPLEMENTED, details::INVALID_TRANSFER_ENCODING));
        }
    }
    if head.starts_with(b"CONNECT ") {
        // What follows is the tunnel's.
        return match length.is_none_or(|length| length == b"0") && encoding.is_none() {
            true => Ok(State::Done),
            false => Err(refuse(StatusCode::BAD_REQUEST, details::BODY_DISALLOWED)),
        };
    }
    match (length, encoding) {
        (Some(_), Some(_)) => Err(refuse(StatusCode::BAD_REQUEST, details::LENGTH_AND_CHUNKED)),
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => {
            Ok(State::ChunkSize { size: 0, extension: false })
        }
        (None, Some(_)) => Err(refuse(StatusCode::NOT_IMPLEMENTED, details::INVALID_TRANSFER_ENCODING)),
        (Some(length), None) => {
            match std::str::from_utf8(length).ok().and_then(|l| l.parse::<u64>().ok()) {
                Some(0) => Ok(State::default()),
                Some(n) => Ok(State::Body(n)),
                // The engine refuses it.
                None => Ok(State::Done),
            }
        }
        (None, None) => Ok(State::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing() -> Framing {
        Framing::new(60 << 10)
    }

    const PLAIN: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

    /// Feeds the text whole, and byte by byte, and gives the first refused request's number and details.
    fn refused(text: &str) -> Option<(u64, &'static str)> {
        let whole = framing();
        whole.feed(text.as_bytes());
        let split = framing();
        text.as_bytes().iter().for_each(|b| split.feed(&[*b]));
        assert_eq!(whole.refused.get(), split.refused.get(), "{text:?}");
        assert_eq!(whole.heads.get(), split.heads.get(), "{text:?}");
        whole.refused.get().map(|(n, r)| (n, r.details))
    }

    #[test]
    fn smuggled_lengths_are_found_wherever_they_stand() {
        let both =
            "POST / HTTP/1.1\r\nhost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let swapped = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n";
        for bad in [both, swapped] {
            assert_eq!(refused(bad), Some((1, details::LENGTH_AND_CHUNKED)));
            assert_eq!(refused(&format!("{PLAIN}{bad}")), Some((2, details::LENGTH_AND_CHUNKED)));
            let body = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{bad}", bad.len());
            assert_eq!(refused(&body), None, "in a body it is data");
            let chunk = format!(
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x};a=b\r\n{bad}\r\n0\r\nt: v\r\n\r\n",
                bad.len()
            );
            assert_eq!(refused(&chunk), None, "in a chunk it is data");
            assert_eq!(refused(&format!("{chunk}{bad}")), Some((2, details::LENGTH_AND_CHUNKED)));
        }
    }

    #[test]
    fn a_line_feed_alone_ends_no_trailers() {
        let body = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nt: v\n\n";
        let bad = "GET /a#b HTTP/1.1\r\n\r\n";
        assert_eq!(refused(&format!("{body}{bad}")), None, "it is a trailer");
        assert_eq!(refused(&format!("{body}\r\n\r\n{bad}")), Some((2, details::PATH_NORMALIZATION_FAILED)));
    }

    #[test]
    fn heads_that_are_refused() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", details::HTTP1_CODEC_ERROR),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
                details::INVALID_TRANSFER_ENCODING,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
                details::INVALID_TRANSFER_ENCODING,
            ),
            ("GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", details::INVALID_CHARACTERS),
            ("GET /a#b HTTP/1.1\r\n\r\n", details::PATH_NORMALIZATION_FAILED),
            ("GET /\u{e9} HTTP/1.1\r\n\r\n", details::HTTP1_CODEC_ERROR),
            ("CONNECT a:1 HTTP/1.1\r\ncontent-length: 1\r\n\r\n", details::BODY_DISALLOWED),
            ("CONNECT a:1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", details::BODY_DISALLOWED),
        ] {
            assert_eq!(refused(head), Some((1, expected)), "{head:?}");
        }
        assert_eq!(refused("\r\nPOST / HTTP/1.1\ncontent-length: 3\n\nabcGET / HTTP/1.1\n\n"), None);
    }

    #[test]
    fn what_follows_connect_is_no_message() {
        let framing = framing();
        framing.feed(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nGET /a#b HTTP/1.1\r\n\r\nGET");
        assert!(framing.refused().is_none() && !framing.is_in_head());
    }

    #[test]
    fn a_head_may_be_as_long_as_the_engine_takes_it() {
        let framing = Framing::new(1 << 20);
        let long = format!("POST / HTTP/1.1\r\nx: {}\r\n", "a".repeat(900 << 10));
        framing.feed(long.as_bytes());
        framing.feed(b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(framing.refused().map(|refusal| refusal.details), Some(details::LENGTH_AND_CHUNKED));
        let framing = Framing::new(1000);
        (0..4).for_each(|_| framing.feed(&[b'a'; 500]));
        assert!(framing.head_bytes() > 1000 && !framing.is_in_head());
    }

    #[test]
    fn a_head_without_an_end_is_known() {
        let framing = framing();
        framing.feed(PLAIN.as_bytes());
        assert!(!framing.is_in_head());
        framing.feed(b"GET / HT");
        assert!(framing.is_in_head());
    }
}
