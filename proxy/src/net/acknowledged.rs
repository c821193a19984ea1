//! How much of what was written has reached the peer's system.

use std::os::fd::{AsFd, AsRawFd};

use super::Stream;

/// Where `tcp_info` of `linux/tcp.h` has `tcpi_bytes_acked` (since Linux 4.1), and its end.
const BYTES_ACKED: usize = 120;
const BYTES_ACKED_END: usize = BYTES_ACKED + 8;

impl Stream {
    /// Bytes written to the socket that the peer's system has acknowledged (RFC 4898, `tcpEStatsAppHCThruOctetsAcked`), of a connection
    /// that was made from here; with TLS these are more bytes than went through the stream. `None`: not TCP, or the system does not say.
    pub fn acknowledged(&self) -> Option<u64> {
        if matches!(self, Stream::Unix(_)) {
            return None;
        }
        let acked = tcp_info(self)?;
        // Who connects has sent a SYN, which counts as one.
        Some(acked.saturating_sub(1))
    }
}

#[allow(unsafe_code)]
fn tcp_info(stream: &Stream) -> Option<u64> {
    let mut info = [0u8; BYTES_ACKED_END];
    let mut length = BYTES_ACKED_END as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call, and the buffer is as long as `length` says.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let is_whole = failed == 0 && length as usize == BYTES_ACKED_END;
    let bytes = info[BYTES_ACKED..].try_into().ok()?;
    is_whole.then(|| u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    #[tokio::test]
    async fn what_comes_after_the_end_is_never_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut near = Stream::Tcp(near);
        assert_eq!(near.acknowledged(), Some(0));
        near.write_all(b"abc").await.unwrap();
        far.read_exact(&mut [0; 3]).await.unwrap();
        far.write_all(b"d").await.unwrap();
        near.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(near.acknowledged(), Some(3));
        drop(far);
        near.write_all(b"efg").await.unwrap();
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0, "its end came before its reset");
        assert_eq!(near.acknowledged(), Some(3));
    }

    #[tokio::test]
    async fn what_was_read_before_the_end_is_acknowledged_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut near = Stream::Tcp(near);
        near.write_all(b"abc").await.unwrap();
        far.read_exact(&mut [0; 3]).await.unwrap();
        drop(far);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(near.acknowledged(), Some(3));
    }

    #[tokio::test]
    async fn unix_sockets_do_not_say() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(Stream::Unix(near).acknowledged(), None);
    }
}
