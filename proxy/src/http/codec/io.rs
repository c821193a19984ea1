//! The bytes of one HTTP connection: counted, and with what was read ahead put back in front.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::FrameWatch;
use super::wire::Wire;
use crate::net::Stream;
use crate::stats::{ClusterStats, Counter, HttpStats};
use crate::worker::ConnectionHandle;

/// Which side of the proxy the connection is on: where its bytes are counted, and who hears that the client ended it.
#[derive(Debug)]
pub(crate) enum Side {
    /// With what follows the client's messages.
    Downstream(Arc<HttpStats>, Rc<ConnectionHandle>, Follow),
    /// With what is seen of it, unless it never is HTTP.
    Upstream(Arc<ClusterStats>, Option<Rc<Wire>>),
}

/// What follows the bytes of a client.
#[derive(Debug)]
pub(crate) enum Follow {
    /// HTTP/1 looks after itself; and what is HTTP no more is not followed.
    Nothing,
    Http2(Box<FrameWatch>),
}

impl Side {
    fn received(&self) -> &Counter {
        match self {
            Side::Downstream(stats, ..) => &stats.downstream_cx_rx_bytes_total,
            Side::Upstream(stats, _) => &stats.upstream_cx_rx_bytes_total,
        }
    }

    fn sent(&self) -> &Counter {
        match self {
            Side::Downstream(stats, ..) => &stats.downstream_cx_tx_bytes_total,
            Side::Upstream(stats, _) => &stats.upstream_cx_tx_bytes_total,
        }
    }

    fn peer_has_ended(&self) {
        if let Side::Downstream(_, handle, _) = self {
            handle.client_has_ended();
        }
    }

    fn peer_has_broken(&self, error: &io::Error) {
        self.peer_has_ended();
        if let (Side::Downstream(_, handle, _), io::ErrorKind::ConnectionReset) = (self, error.kind()) {
            handle.record.was_reset.set(true);
        }
    }

    fn wire(&self) -> Option<&Wire> {
        match self {
            Side::Upstream(_, wire) => wire.as_deref(),
            Side::Downstream(..) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Io {
    /// To be read first, as if it had just come.
    read_ahead: Bytes,
    /// To be read before all else; it was counted and followed when it came.
    put_back: Bytes,
    stream: Stream,
    side: Side,
}

impl Io {
    pub(crate) fn new(stream: Stream, read_ahead: Bytes, side: Side) -> Self {
        Self { read_ahead, put_back: Bytes::new(), stream, side }
    }

    /// Bytes that were read from here and not used.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        // Even an empty piece holds the whole buffer that it was cut from.
        self.put_back = if bytes.is_empty() { Bytes::new() } else { bytes };
    }

    fn follow_sent<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        written: &Poll<io::Result<usize>>,
    ) {
        if let (Side::Downstream(_, _, Follow::Http2(frames)), Poll::Ready(Ok(written))) =
            (&mut self.side, written)
        {
            frames.sent(parts, *written);
        }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Side::Downstream(_, handle, _) = &self.side {
            handle.set_stalled(written.is_pending());
        }
        let wire = self.side.wire();
        match &written {
            Poll::Ready(Ok(n)) => {
                self.side.sent().inc_by(*n as u64);
                if let Side::Downstream(_, handle, _) = &self.side {
                    handle.record.has_sent(*n);
                }
                wire.inspect(|wire| wire.wrote(&self.stream, *n));
            }
            Poll::Ready(Err(error)) => {
                self.side.peer_has_broken(error);
                wire.inspect(|wire| wire.broke(&self.stream, error));
            }
            Poll::Pending => {}
        }
        written
    }
}

fn take_from(kept: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let n = kept.len().min(buf.remaining());
    buf.put_slice(&kept[..n]);
    kept.advance(n);
    if kept.is_empty() {
        // It would hold the buffer that it was cut from.
        *kept = Bytes::new();
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.put_back.is_empty() {
            take_from(&mut self.put_back, buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if self.read_ahead.is_empty() {
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
            if let Err(error) = &read {
                self.side.peer_has_broken(error);
                self.side.wire().inspect(|wire| wire.broke(&self.stream, error));
            } else if buf.filled().len() == before && buf.remaining() > 0 {
                self.side.peer_has_ended();
                self.side.wire().inspect(|wire| wire.read_end(&self.stream));
            }
            read?;
        } else {
            take_from(&mut self.read_ahead, buf);
        }
        let read = &buf.filled()[before..];
        self.side.received().inc_by(read.len() as u64);
        match &mut self.side {
            Side::Upstream(_, wire) => {
                wire.as_ref().inspect(|wire| wire.read(read.len()));
            }
            Side::Downstream(stats, handle, follow) => {
                handle.record.has_received(read.len());
                if let Follow::Http2(frames) = follow
                    && let Err(error) = frames.received(read)
                {
                    stats.downstream_cx_protocol_error.inc();
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.follow_sent([buf], &written);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.follow_sent(bufs.iter().map(|part| &**part), &written);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS may have kept bytes until now.
        self.side.wire().inspect(|wire| wire.wrote(&self.stream, 0));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
