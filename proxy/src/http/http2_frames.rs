//! HTTP/2 as frames, for tests: what goes over the wire is seen, not what a library makes of it. Blocking.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const FIRST_FLAG: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame (RFC 9113 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Nothing comes after it on its stream.
    pub(crate) fn is_last(&self) -> bool {
        self.kind == RESET || (matches!(self.kind, DATA | HEADERS) && self.flags & FIRST_FLAG != 0)
    }
}

/// A header block without compression.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A header field that is not indexed, with a new name.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend(name.bytes());
    field.push(value.len() as u8);
    field.extend(value.bytes());
    field
}

/// One end of a connection.
pub(crate) struct Http2Peer(TcpStream);

impl Http2Peer {
    /// The client's end.
    pub(crate) fn client(mut stream: TcpStream) -> Self {
        stream.write_all(PREFACE).unwrap();
        Self::begin(stream)
    }

    /// The server's end, once the client's preface has come.
    pub(crate) fn server(mut stream: TcpStream) -> Self {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).unwrap();
        assert_eq!(preface, PREFACE);
        Self::begin(stream)
    }

    fn begin(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut peer = Self(stream);
        peer.send(SETTINGS, 0, 0, &[]);
        peer
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    /// A whole request or response that is nothing but this header block.
    pub(crate) fn send_headers(&mut self, stream: u32, block: &[u8]) {
        self.send(HEADERS, FIRST_FLAG | END_HEADERS, stream, block);
    }

    /// A whole GET.
    pub(crate) fn get(&mut self, stream: u32, path: &str) {
        let fields = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "a")];
        self.send_headers(stream, &block(&fields));
    }

    /// A whole response: 200.
    pub(crate) fn answer(&mut self, stream: u32) {
        self.send_headers(stream, &block(&[(":status", "200")]));
    }

    /// The next frame, `None` at the end. Pings are answered.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(e) => panic!("{e}"),
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == PING && frame.flags & FIRST_FLAG == 0 {
            self.send(PING, FIRST_FLAG, 0, &frame.payload);
        }
        Some(frame)
    }

    /// Waits for a frame of this kind; fails at the end.
    pub(crate) fn await_kind(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().unwrap();
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// All frames until the last one of this stream; fails when the connection ends before.
    pub(crate) fn until_end_of(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !frames.last().is_some_and(|frame: &Frame| frame.stream == stream && frame.is_last()) {
            frames.push(self.next().unwrap());
        }
        frames
    }

    /// All frames until the other side has closed the connection.
    pub(crate) fn until_closed(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }
}
