//! Clients: raw HTTP/1 over plain TCP or TLS, HTTP/2, and the TLS settings of both.

mod http1;
mod http2;
mod tls;

pub use http1::RawClient;
pub use http2::Http2Client;
pub use tls::Tls;

use std::net::SocketAddr;

use crate::message::Response;

/// One `GET` on a connection of its own.
///
/// # Panics
/// When there is no whole response.
#[track_caller]
pub fn get(addr: SocketAddr, host: &str, path: &str) -> Response {
    let mut client = RawClient::connect(addr).expect("connect");
    client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes());
    client.response().unwrap_or_else(|error| panic!("GET {path} from {addr}: {error}"))
}
