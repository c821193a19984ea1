//! HTTP/2 in single frames, right or wrong, and a client that speaks it: what goes over the wire is written and seen, not what a library
//! makes of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wait::PATIENCE;

/// Frame types (RFC 9113 section 6).
#[allow(missing_docs)]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RESET: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// Of DATA and HEADERS.
    pub const END_STREAM: u8 = 1;
    /// Of HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 4;
    /// Of DATA and HEADERS.
    pub const PADDED: u8 = 8;
}

/// What begins a connection.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame (RFC 9113 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame that carries this.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// The head of a response, or with its status `None` trailers.
    pub fn head(stream: u32, status: impl Into<Option<u16>>, fields: &[(&str, &str)], ends: bool) -> Self {
        let status = status.into().map(|status| status.to_string());
        let status = status.as_deref().map(|status| (":status", status));
        let fields: Vec<_> = status.into_iter().chain(fields.iter().copied()).collect();
        let ends = if ends { flag::END_STREAM } else { 0 };
        Self::new(kind::HEADERS, flag::END_HEADERS | ends, stream, block(&fields))
    }

    /// It ends its stream.
    pub fn is_last(&self) -> bool {
        let ends = matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & flag::END_STREAM != 0;
        self.kind == kind::RESET || ends
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        self.payload
            .get(at..at + 4)
            .map_or(u32::MAX, |bytes| u32::from_be_bytes(bytes.try_into().expect("4")))
    }

    /// The next frame from here.
    ///
    /// # Errors
    /// There is no whole one.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        from.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// A header block without compression: literal fields with new names.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // RFC 7541 section 5.1: seven bits, then groups of seven.
            let mut length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push(length as u8 | 128);
                    length >>= 7;
                }
                block.push(length as u8);
            }
            block.extend(text.bytes());
        }
    }
    block
}

/// Nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence;

/// A connection.
#[derive(Debug)]
pub struct FrameClient(TcpStream);

impl FrameClient {
    /// Connects and sends nothing.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn silent(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("connect");
        stream.set_write_timeout(Some(Duration::from_secs(3))).expect("timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Connects, sends preface and settings, and reads until the other side's settings are acknowledged and ours too.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let mut client = Self::silent(addr);
        client.send_bytes(PREFACE);
        client.send(&Frame::new(kind::SETTINGS, 0, 0, []));
        let mut theirs = false;
        let mut ours = false;
        while !theirs || !ours {
            let frame = client.frame().expect("settings");
            if frame.kind == kind::SETTINGS {
                match frame.flags & flag::ACK {
                    0 => {
                        theirs = true;
                        client.send(&Frame::new(kind::SETTINGS, flag::ACK, 0, []));
                    }
                    _ => ours = true,
                }
            }
        }
        client
    }

    /// Sends bytes. Whether the other side still takes them.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends a frame. Whether the other side still takes it.
    pub fn send(&mut self, frame: &Frame) -> bool {
        self.send_bytes(&frame.encode())
    }

    /// The next frame; `None` when the other side has closed.
    ///
    /// # Panics
    /// When nothing comes for too long.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        self.next_within(PATIENCE).unwrap_or_else(|Silence| panic!("nothing for {PATIENCE:?}"))
    }

    /// The next frame; `None` when the other side has closed.
    ///
    /// # Errors
    /// Nothing comes for so long.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Frame>, Silence> {
        self.0.set_read_timeout(Some(limit)).expect("timeout");
        match Frame::read(&mut self.0) {
            Ok(frame) => Ok(Some(frame)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Silence),
            Err(_) => Ok(None),
        }
    }
}
