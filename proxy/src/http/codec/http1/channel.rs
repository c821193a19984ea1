//! The bytes of one HTTP/1 connection between its socket and its messages: what was read and is not used yet, what waits to be written.
//!
//! Shared by the task that serves the connection and by the body of the message that is being read, which may be polled elsewhere. Each
//! direction has one reader or writer at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::decode::{Decoder, Step};
use crate::http::codec::ReadError;
use crate::http::codec::io::Io;
use crate::stream_info::WireBytes;

/// What the first read of a message asks for; bodies that fill it are read in larger pieces.
const READ: usize = 8 << 10;
/// The largest read.
const MAX_READ: usize = 64 << 10;
/// With less room than this a read is not worth its system call.
const LEAST_ROOM: usize = 1 << 10;
/// Pieces up to this size are copied behind the head; larger ones are written from where they are.
const COPIED: usize = 2 << 10;
/// How many pieces one system call writes.
const PIECES: usize = 16;

#[derive(Debug)]
pub(super) struct Channel {
    /// `None`: the connection has left HTTP, or rests.
    io: Option<Io>,
    /// What was read and is not used yet.
    pub(super) input: BytesMut,
    read_size: usize,
    /// How the body of the message that is being read ends.
    pub(super) decoder: Decoder,
    /// The number of that message on its connection, from 1.
    pub(super) message: u64,
    output: Output,
    /// Bytes that came, and bytes that were given to be written, since the connection had its buffers.
    came: u64,
    given: u64,
    /// Where the present exchange began.
    begun: Position,
    /// Bytes of the header fields of the message that is being written.
    pub(super) fields_given: usize,
    /// How much may wait to be written before more is asked for; and no read is larger.
    limit: usize,
    /// A response is waited for, and its head is not here yet.
    pub(super) awaits_head: bool,
    /// The message whose answer has begun.
    pub(super) answered: u64,
    /// The message whose body nobody reads any more.
    pub(super) abandoned: u64,
    /// Who watches for the peer's end: told when a message has been read to its end.
    watcher: Option<Waker>,
    /// Who waits for bytes, and who waits to write some: told when the connection is given up meanwhile.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How far a connection has come, each way: what was read and used, and what was given to be written.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    used: u64,
    given: u64,
}

/// What waits to be written, in order: `pieces`, then `tail`.
#[derive(Debug, Default)]
struct Output {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Channel {
    pub(super) fn new(io: Io, limit: usize) -> Self {
        Self {
            io: Some(io),
            input: BytesMut::new(),
            read_size: READ,
            decoder: Decoder::None,
            message: 0,
            output: Output::default(),
            came: 0,
            given: 0,
            begun: Position::default(),
            fields_given: 0,
            limit,
            awaits_head: false,
            answered: 0,
            abandoned: 0,
            watcher: None,
            reader: None,
            writer: None,
        }
    }

    /// Ends it here: the connection, and what was read beyond the last message.
    pub(super) fn take(&mut self) -> Option<(Io, Bytes)> {
        let io = self.io.take()?;
        let waiting = [self.reader.take(), self.writer.take(), self.watcher.take()];
        waiting.into_iter().flatten().for_each(Waker::wake);
        let rest = std::mem::take(&mut self.input);
        Some((io, if rest.is_empty() { Bytes::new() } else { rest.freeze() }))
    }

    pub(super) fn is_open(&self) -> bool {
        self.io.is_some()
    }

    /// The next message begins, with this body.
    pub(super) fn begin(&mut self, body: Decoder) {
        self.message += 1;
        self.decoder = body;
        self.read_size = READ;
        self.awaits_head = false;
        self.tell_watcher();
    }

    fn tell_watcher(&mut self) {
        if self.decoder.is_done()
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
    }

    /// Reads more; 0: the peer has ended its side.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let room = self.input.capacity() - self.input.len();
        if room < LEAST_ROOM.max(self.read_size / 4) {
            self.input.reserve(self.read_size);
        }
        let room = self.input.capacity() - self.input.len();
        let Poll::Ready(read) = pin!(io.read_buf(&mut self.input)).poll(cx) else {
            remember(&mut self.reader, cx);
            return Poll::Pending;
        };
        let read = read?;
        self.came += read as u64;
        if read == room {
            self.read_size = (2 * self.read_size).min(MAX_READ).min(self.limit);
        }
        Poll::Ready(Ok(read))
    }

    /// The next part of the body of the present message.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        loop {
            let frame = match self.decoder.decode(&mut self.input) {
                Ok(Step::More) => match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) if self.decoder.ends_with_connection() => {
                        self.decoder = Decoder::None;
                        None
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(ReadError::Ended))),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => return Poll::Pending,
                },
                Ok(Step::Data(data)) => Some(Frame::data(data)),
                Ok(Step::Trailers(trailers)) => Some(Frame::trailers(trailers)),
                Ok(Step::End) => None,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            self.tell_watcher();
            return Poll::Ready(frame.map(Ok));
        }
    }

    /// Whether the present message has been read to its end. What is here of a body that nobody wants is forgotten.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.abandoned == self.message {
            while matches!(self.decoder.decode(&mut self.input), Ok(Step::Data(_) | Step::Trailers(_))) {}
        }
        self.decoder.is_done()
    }

    /// Ready when the peer has ended the connection in front of its next message. That message may begin meanwhile: it waits.
    pub(super) fn poll_peer_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        remember(&mut self.watcher, cx);
        if self.awaits_head || !self.decoder.is_done() || !self.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_fill(cx)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Lets a head be written behind all else.
    pub(super) fn put_head<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        let before = self.output.tail.len();
        let written = write(&mut self.output.tail);
        self.will_write(self.output.tail.len() - before);
        written
    }

    /// To be written behind all else.
    pub(super) fn put(&mut self, bytes: Bytes) {
        self.will_write(bytes.len());
        if bytes.len() <= COPIED {
            self.output.tail.extend_from_slice(&bytes);
            return;
        }
        if !self.output.tail.is_empty() {
            let tail = self.output.tail.split().freeze();
            self.output.pieces.push_back(tail);
        }
        self.output.pieces.push_back(bytes);
    }

    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        self.will_write(bytes.len());
        self.output.tail.extend_from_slice(bytes);
    }

    fn will_write(&mut self, bytes: usize) {
        self.output.bytes += bytes;
        self.given += bytes as u64;
    }

    fn position(&self) -> Position {
        Position { used: self.came - self.input.len() as u64, given: self.given }
    }

    /// An exchange begins: its bytes are counted from here.
    pub(super) fn begin_exchange(&mut self) {
        self.begun = self.position();
        self.fields_given = 0;
    }

    /// The bytes of the present exchange, without the fields of what was read.
    fn exchanged(&self) -> WireBytes {
        let now = self.position();
        WireBytes {
            received: now.used - self.begun.used,
            sent: now.given - self.begun.given,
            fields_received: 0,
            fields_sent: self.fields_given as u64,
        }
    }

    /// Whether so much waits that no more should come.
    pub(super) fn is_full(&self) -> bool {
        self.output.bytes >= self.limit
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.output.bytes == 0
    }

    /// Writes all that waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let mut io = Pin::new(io);
        while self.output.bytes > 0 {
            let Poll::Ready(written) = self.output.poll_write(cx, io.as_mut()) else {
                remember(&mut self.writer, cx);
                return Poll::Pending;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        io.poll_flush(cx)
    }
}

impl Output {
    fn poll_write(&self, cx: &mut Context<'_>, io: Pin<&mut Io>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return io.poll_write(cx, &self.tail);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let all = self.pieces.iter().map(|piece| &**piece).chain([&*self.tail]);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        self.tail.advance(written);
    }
}

/// Counts the bytes of the present exchange of a connection.
#[derive(Debug)]
pub(crate) struct Meter(Rc<RefCell<Channel>>);

impl Meter {
    pub(super) fn new(channel: &Rc<RefCell<Channel>>) -> Self {
        Self(channel.clone())
    }

    /// What there was so far, without the fields of what was read.
    pub(crate) fn read(&self) -> WireBytes {
        self.0.borrow().exchanged()
    }
}

/// Keeps the task that polls, to be woken.
fn remember(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
        *kept = Some(cx.waker().clone());
    }
}
