//! One direction through a buffer: for TLS, Unix sockets and small messages.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::copy::{Broken, FAIR_BYTES};
use crate::net::{Buffer, BufferSize, Stream};

/// What a direction has come to, with nothing left to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The source has ended and the destination was told.
    Ended,
    /// Buffers come out full: a bulk transfer.
    Bulk,
    /// Small pieces again.
    Chatty,
    /// The kernel cannot move bytes between these two.
    Unsupported,
}

/// The state of one direction. The buffer is there only while it has bytes in it.
#[derive(Debug)]
pub(super) struct Buffered {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// The size to take next; it grows when a buffer comes out full.
    size: BufferSize,
    ended: bool,
    /// Something was written since the last flush.
    unflushed: bool,
    /// Bulk is reported, not copied here.
    report_bulk: bool,
}

impl Buffered {
    /// A direction with nothing under way. With `report_bulk` somebody else takes over bulk transfers.
    pub(super) fn new(report_bulk: bool) -> Self {
        Self {
            buffer: None,
            start: 0,
            end: 0,
            size: BufferSize::Small,
            ended: false,
            unflushed: false,
            report_bulk,
        }
    }

    /// Moves bytes until one side has to be waited for, the source ends, or the transfer turns out to be bulk.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        destination: &mut Stream,
        moved: &Cell<u64>,
    ) -> Poll<Result<Progress, Broken>> {
        let fair = moved.get() + FAIR_BYTES;
        loop {
            if let Some(buffer) = &self.buffer {
                while self.start < self.end {
                    let written = Pin::new(&mut *destination).poll_write(cx, &buffer[self.start..self.end]);
                    match ready!(written).map_err(Broken::Destination)? {
                        0 => return Poll::Ready(Err(Broken::Destination(io::ErrorKind::WriteZero.into()))),
                        n => {
                            self.start += n;
                            self.unflushed = true;
                            moved.set(moved.get() + n as u64);
                        }
                    }
                }
            }
            if self.ended {
                self.buffer = None;
                // Shutting down flushes first.
                ready!(Pin::new(&mut *destination).poll_shutdown(cx))
                    .or_else(gone)
                    .map_err(Broken::Destination)?;
                return Poll::Ready(Ok(Progress::Ended));
            }
            if moved.get() >= fair {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.report_bulk && self.size == BufferSize::Large {
                return Poll::Ready(Ok(Progress::Bulk));
            }
            self.fill(cx, source).map_err(Broken::Source)?;
            if self.end > 0 || self.ended {
                continue;
            }
            self.buffer = None;
            if self.unflushed {
                ready!(Pin::new(&mut *destination).poll_flush(cx)).map_err(Broken::Destination)?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
    }

    /// Reads as much as there is and fits. Leaves `end` at 0 when there is nothing now; then the task is woken later.
    fn fill(&mut self, cx: &mut Context<'_>, source: &mut Stream) -> io::Result<()> {
        (self.start, self.end) = (0, 0);
        if self.buffer.as_ref().is_none_or(|b| b.size() != self.size) {
            self.buffer = Some(Buffer::take(self.size));
        }
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        while self.end < buffer.len() {
            let mut free = ReadBuf::new(&mut buffer[self.end..]);
            match Pin::new(&mut *source).poll_read(cx, &mut free) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if free.filled().is_empty() => {
                    self.ended = true;
                    break;
                }
                Poll::Ready(Ok(())) => self.end += free.filled().len(),
                // A TLS peer that just closes: what it sent is passed on, and its end too.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                    break;
                }
                // What was read before is delivered first; the next read fails again.
                Poll::Ready(Err(_)) if self.end > 0 => break,
                Poll::Ready(Err(e)) => return Err(e),
            }
        }
        self.size = match self.end {
            n if n == buffer.len() => self.size.grown(),
            n if n < BufferSize::Small.bytes() / 4 => BufferSize::Small,
            _ => self.size,
        };
        Ok(())
    }
}

/// A peer that is gone altogether needs not be told that we have nothing more to send.
fn gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}
