//! Reading HTTP/1 from a byte stream, for the fake upstream and for the raw client.

use std::io::{self, Read};

use crate::message::{Headers, parse_head};

/// A reader that keeps what came after the message just read.
#[derive(Debug)]
pub(crate) struct WireReader {
    buffer: Vec<u8>,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    /// The framing that the headers tell; `otherwise` when they tell none.
    pub(crate) fn of(headers: &Headers, otherwise: Framing) -> Framing {
        if headers.lists("transfer-encoding", "chunked") {
            Framing::Chunked
        } else {
            headers.get("content-length").and_then(|n| n.parse().ok()).map_or(otherwise, Framing::Length)
        }
    }
}

impl WireReader {
    pub(crate) fn new() -> Self {
        WireReader { buffer: Vec::new() }
    }

    /// Reads up to and with the empty line; `None` when the stream ends before the first byte.
    pub(crate) fn head(&mut self, stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Some(self.take(at + 4)));
            }
            if !self.fill(stream)? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut_short("in the head")) };
            }
        }
    }

    /// Reads a body and its trailers.
    pub(crate) fn body(
        &mut self,
        stream: &mut impl Read,
        framing: Framing,
    ) -> io::Result<(Vec<u8>, Headers)> {
        match framing {
            Framing::Length(length) => Ok((self.exactly(stream, length)?, Headers::default())),
            Framing::UntilClose => {
                while self.fill(stream)? {}
                Ok((std::mem::take(&mut self.buffer), Headers::default()))
            }
            Framing::Chunked => self.chunks(stream),
        }
    }

    fn chunks(&mut self, stream: &mut impl Read) -> io::Result<(Vec<u8>, Headers)> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length =
                usize::from_str_radix(digits, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
            if length == 0 {
                break;
            }
            body.extend(self.exactly(stream, length)?);
            self.line(stream)?;
        }
        let mut fields = String::from("- - -\r\n");
        loop {
            let line = self.line(stream)?;
            fields.push_str(&line);
            fields.push_str("\r\n");
            if line.is_empty() {
                return Ok((body, parse_head(fields.as_bytes()).map_err(invalid)?.headers));
            }
        }
    }

    fn line(&mut self, stream: &mut impl Read) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.take(at + 2);
                return String::from_utf8(line[..at].to_vec()).map_err(|error| invalid(error.to_string()));
            }
            if !self.fill(stream)? {
                return Err(cut_short("in a chunk"));
            }
        }
    }

    fn exactly(&mut self, stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill(stream)? {
                return Err(cut_short(&format!("after {} of {length} bytes of the body", self.buffer.len())));
            }
        }
        Ok(self.take(length))
    }

    /// Reads once; `false` at the end of the stream.
    fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let read = stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn cut_short(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the stream ended {place}"))
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
