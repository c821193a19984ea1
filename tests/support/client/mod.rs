//! Clients: raw HTTP/1 over plain TCP or TLS, HTTP/2, and the TLS settings of both.

pub mod frames;
mod http1;
mod http2;
mod tls;

pub use http1::RawClient;
pub use http2::Http2Client;
pub use tls::Tls;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::message::Response;
use crate::wait::PATIENCE;

/// Sends over TCP, closes its half, and reads all that comes.
///
/// # Errors
/// What the kernel says, and answers that are no text.
pub fn talk(to: SocketAddr, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

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
