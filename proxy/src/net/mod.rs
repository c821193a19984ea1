//! Sockets: addresses, listening, connecting, looking ahead, options. The only room with `unsafe`, each use with a SAFETY comment.
//!
//! Runs on every runtime: main binds and hands listening sockets to the workers, workers accept and connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

mod acknowledged;
mod buffer;
mod connect;
mod dns;
mod host_port;
mod listen;
mod original_dst;
mod peek;
mod read_ahead;
mod resolve;

pub use buffer::{Buffer, BufferSize};
pub use connect::connect;
pub use dns::{Answer, DnsOptions, LookupFamily, Resolver, ResolverSettings, Resolvers};
pub use host_port::HostPort;
pub use listen::{ListenOptions, ListenSocket, bind_listeners};
pub use read_ahead::ReadAhead;
pub use resolve::Target;

/// Where something listens or connects: `envoy.config.core.v3.Address`, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `socket_address`.
    Ip(SocketAddr),
    /// `pipe`: a path, or an abstract name that starts with `@`.
    Pipe(Arc<PathBuf>),
}

impl Address {
    /// The IP address, unless it is a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Ip(a) => Some(a.ip()),
            Address::Pipe(_) => None,
        }
    }

    /// The TCP port, unless it is a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Ip(a) => Some(a.port()),
            Address::Pipe(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    /// An IPv4 peer of a dual-stack socket is an IPv4 peer: `::ffff:a.b.c.d` becomes `a.b.c.d`.
    fn from(address: SocketAddr) -> Self {
        Address::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl From<&std::os::unix::net::SocketAddr> for Address {
    /// One without a name (the usual client) is an empty path.
    fn from(address: &std::os::unix::net::SocketAddr) -> Self {
        use std::os::linux::net::SocketAddrExt;
        let path = match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => path.to_path_buf(),
            (None, Some(name)) => {
                let mut text = std::ffi::OsString::from("@");
                text.push(std::ffi::OsStr::from_bytes(name));
                PathBuf::from(text)
            }
            (None, None) => PathBuf::new(),
        };
        Address::Pipe(Arc::new(path))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(a) => a.fmt(f),
            Address::Pipe(p) => p.display().fmt(f),
        }
    }
}

/// `core.v3.TcpKeepalive`: idle time before the first probe, time between probes, probes until the peer is given up.
pub type Keepalive = (Duration, Duration, u32);

/// A connected byte stream, downstream or upstream, with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS, we are the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<ReadAhead>>),
    /// TLS, we are the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<ReadAhead>>),
}

impl Stream {
    /// Whether bytes are encrypted on the way.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::TlsServer(_) | Stream::TlsClient(_))
    }

    /// When this stream is dropped the peer gets a reset instead of an orderly end, so that it does not take a broken transfer
    /// for a complete one.
    pub fn reset_on_close(&self) {
        // A socket that is already gone has no peer to tell.
        let _ = SockRef::from(&self.as_fd()).set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
            Stream::TlsServer(s) => s.get_ref().0.get_ref().as_fd(),
            Stream::TlsClient(s) => s.get_ref().0.get_ref().as_fd(),
        }
    }
}

/// A connected socket below TLS.
#[derive(Debug)]
pub enum RawStream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
}

impl RawStream {
    /// Our end.
    ///
    /// # Errors
    /// The socket is no longer connected.
    pub fn local_address(&self) -> io::Result<Address> {
        match self {
            RawStream::Tcp(s) => s.local_addr().map(Address::from),
            RawStream::Unix(s) => s.local_addr().map(|a| Address::from(&a.into())),
        }
    }

    /// The peer's end.
    ///
    /// # Errors
    /// The socket is no longer connected.
    pub fn peer_address(&self) -> io::Result<Address> {
        match self {
            RawStream::Tcp(s) => s.peer_addr().map(Address::from),
            RawStream::Unix(s) => s.peer_addr().map(|a| Address::from(&a.into())),
        }
    }
}

impl AsFd for RawStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            RawStream::Tcp(s) => s.as_fd(),
            RawStream::Unix(s) => s.as_fd(),
        }
    }
}

impl From<RawStream> for Stream {
    fn from(raw: RawStream) -> Self {
        match raw {
            RawStream::Tcp(s) => Stream::Tcp(s),
            RawStream::Unix(s) => Stream::Unix(s),
        }
    }
}

macro_rules! delegate {
    ($type:ident { $($variant:ident),* }) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_read(cx, buf)),* }
            }
        }
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_write(cx, buf)),* }
            }
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_write_vectored(cx, bufs)),* }
            }
            fn is_write_vectored(&self) -> bool {
                match self { $($type::$variant(s) => s.is_write_vectored()),* }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_flush(cx)),* }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_shutdown(cx)),* }
            }
        }
    };
}

delegate!(Stream { Tcp, Unix, TlsServer, TlsClient });
delegate!(RawStream { Tcp, Unix });
