//! The socket under a TLS session, with a buffer that appears only in bulk transfers.
//!
//! rustls asks its socket for 4 KiB at a time: five system calls for one 16 KiB record. As soon as such a read is filled to the
//! brim more is waiting, and the following reads take it in 64 KiB steps. A quiet or chatty connection has no buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Buffer, BufferSize, RawStream};

/// See the module.
#[derive(Debug)]
pub struct ReadAhead {
    raw: RawStream,
    /// Present while reads come out full; `start..end` is read from the socket and not yet asked for.
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// Bytes that the socket has taken.
    written: u64,
}

impl ReadAhead {
    /// Reads through until the first full read.
    pub fn new(raw: RawStream) -> Self {
        Self { raw, buffer: None, start: 0, end: 0, written: 0 }
    }

    /// The socket.
    pub fn get_ref(&self) -> &RawStream {
        &self.raw
    }

    /// Bytes that the socket has taken so far, with all that TLS adds.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &written {
            self.written += *n as u64;
        }
        written
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(buffer) = &mut this.buffer else {
            let room = out.remaining();
            ready!(Pin::new(&mut this.raw).poll_read(cx, out))?;
            if room >= 4096 && out.remaining() == 0 {
                this.buffer = Some(Buffer::take(BufferSize::Medium));
            }
            return Poll::Ready(Ok(()));
        };
        if this.start == this.end {
            let mut ahead = ReadBuf::new(buffer);
            if Pin::new(&mut this.raw).poll_read(cx, &mut ahead)?.is_pending() {
                this.buffer = None;
                return Poll::Pending;
            }
            this.start = 0;
            this.end = ahead.filled().len();
        }
        let n = out.remaining().min(this.end - this.start);
        out.put_slice(&buffer[this.start..this.start + n]);
        this.start += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.raw).poll_write(cx, buf);
        self.count(written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.raw).poll_write_vectored(cx, bufs);
        self.count(written)
    }
    fn is_write_vectored(&self) -> bool {
        self.raw.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn bytes_come_in_order_and_the_buffer_goes_when_it_is_quiet() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut ahead = ReadAhead::new(RawStream::Unix(near));
        let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let writer = tokio::spawn({
            let sent = sent.clone();
            async move {
                far.write_all(&sent).await.unwrap();
                far
            }
        });
        let mut got = Vec::new();
        let mut chunk = [0; 4096];
        let mut buffered = false;
        while got.len() < sent.len() {
            let n = ahead.read(&mut chunk).await.unwrap();
            got.extend_from_slice(&chunk[..n]);
            buffered |= ahead.buffer.is_some();
        }
        assert!(buffered, "full reads must switch the buffer on");
        assert_eq!(got, sent);
        let far = writer.await.unwrap();
        std::future::poll_fn(|cx| {
            let mut out = ReadBuf::new(&mut chunk);
            assert!(Pin::new(&mut ahead).poll_read(cx, &mut out).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(ahead.buffer.is_none(), "a quiet connection holds no buffer");
        drop(far);
        assert_eq!(ahead.read(&mut chunk).await.unwrap(), 0);
    }
}
