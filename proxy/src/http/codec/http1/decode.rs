//! Where the body of a message ends (RFC 9112 sections 6 and 7): by its length, by its last chunk, or with the connection.
//!
//! What peers could read in two ways is refused: lines of chunks end in CR LF, and a size has digits only.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::codec::ReadError;

/// Extensions of all chunks of a body together, bytes.
const MAX_EXTENSIONS: usize = 16 << 10;
/// All trailers together, bytes.
const MAX_TRAILERS: usize = 16 << 10;
/// Trailer fields.
const MAX_TRAILER_FIELDS: usize = 100;

/// How the body of the present message ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// It has ended, or there is none.
    None,
    /// After so many more bytes.
    Length(u64),
    /// With the last chunk.
    Chunked(Chunks),
    /// With the connection.
    UntilClose,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    at: Place,
    /// How much of the present line was looked at for its end.
    seen: usize,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In the line with a chunk's size.
    Size,
    /// In a chunk, so many bytes before its end.
    Data(u64),
    /// In the line end behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// More bytes are needed.
    More,
}

impl Decoder {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunks { at: Place::Size, seen: 0, extensions: 0 })
    }

    /// Of a body with this length.
    pub(super) fn length(length: u64) -> Self {
        if length == 0 { Self::None } else { Self::Length(length) }
    }

    pub(super) fn is_done(&self) -> bool {
        *self == Self::None
    }

    pub(super) fn ends_with_connection(&self) -> bool {
        *self == Self::UntilClose
    }

    /// How much comes, if that is known.
    pub(super) fn exact(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next part from `input`.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, ReadError> {
        match self {
            Self::None => Ok(Step::End),
            Self::UntilClose if input.is_empty() => Ok(Step::More),
            Self::UntilClose => Ok(Step::Data(input.split().freeze())),
            Self::Length(left) => {
                let Some(data) = take(left, input) else { return Ok(Step::More) };
                if *left == 0 {
                    *self = Self::None;
                }
                Ok(Step::Data(data))
            }
            Self::Chunked(chunks) => {
                let step = chunks.decode(input)?;
                if matches!(step, Step::Trailers(_) | Step::End) {
                    *self = Self::None;
                }
                Ok(step)
            }
        }
    }
}

/// Up to `left` bytes; `None`: there is nothing.
fn take(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let available = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    if available == 0 {
        return None;
    }
    *left -= available as u64;
    Some(input.split_to(available).freeze())
}

impl Chunks {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Step, ReadError> {
        loop {
            match &mut self.at {
                Place::Size => {
                    let Some(line) = self.line(input)? else { return Ok(Step::More) };
                    let (size, extension) = chunk_size(&input[..line - 2])?;
                    self.extensions += extension;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(ReadError::Malformed);
                    }
                    input.advance(line);
                    self.at = if size == 0 { Place::Trailers } else { Place::Data(size) };
                }
                Place::Data(left) => {
                    let Some(data) = take(left, input) else { return Ok(Step::More) };
                    if *left == 0 {
                        self.at = Place::DataEnd;
                    }
                    return Ok(Step::Data(data));
                }
                Place::DataEnd => match &input[..input.len().min(2)] {
                    b"\r\n" => {
                        input.advance(2);
                        self.at = Place::Size;
                    }
                    b"" | b"\r" => return Ok(Step::More),
                    _ => return Err(ReadError::Malformed),
                },
                Place::Trailers => return self.trailers(input),
            }
        }
    }

    /// The length of the present line with its end, when it is here.
    fn line(&mut self, input: &[u8]) -> Result<Option<usize>, ReadError> {
        match memchr::memchr(b'\n', &input[self.seen..]) {
            Some(at) => {
                let end = self.seen + at;
                self.seen = 0;
                match end.checked_sub(1).map(|before| input[before]) {
                    Some(b'\r') => Ok(Some(end + 1)),
                    _ => Err(ReadError::Malformed),
                }
            }
            None if input.len() > MAX_EXTENSIONS => Err(ReadError::Malformed),
            None => {
                // Who sends nonsense is not waited for.
                if !input.is_empty() && chunk_size(input.strip_suffix(b"\r").unwrap_or(input)).is_err() {
                    return Err(ReadError::Malformed);
                }
                self.seen = input.len();
                Ok(None)
            }
        }
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Step, ReadError> {
        match &input[..input.len().min(2)] {
            b"\r\n" => {
                input.advance(2);
                return Ok(Step::End);
            }
            b"" | b"\r" => return Ok(Step::More),
            _ => {}
        }
        let from = self.seen.saturating_sub(3);
        let Some(at) = memchr::memmem::find(&input[from..], b"\r\n\r\n") else {
            self.seen = input.len();
            return if input.len() > MAX_TRAILERS { Err(ReadError::Malformed) } else { Ok(Step::More) };
        };
        let end = from + at + 4;
        if end > MAX_TRAILERS {
            return Err(ReadError::Malformed);
        }
        let block = input.split_to(end).freeze();
        let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        let fields = match httparse::parse_headers(&block, &mut fields) {
            Ok(httparse::Status::Complete((length, fields))) if length == end => fields,
            _ => return Err(ReadError::Malformed),
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| ReadError::Malformed)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| ReadError::Malformed)?;
            trailers.append(name, value);
        }
        Ok(Step::Trailers(trailers))
    }
}

/// The size that a line says, and the bytes of its extension (RFC 9112 section 7.1).
fn chunk_size(line: &[u8]) -> Result<(u64, usize), ReadError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    let size = size.ok_or(ReadError::Malformed)?;
    let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match &rest[spaces..] {
        [] => Ok((size, 0)),
        [b';', extension @ ..] if !extension.contains(&b'\r') => Ok((size, extension.len())),
        _ => Err(ReadError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What a body in these bytes is, whole and byte by byte: its data, its trailers, and the bytes behind it. `None`: malformed.
    fn read(decoder: fn() -> Decoder, bytes: &[u8]) -> Option<(Vec<u8>, usize, Vec<u8>)> {
        let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut decoder, mut input) = (decoder(), BytesMut::new());
            let (mut data, mut trailers) = (Vec::new(), 0);
            loop {
                match decoder.decode(&mut input) {
                    Ok(Step::Data(more)) => data.extend_from_slice(&more),
                    Ok(Step::Trailers(more)) => trailers = more.len(),
                    Ok(Step::End) => break,
                    Ok(Step::More) => match pieces.next() {
                        Some(piece) => input.extend_from_slice(piece),
                        None => return Some((data, trailers, b"more".to_vec())),
                    },
                    Err(_) => return None,
                }
            }
            pieces.for_each(|piece| input.extend_from_slice(piece));
            Some((data, trailers, input.to_vec()))
        };
        let whole = run(&mut [bytes].into_iter());
        assert_eq!(whole, run(&mut bytes.chunks(1)), "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn chunks_are_read_to_the_last() {
        for (bytes, expected) in [
            (&b"0\r\n\r\nGET"[..], Some((&b""[..], 0, &b"GET"[..]))),
            (b"3\r\nabc\r\n0\r\n\r\n", Some((b"abc", 0, b""))),
            (b"0A;a=b\r\n0123456789\r\n1  \r\n!\r\n0\r\n\r\n", Some((b"0123456789!", 0, b""))),
            (b"0\r\na: 1\r\nb: 2\r\n\r\nX", Some((b"", 2, b"X"))),
            (b"3\r\nab", Some((b"ab", 0, b"more"))),
            (b"3\nabc\r\n0\r\n\r\n", None),
            (b"3\r\nabc\n0\r\n\r\n", None),
            (b"3\r\nabcd\r\n0\r\n\r\n", None),
            (b"x\r\n", None),
            (b"\r\n", None),
            (b"+3\r\nabc\r\n", None),
            (b"3 4\r\nabc\r\n", None),
            (b"3;a\rb\r\nabc\r\n", None),
            (b"10000000000000000\r\n", None),
            (b"0\r\na b: 1\r\n\r\n", None),
        ] {
            let expected = expected.map(|(data, trailers, rest)| (data.to_vec(), trailers, rest.to_vec()));
            assert_eq!(read(Decoder::chunked, bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_frames_chunks_has_limits() {
        let extension = format!("1;{}\r\n", "e".repeat(9000));
        assert!(read(Decoder::chunked, format!("{extension}a\r\n0\r\n\r\n").as_bytes()).is_some());
        let twice = format!("{extension}a\r\n{extension}a\r\n0\r\n\r\n");
        assert!(read(Decoder::chunked, twice.as_bytes()).is_none());
        let trailers = |length| format!("0\r\na: {}\r\n\r\n", "v".repeat(length));
        assert!(read(Decoder::chunked, trailers(16 << 10).as_bytes()).is_none());
        assert!(read(Decoder::chunked, trailers(16_000).as_bytes()).is_some());
    }

    #[test]
    fn other_bodies_end_with_their_length_or_the_connection() {
        assert_eq!(read(|| Decoder::length(3), b"abcd"), Some((b"abc".to_vec(), 0, b"d".to_vec())));
        assert_eq!(read(|| Decoder::length(0), b"d"), Some((b"".to_vec(), 0, b"d".to_vec())));
        assert_eq!(read(|| Decoder::UntilClose, b"abcd"), Some((b"abcd".to_vec(), 0, b"more".to_vec())));
    }
}
