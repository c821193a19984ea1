//! Where a connection was going before the packet filter redirected it to us.

use std::net::SocketAddr;

use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};

use super::{Address, RawStream};

impl RawStream {
    /// The destination that the peer had asked for (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`), as the kernel's connection
    /// tracking remembers it: our own end for a connection that was tracked but not redirected, `None` for one that was not
    /// tracked, and for Unix sockets. `local` is our end, as `local_address` tells it.
    pub fn original_destination(&self, local: &Address) -> Option<SocketAddr> {
        // An IPv4 peer of a dual-stack socket is tracked as an IPv4 connection.
        match local.ip()?.is_ipv4() {
            true => ip_original_dst(self).ok().map(SocketAddr::V4),
            false => ipv6_original_dst(self).ok().map(SocketAddr::V6),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_went_to_us_if_anywhere() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        // Whether loopback connections are tracked is the machine's business.
        let found = RawStream::Tcp(accepted).original_destination(&Address::Ip(address));
        assert!(found.is_none_or(|found| found == address), "{found:?}");
    }

    #[tokio::test]
    async fn a_unix_socket_has_none() {
        let (near, _far) = UnixStream::pair().unwrap();
        let near = RawStream::Unix(near);
        assert_eq!(near.original_destination(&near.local_address().unwrap()), None);
    }
}
