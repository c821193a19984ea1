//! The other end of an accepted connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Identity;

/// The other end of an accepted connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: PeerAddress,
    /// The identity in the client certificate, checked against our CA in the handshake; `None` on a plaintext
    /// connection and for a client without a certificate.
    pub certificate: Option<Identity>,
}

impl Peer {
    /// The peer of a call. Every connection that the server accepts carries one, so an error is a mistake in the
    /// server's wiring; the call is refused then.
    pub fn of(extensions: &tonic::Extensions) -> Result<&Self, tonic::Status> {
        extensions.get().ok_or_else(|| tonic::Status::internal("the connection's peer is not known"))
    }
}

/// Where a connection comes from. It proves nothing, not even on a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// TCP.
    Ip(SocketAddr),
    /// The Unix socket, with the id of the process that connected, if the system tells it.
    Unix(Option<i32>),
}

impl PeerAddress {
    /// Whose wrong tokens are counted together: those of one IP address, or all that come by the Unix socket (`None`).
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(Some(process)) => write!(f, "unix (process {process})"),
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}
