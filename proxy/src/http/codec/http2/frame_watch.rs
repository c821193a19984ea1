//! The frames of an HTTP/2 client, counted before the engine has them.
//!
//! The engine takes frames that cost work and bring nothing without end: PRIORITY, WINDOW_UPDATE, empty DATA; and it does not mind what
//! comes before the settings. So frame heads are followed in both directions (what a client may send depends on what it was sent),
//! by Envoy's rules and with its defaults. Other floods stop at the engine: it answers PING and SETTINGS one at a time and reads no
//! further meanwhile, and counts resets and header blocks itself.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::http::FrameLimits;
use crate::stats::{Counter, Stats};

/// Length of a frame's head (RFC 9113 section 4.1), and of the client's preface.
const HEAD: usize = 9;
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// ACK of SETTINGS, END_STREAM of DATA and HEADERS.
const FIRST_FLAG: u8 = 1;
/// Of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// What one connection has sent and received so far.
#[derive(Debug)]
pub(crate) struct FrameWatch {
    limits: FrameLimits,
    stats: Arc<Stats>,
    received: Heads,
    sent: Heads,
    has_begun: bool,
    highest_stream: u32,
    /// The header block that is on its way opens a stream; and whether its last frame has begun.
    opens: Option<Block>,
    seen: Rc<Seen>,
    opened: u64,
    data_sent: u64,
    priorities: u64,
    window_updates: u64,
    /// Frames in a row that carry nothing.
    empty: u32,
}

/// What is seen of the frames while they come.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The stream whose head has begun and not ended.
    pub(super) head_in_progress: Cell<Option<u32>>,
    /// Frames received.
    pub(super) frames: Cell<u64>,
}

/// How far a header block has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// More frames of it come.
    Open,
    /// What is left of its last frame comes.
    Last,
}

/// What a client must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abuse {
    NoSettings,
    Priorities,
    WindowUpdates,
    Empty,
}

impl FrameWatch {
    pub(crate) fn new(limits: FrameLimits, stats: Arc<Stats>) -> Self {
        Self {
            limits,
            stats,
            received: Heads { skip: PREFACE, ..Heads::default() },
            sent: Heads::default(),
            has_begun: false,
            highest_stream: 0,
            opens: None,
            seen: Rc::default(),
            opened: 0,
            data_sent: 0,
            priorities: 0,
            window_updates: 0,
            empty: 0,
        }
    }

    /// What others see of the frames.
    pub(super) fn seen(&self) -> Rc<Seen> {
        self.seen.clone()
    }

    /// The client has sent these bytes.
    ///
    /// # Errors
    /// It goes too far: the connection is to be closed.
    pub(crate) fn received(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(frame) = self.received.next(&mut bytes, true) {
            self.seen.frames.set(self.seen.frames.get() + 1);
            if let Err(abuse) = self.judge(frame) {
                self.counter(abuse).inc();
                return Err(io::Error::new(io::ErrorKind::InvalidData, abuse.what()));
            }
        }
        if self.opens == Some(Block::Last) && self.received.skip == 0 {
            self.opens = None;
        }
        self.seen.head_in_progress.set(self.opens.map(|_| self.highest_stream));
        Ok(())
    }

    /// So many bytes of these have gone to the client.
    pub(crate) fn sent<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>, mut written: usize) {
        for part in parts {
            let mut bytes = &part[..part.len().min(written)];
            written -= bytes.len();
            while let Some(frame) = self.sent.next(&mut bytes, false) {
                self.data_sent += u64::from(frame.kind == DATA);
            }
            if written == 0 {
                return;
            }
        }
    }

    fn judge(&mut self, frame: Frame) -> Result<(), Abuse> {
        if !self.has_begun {
            if frame.kind != SETTINGS || frame.flags & FIRST_FLAG != 0 {
                return Err(Abuse::NoSettings);
            }
            self.has_begun = true;
        }
        if frame.kind == HEADERS && frame.stream > self.highest_stream {
            self.highest_stream = frame.stream;
            self.opened += 1;
            self.opens = Some(Block::Open);
        }
        let is_head = matches!(frame.kind, HEADERS | CONTINUATION);
        match self.opens {
            Some(Block::Open) if is_head && frame.flags & END_HEADERS != 0 => self.opens = Some(Block::Last),
            // The next frame comes after the whole of the last one.
            Some(Block::Last) => self.opens = None,
            _ => {}
        }
        let limits = &self.limits;
        match frame.kind {
            DATA | HEADERS | CONTINUATION => {
                let carries = frame.length > 0 || frame.flags & FIRST_FLAG != 0;
                self.empty = if carries { 0 } else { self.empty + 1 };
                (self.empty <= limits.empty_in_a_row).then_some(()).ok_or(Abuse::Empty)
            }
            PRIORITY => {
                self.priorities += 1;
                let most = u64::from(limits.priorities_per_stream).saturating_mul(1 + self.opened);
                (self.priorities <= most).then_some(()).ok_or(Abuse::Priorities)
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let for_data = u64::from(limits.window_updates_per_data_frame).saturating_mul(self.data_sent);
                let most = self.opened.saturating_add(for_data).saturating_mul(2).saturating_add(5);
                (self.window_updates <= most).then_some(()).ok_or(Abuse::WindowUpdates)
            }
            _ => Ok(()),
        }
    }

    fn counter(&self, abuse: Abuse) -> &Counter {
        let server = self.stats.server();
        match abuse {
            Abuse::NoSettings => &server.http2_settings_missing,
            Abuse::Priorities => &server.http2_inbound_priority_frames_flood,
            Abuse::WindowUpdates => &server.http2_inbound_window_update_frames_flood,
            Abuse::Empty => &server.http2_inbound_empty_frames_flood,
        }
    }
}

impl Abuse {
    fn what(self) -> &'static str {
        match self {
            Self::NoSettings => "the first HTTP/2 frame is not SETTINGS",
            Self::Priorities => "too many PRIORITY frames",
            Self::WindowUpdates => "too many WINDOW_UPDATE frames",
            Self::Empty => "too many frames that carry nothing",
        }
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// Without padding.
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Heads {
    /// The head in progress; with the length of the padding, where it matters.
    head: [u8; HEAD + 1],
    have: usize,
    /// Bytes until the next head.
    skip: usize,
}

impl Heads {
    /// The next frame whose head is complete. `None`: all bytes are used up.
    fn next(&mut self, bytes: &mut &[u8], with_padding: bool) -> Option<Frame> {
        let skipped = self.skip.min(bytes.len());
        *bytes = &bytes[skipped..];
        self.skip -= skipped;
        loop {
            let wanted = if self.have >= HEAD && with_padding && self.is_padded() { HEAD + 1 } else { HEAD };
            if self.have == wanted {
                break;
            }
            let taken = (wanted - self.have).min(bytes.len());
            if taken == 0 {
                return None;
            }
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            *bytes = &bytes[taken..];
        }
        let payload = self.payload();
        let read = self.have - HEAD;
        let padding = if read > 0 { 1 + usize::from(self.head[HEAD]) } else { 0 };
        let [.., kind, flags, a, b, c, d, _] = self.head;
        self.skip = payload - read;
        self.have = 0;
        let stream = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        Some(Frame { length: payload.saturating_sub(padding), kind, flags, stream })
    }

    fn payload(&self) -> usize {
        let [a, b, c, ..] = self.head;
        u32::from_be_bytes([0, a, b, c]) as usize
    }

    fn is_padded(&self) -> bool {
        matches!(self.head[3], DATA | HEADERS) && self.head[4] & PADDED != 0 && self.payload() > 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn watch() -> FrameWatch {
        let mut watch = FrameWatch::new(FrameLimits::default(), Stats::new());
        watch.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        watch
    }

    /// A connection that has sent its settings.
    fn begun() -> FrameWatch {
        let mut watch = watch();
        watch.received(&frame(SETTINGS, 0, 0, &[0; 6])).unwrap();
        watch
    }

    /// How many of these it takes.
    fn taken(watch: &mut FrameWatch, bytes: &[u8]) -> usize {
        (0..100_000).find(|_| watch.received(bytes).is_err()).unwrap_or(100_000)
    }

    #[test]
    fn settings_come_first() {
        assert!(watch().received(&frame(6, 0, 0, &[0; 8])).is_err());
        assert!(watch().received(&frame(SETTINGS, FIRST_FLAG, 0, &[])).is_err());
        let watch = watch();
        assert_eq!(watch.stats.server().http2_settings_missing.get(), 0);
        begun().received(&frame(6, 0, 0, &[0; 8])).unwrap();
    }

    #[test]
    fn what_brings_nothing_is_counted() {
        let empty = frame(DATA, 0, 1, &[]);
        assert_eq!(taken(&mut begun(), &empty), 1);
        assert_eq!(taken(&mut begun(), &frame(DATA, PADDED, 1, &[2, 0, 0])), 1);
        assert_eq!(taken(&mut begun(), &frame(CONTINUATION, 0, 1, &[])), 1);
        assert_eq!(taken(&mut begun(), &frame(DATA, PADDED, 1, &[1, 7, 0])), 100_000);
        assert_eq!(taken(&mut begun(), &frame(DATA, FIRST_FLAG, 1, &[])), 100_000);
        // Something in between begins anew.
        let between = [empty.clone(), frame(DATA, 0, 1, b"x")].concat();
        assert_eq!(taken(&mut begun(), &between), 100_000);
    }

    #[test]
    fn priorities_and_windows_are_in_proportion() {
        let priority = frame(PRIORITY, 0, 1, &[0; 5]);
        let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        assert_eq!(taken(&mut begun(), &priority), 100);
        assert_eq!(taken(&mut begun(), &update), 5);
        let busy = || {
            let mut busy = begun();
            for stream in [1, 3, 5] {
                busy.received(&frame(HEADERS, 5, stream, b"x")).unwrap();
            }
            // Trailers open nothing.
            busy.received(&frame(HEADERS, 5, 5, b"x")).unwrap();
            let data = frame(DATA, 0, 1, &[0; 100]);
            busy.sent([&data[..], &data[..], &frame(HEADERS, 4, 1, b"x")], 1000);
            busy
        };
        let (mut updating, mut preferring) = (busy(), busy());
        assert_eq!(taken(&mut updating, &update), 5 + 2 * (3 + 10 * 2));
        assert_eq!(taken(&mut preferring, &priority), 100 * 4);
        assert_eq!(preferring.stats.server().http2_inbound_priority_frames_flood.get(), 1);
        assert_eq!(updating.stats.server().http2_inbound_window_update_frames_flood.get(), 1);
    }

    #[test]
    fn only_what_was_written_was_sent() {
        let mut watch = begun();
        let data = frame(DATA, 0, 1, &[0; 10]);
        watch.sent([&data[..], &data[..]], 8);
        assert_eq!(watch.data_sent, 0);
        watch.sent([&data[8..], &data[..]], 11 + 9);
        assert_eq!(watch.data_sent, 2);
    }

    #[test]
    fn pieces_do_not_matter() {
        let frames = [
            frame(HEADERS, 5 | PADDED, 1, &[1, 9, 0]),
            frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
            frame(PRIORITY, 0, 1, &[0; 5]),
            frame(DATA, 0, 1, &[7; 300]),
        ]
        .concat();
        let found = |sizes: usize| {
            let mut heads = Heads::default();
            let mut found = Vec::new();
            for piece in frames.chunks(sizes) {
                let mut piece = piece;
                while let Some(frame) = heads.next(&mut piece, true) {
                    found.push((frame.kind, frame.length, frame.stream));
                }
            }
            found
        };
        for sizes in 1..=frames.len() {
            assert_eq!(
                found(sizes),
                [(HEADERS, 1, 1), (DATA, 0, 1), (PRIORITY, 5, 1), (DATA, 300, 1)],
                "{sizes}"
            );
        }
    }
}
