//! Looking at the first bytes of a connection without taking them.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::RawStream;

impl RawStream {
    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            RawStream::Tcp(s) => s.readable().await,
            RawStream::Unix(s) => s.readable().await,
        }
    }

    /// Waits until more than `seen` bytes have arrived and copies as much as fits into `buf`, leaving everything in the socket.
    /// Gives the number of bytes copied; one that is not more than `seen` means that the peer has ended its side.
    /// Waits for events only: data that does not grow costs nothing.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn peek(&self, buf: &mut [u8], seen: usize) -> io::Result<usize> {
        loop {
            let ready = match self {
                RawStream::Tcp(s) => s.ready(Interest::READABLE).await?,
                RawStream::Unix(s) => s.ready(Interest::READABLE).await?,
            };
            let look = || match recv(self, &mut *buf, RecvFlags::PEEK)? {
                (_, n) if n > seen || n == 0 => Ok(n),
                // Not more than last time: waits for the next event. The event of the peer's end stays set.
                (_, n) if ready.is_read_closed() => Ok(n),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            };
            let looked = match self {
                RawStream::Tcp(s) => s.try_io(Interest::READABLE, look),
                RawStream::Unix(s) => s.try_io(Interest::READABLE, look),
            };
            match looked {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// The same socket, told about everything that is in it: after a `peek` that was given up, the next read would wait for an
    /// event that the `peek` has already used.
    ///
    /// # Errors
    /// The runtime cannot register the socket.
    pub fn rearm(self) -> io::Result<Self> {
        match self {
            RawStream::Tcp(s) => TcpStream::from_std(s.into_std()?).map(RawStream::Tcp),
            RawStream::Unix(s) => UnixStream::from_std(s.into_std()?).map(RawStream::Unix),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_stay_in_the_socket_and_waiting_ends_with_more_of_them() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = RawStream::Unix(near);
        let mut buf = [0; 64];
        far.write_all(b"abc").await.unwrap();
        assert_eq!(near.peek(&mut buf, 0).await.unwrap(), 3);
        {
            let mut more = std::pin::pin!(near.peek(&mut buf, 3));
            std::future::poll_fn(|cx| {
                assert!(more.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            far.write_all(b"de").await.unwrap();
            assert_eq!(more.await.unwrap(), 5);
        }
        far.shutdown().await.unwrap();
        assert_eq!(near.peek(&mut buf, 5).await.unwrap(), 5, "the end is told by not growing");
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abcde");
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_after_giving_up() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = RawStream::Unix(near);
        let mut buf = [0; 64];
        far.write_all(b"abc").await.unwrap();
        near.peek(&mut buf, 0).await.unwrap();
        {
            let mut more = std::pin::pin!(near.peek(&mut buf, 3));
            std::future::poll_fn(|cx| {
                assert!(more.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        let mut near = near.rearm().unwrap();
        assert_eq!(near.read(&mut buf).await.unwrap(), 3);
    }
}
