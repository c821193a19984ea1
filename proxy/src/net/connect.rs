//! Connecting sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, UnixStream};

use super::listen::unix_address;
use super::{Address, Keepalive, RawStream};

/// Connects to `address`, with `TCP_NODELAY`. `source` is the local address to bind to; the kernel picks the port so late that
/// ports are shared between destinations. Has no timeout of its own.
///
/// # Errors
/// What the system says: refused, unreachable, no such path; a `source` of the other IP version is `InvalidInput`.
pub async fn connect(
    address: &Address,
    source: Option<IpAddr>,
    keepalive: Option<Keepalive>,
) -> io::Result<RawStream> {
    match address {
        Address::Ip(ip) => connect_tcp(*ip, source, keepalive).await,
        Address::Pipe(path) => {
            // Connecting a Unix socket succeeds or fails at once.
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
            socket.connect(&unix_address(path)?)?;
            UnixStream::from_std(socket.into()).map(RawStream::Unix)
        }
    }
}

async fn connect_tcp(
    address: SocketAddr,
    source: Option<IpAddr>,
    keepalive: Option<Keepalive>,
) -> io::Result<RawStream> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some((idle, interval, probes)) = keepalive {
        let options = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
        socket.set_tcp_keepalive(&options)?;
    }
    if let Some(source) = source {
        if source.is_ipv4() != address.is_ipv4() {
            let text =
                format!("source address {source} and destination {address} are of different IP versions");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(address).await.map(RawStream::Tcp)
}

/// `IP_BIND_ADDRESS_NO_PORT`: the port is chosen at connect, so one port serves many destinations.
#[allow(unsafe_code)]
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the whole call, and the value and its length describe `on`, which outlives it.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn listener() -> (std::net::TcpListener, Address) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Ip(listener.local_addr().unwrap());
        (listener, address)
    }

    #[tokio::test]
    async fn the_source_address_is_what_the_peer_sees() {
        let (listener, address) = listener();
        let source = "127.1.2.3".parse().unwrap();
        let keepalive = Some((Duration::from_secs(30), Duration::from_secs(5), 3));
        let raw = connect(&address, Some(source), keepalive).await.unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
        let RawStream::Tcp(tcp) = &raw else { panic!("not TCP") };
        assert!(tcp.nodelay().unwrap());
        assert!(socket2::SockRef::from(tcp).keepalive().unwrap());
        assert_eq!(raw.peer_address().unwrap(), address);
        assert_eq!(raw.local_address().unwrap(), Address::Ip(peer));
    }

    #[tokio::test]
    async fn a_source_of_the_other_ip_version_is_refused() {
        let (_listener, address) = listener();
        let error = connect(&address, Some("::1".parse().unwrap()), None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let (listener, address) = listener();
        drop(listener);
        let error = connect(&address, None, None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn unix_sockets_by_path_and_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("@outrigger-connect-{}", std::process::id());
        for path in [folder.path().join("a.sock"), name.into()] {
            let address = Address::Pipe(Arc::new(path));
            let _sockets = crate::net::bind_listeners(&address, &Default::default(), 1).unwrap();
            let raw = connect(&address, None, None).await.unwrap();
            assert_eq!(raw.peer_address().unwrap(), address);
        }
    }
}
