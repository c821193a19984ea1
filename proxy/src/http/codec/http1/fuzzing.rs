//! The door for the fuzz target: requests of an HTTP/1 connection without the connection.

use bytes::BytesMut;
use http::Method;

use super::decode::{Decoder, Step};
use super::head::{self, Finder, Limits, Refusal};

/// The requests that came over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// Of each whole one: method, target, bytes of its body, trailer fields.
    pub whole: Vec<(String, String, usize, usize)>,
    /// What comes instead of a further one.
    pub stop: Stop,
}

/// Why there is no further request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The bytes end between two, or in the middle of one.
    Bytes,
    /// The next one is refused with this status.
    Refused(u16),
    /// The body of the next one is not framed as its head says.
    Body,
    /// The connection has left HTTP.
    Tunnel,
}

/// Reads what comes in these pieces.
pub(crate) fn messages(pieces: &[&[u8]]) -> Messages {
    let limits = Limits { bytes: 256 << 10, fields: 100, keeps_case: false };
    let (mut finder, mut input) = (Finder::default(), BytesMut::new());
    let mut pieces = pieces.iter();
    let mut whole = Vec::new();
    let stop = loop {
        let head = loop {
            match head::request(&mut finder, &mut input, limits) {
                Ok(Some(head)) => break Ok(head),
                Err(refusal) => break Err(Stop::Refused(refusal.status.as_u16())),
                Ok(None) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => break Err(Stop::Bytes),
                },
            }
        };
        let mut head = match head {
            Ok(head) => head,
            Err(stop) => break stop,
        };
        if let Some(refusal) = head.request.extensions_mut().remove::<Refusal>() {
            break Stop::Refused(refusal.status.as_u16());
        }
        let (method, target) = (head.request.method().to_string(), head.request.uri().to_string());
        match read_body(&mut head.body, &mut input, &mut pieces) {
            Ok((bytes, trailers)) => whole.push((method, target, bytes, trailers)),
            Err(stop) => break stop,
        }
        if *head.request.method() == Method::CONNECT {
            break Stop::Tunnel;
        }
    };
    Messages { whole, stop }
}

fn read_body<'p>(
    body: &mut Decoder,
    input: &mut BytesMut,
    pieces: &mut impl Iterator<Item = &'p &'p [u8]>,
) -> Result<(usize, usize), Stop> {
    let (mut bytes, mut trailers) = (0, 0);
    loop {
        match body.decode(input) {
            Ok(Step::Data(data)) => bytes += data.len(),
            Ok(Step::Trailers(fields)) => trailers = fields.len(),
            Ok(Step::End) => return Ok((bytes, trailers)),
            Ok(Step::More) => input.extend_from_slice(pieces.next().ok_or(Stop::Bytes)?),
            Err(_) => return Err(Stop::Body),
        }
    }
}
