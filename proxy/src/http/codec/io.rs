//! The bytes of one HTTP connection: counted, and with what was read ahead put back in front.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;
use crate::stats::{ClusterStats, Counter, HttpStats};
use crate::worker::ConnectionHandle;

/// Where the bytes are counted.
#[derive(Debug, Clone)]
pub(crate) enum ByteCount {
    Downstream(Arc<HttpStats>),
    Upstream(Arc<ClusterStats>),
}

impl ByteCount {
    fn received(&self) -> &Counter {
        match self {
            ByteCount::Downstream(stats) => &stats.downstream_cx_rx_bytes_total,
            ByteCount::Upstream(stats) => &stats.upstream_cx_rx_bytes_total,
        }
    }

    fn sent(&self) -> &Counter {
        match self {
            ByteCount::Downstream(stats) => &stats.downstream_cx_tx_bytes_total,
            ByteCount::Upstream(stats) => &stats.upstream_cx_tx_bytes_total,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Io {
    read_ahead: Bytes,
    stream: Stream,
    count: ByteCount,
    received: Option<Rc<Cell<u64>>>,
    handle: Option<Rc<ConnectionHandle>>,
}

impl Io {
    pub(crate) fn new(stream: Stream, read_ahead: Bytes, count: ByteCount) -> Self {
        Self { read_ahead, stream, count, received: None, handle: None }
    }

    /// The peer is a client whose connection this is: it hears when the client takes nothing more.
    pub(crate) fn of_client(mut self, handle: Rc<ConnectionHandle>) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Takes note of whether the client takes what is written, which is what `written` says.
    fn noted<T>(&self, written: Poll<T>) -> Poll<T> {
        if let Some(handle) = &self.handle {
            handle.set_stalled(written.is_pending());
        }
        written
    }

    /// What the engine has taken so far is also counted here, in bytes.
    pub(crate) fn received_into(mut self, received: Rc<Cell<u64>>) -> Self {
        self.received = Some(received);
        self
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.read_ahead.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let n = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead[..n]);
            self.read_ahead.advance(n);
        }
        let n = (buf.filled().len() - before) as u64;
        self.count.received().inc_by(n);
        if let Some(received) = &self.received {
            received.set(received.get() + n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        let n = ready!(self.noted(written))?;
        self.count.sent().inc_by(n as u64);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        let n = ready!(self.noted(written))?;
        self.count.sent().inc_by(n as u64);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
