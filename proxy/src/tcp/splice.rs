//! One direction between two TCP sockets through a kernel pipe: bytes are never copied into this process.
//!
//! The pipe is filled only when it is empty, so that "would block" always means the socket. Pipes are two descriptors each and are
//! held only by bulk transfers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::buffered::Progress;
use super::copy::{Broken, FAIR_BYTES};

/// Capacity asked for, in bytes; the kernel's default stays when the user is over its limit.
const PIPE_BYTES: usize = 512 << 10;
/// Fewer bytes than this before the source runs dry: no longer a bulk transfer.
const CHATTY_BYTES: usize = 16 << 10;
/// Empty pipes that a thread keeps.
const KEPT_PIPES: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Splice {
    /// `None` only while it is dropped.
    pipe: Option<Pipe>,
    in_pipe: usize,
    last_fill: usize,
    ended: bool,
}

impl Splice {
    /// `None` when no pipe can be had (out of file descriptors).
    pub(super) fn new() -> Option<Self> {
        let pipe = FREE.with(|free| free.borrow_mut().pop()).or_else(|| {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // A smaller pipe works too.
            let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
            Some(Pipe { read, write })
        })?;
        Some(Self { pipe: Some(pipe), in_pipe: 0, last_fill: usize::MAX, ended: false })
    }

    /// Moves bytes until one side has to be waited for, the source ends, or the transfer is no longer bulk.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        destination: &TcpStream,
        moved: &Cell<u64>,
    ) -> Poll<Result<Progress, Broken>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(Progress::Unsupported)) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let fair = moved.get() + FAIR_BYTES;
        loop {
            while self.in_pipe > 0 {
                ready!(destination.poll_write_ready(cx)).map_err(Broken::Destination)?;
                let pushed = destination.try_io(Interest::WRITABLE, || {
                    Ok(splice(&pipe.read, None, destination, None, self.in_pipe, flags)?)
                });
                match pushed {
                    Ok(n) => {
                        self.in_pipe -= n;
                        moved.set(moved.get() + n as u64);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Poll::Ready(Err(Broken::Destination(e))),
                }
            }
            if self.ended {
                // A peer that is gone altogether needs not be told.
                let _ = SockRef::from(destination).shutdown(Shutdown::Write);
                return Poll::Ready(Ok(Progress::Ended));
            }
            if moved.get() >= fair {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if source.poll_read_ready(cx).map_err(Broken::Source)?.is_pending() {
                // The buffered direction waits for less: no pipe, and fewer system calls for small pieces.
                return match self.last_fill < CHATTY_BYTES {
                    true => Poll::Ready(Ok(Progress::Chatty)),
                    false => Poll::Pending,
                };
            }
            let pulled = source.try_io(Interest::READABLE, || {
                Ok(splice(source, None, &pipe.write, None, PIPE_BYTES, flags)?)
            });
            match pulled {
                Ok(0) => self.ended = true,
                Ok(n) => (self.in_pipe, self.last_fill) = (n, n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    return Poll::Ready(Ok(Progress::Unsupported));
                }
                Err(e) => return Poll::Ready(Err(Broken::Source(e))),
            }
        }
    }
}

/// Whether this thread has used a pipe before.
#[cfg(test)]
pub(super) fn has_spliced() -> bool {
    FREE.with(|free| !free.borrow().is_empty())
}

impl Drop for Splice {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take()
            && self.in_pipe == 0
        {
            // While a thread ends its list is gone: the pipe is closed.
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT_PIPES {
                    free.push(pipe);
                }
            });
        }
    }
}
