//! A raw HTTP/1 client: what it sends is exactly what the test wrote.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::Tls;
use crate::message::{Response, parse_head};
use crate::wait::{PATIENCE, within};
use crate::wire::{Framing, WireReader};

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub struct RawClient {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    reader: WireReader,
}

impl fmt::Debug for RawClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawClient").field(&self.socket).finish()
    }
}

/// Another connection between the same two addresses has not ended yet.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

impl RawClient {
    /// Connects over plain TCP. Reads fail after [`PATIENCE`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&addr, PATIENCE)?)
    }

    /// The same from an address of the client's choice. A port other than 0 can be taken again after [`RawClient::reset`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect_from(local: SocketAddr, addr: SocketAddr) -> io::Result<Self> {
        let connect = || {
            let domain = socket2::Domain::for_address(local);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            socket.connect_timeout(&addr.into(), PATIENCE)?;
            Self::over(socket.into())
        };
        // A process that another test starts just now has the earlier connection too, until it runs its own program.
        let attempt = || Some(connect()).filter(|made| !made.as_ref().is_err_and(is_taken));
        within(PATIENCE, attempt).unwrap_or_else(connect)
    }

    fn over(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(RawClient { stream: Box::new(socket.try_clone()?), socket, reader: WireReader::new() })
    }

    /// Connects over TLS and completes the handshake as far as a client can see it: with TLS 1.3 a server refuses a
    /// client's certificate only afterwards, so that the first read fails.
    ///
    /// # Errors
    /// What the kernel or the handshake says.
    pub fn connect_tls(addr: SocketAddr, tls: &Tls) -> io::Result<Self> {
        let mut client = Self::connect(addr)?;
        let session =
            rustls::ClientConnection::new(tls.config(), tls.server_name()).map_err(io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(session, client.socket.try_clone()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        client.stream = Box::new(stream);
        Ok(client)
    }

    /// The local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("address of a connected socket")
    }

    /// Sends these bytes. A write error is not told: the answer, or its absence, is what counts.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Sends a request without a body on this connection and reads the answer.
    ///
    /// # Errors
    /// As [`RawClient::response`].
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
        self.response()
    }

    /// Reads the next response that is not informational.
    ///
    /// # Errors
    /// A stream that ends, stalls or is no HTTP.
    pub fn response(&mut self) -> io::Result<Response> {
        self.response_to("GET")
    }

    /// The same; the answer to a `HEAD` has no body whatever its headers say.
    ///
    /// # Errors
    /// A stream that ends, stalls or is no HTTP.
    pub fn response_to(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let head = self.reader.head(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let parsed = parse_head(&head).map_err(io::Error::other)?;
            let [version, status, _] = parsed.line;
            let status: u16 = status.parse().map_err(io::Error::other)?;
            if status < 200 {
                continue;
            }
            let bodiless = method == "HEAD" || status == 204 || status == 304;
            let framing =
                if bodiless { Framing::Length(0) } else { Framing::of(&parsed.headers, Framing::UntilClose) };
            let (body, trailers) = self.reader.body(&mut self.stream, framing)?;
            return Ok(Response { version, status, headers: parsed.headers, body, trailers });
        }
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// A stream that ends or stalls before.
    pub fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.reader.body(&mut self.stream, Framing::Length(length)).map(|(bytes, _)| bytes)
    }

    /// Reads until the other side closes, and gives all that it sent.
    ///
    /// # Errors
    /// A reset, or a stall for [`PATIENCE`].
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        self.reader.body(&mut self.stream, Framing::UntilClose).map(|(bytes, _)| bytes)
    }

    /// Whether the other side closes this idle connection within `limit`.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        let _ = self.socket.set_read_timeout(Some(limit));
        let end = self.reader.body(&mut self.stream, Framing::UntilClose);
        let _ = self.socket.set_read_timeout(Some(PATIENCE));
        match end {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Resets the connection.
    pub fn reset(self) {
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}
