//! Connections and streams that have left HTTP: bytes from here on, whatever carries them.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::Tunnel;
use super::io::{Io, Side};
use crate::cluster::Cluster;
use crate::net::Stream;

/// One end of an exchange in another protocol.
#[derive(Debug)]
pub(crate) enum Switched {
    /// A whole HTTP/1 connection, or one that never was HTTP.
    Http1 {
        /// What was read beyond the head.
        read: Bytes,
        /// The connection.
        io: Io,
        /// What is held as long as the connection lives.
        _guard: Option<Box<dyn Any>>,
    },
    /// One stream of an HTTP/2 connection.
    Http2(Tunnel),
}

/// A connection that never was HTTP, to the end of a tunnel.
pub(crate) fn plain(cluster: &Cluster, stream: Stream, guard: impl Sized + 'static) -> Switched {
    let io = Io::new(stream, Bytes::new(), Side::Upstream(cluster.stats.clone(), None));
    Switched::Http1 { read: Bytes::new(), io, _guard: Some(Box::new(guard)) }
}

impl AsyncRead for Switched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1 { read, .. } if !read.is_empty() => {
                let n = read.len().min(buf.remaining());
                buf.put_slice(&read[..n]);
                read.advance(n);
                Poll::Ready(Ok(()))
            }
            Self::Http1 { io, .. } => Pin::new(io).poll_read(cx, buf),
            Self::Http2(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Switched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1 { io, .. } => Pin::new(io).poll_write(cx, buf),
            Self::Http2(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1 { io, .. } => Pin::new(io).poll_flush(cx),
            Self::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1 { io, .. } => Pin::new(io).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
