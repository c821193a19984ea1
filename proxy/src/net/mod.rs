//! Sockets: addresses, listening, connecting, options. The only place with `unsafe` (if any), each with a SAFETY comment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Where something listens or connects: `envoy.config.core.v3.Address`, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `socket_address`.
    Ip(SocketAddr),
    /// `pipe`: a path, or an abstract name that starts with `@`.
    Pipe(Arc<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(a) => a.fmt(f),
            Address::Pipe(p) => p.display().fmt(f),
        }
    }
}

/// A connected byte stream, downstream or upstream, with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS, we are the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<RawStream>>),
    /// TLS, we are the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<RawStream>>),
}

/// A connected socket below TLS.
#[derive(Debug)]
pub enum RawStream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
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
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_read(cx, buf)),* }
            }
        }
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_write(cx, buf)),* }
            }
            fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[std::io::IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_write_vectored(cx, bufs)),* }
            }
            fn is_write_vectored(&self) -> bool {
                match self { $($type::$variant(s) => s.is_write_vectored()),* }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_flush(cx)),* }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                match self.get_mut() { $($type::$variant(s) => Pin::new(s).poll_shutdown(cx)),* }
            }
        }
    };
}

delegate!(Stream { Tcp, Unix, TlsServer, TlsClient });
delegate!(RawStream { Tcp, Unix });
