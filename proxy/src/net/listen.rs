//! Listening sockets: bound on main, one for each worker, handed over before they accept.
//!
//! Invariant: a TCP port that another process listens on is an error, even when that process set `SO_REUSEPORT` and would share.

use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Address;

/// Options of a listener's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// `tcp_backlog_size`: connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// `enable_reuse_port`: one socket for each worker; else one is shared by all.
    pub reuse_port: bool,
    /// `ipv4_compat` of an IPv6 address: IPv4 peers too.
    pub ipv4_compat: bool,
    /// Permissions of a Unix socket's file, in place before anybody can connect; `None`: what the umask leaves.
    pub mode: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: true, ipv4_compat: false, mode: None }
    }
}

/// A socket that listens, not yet registered with a runtime.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix domain socket.
    Unix(UnixListener),
}

impl ListenSocket {
    /// Where it listens; with the port that the system picked.
    ///
    /// # Errors
    /// The system refuses to say.
    pub fn local_address(&self) -> io::Result<Address> {
        match self {
            ListenSocket::Tcp(s) => s.local_addr().map(Address::Ip),
            ListenSocket::Unix(s) => s.local_addr().map(|a| Address::from(&a)),
        }
    }

    /// The same socket once more (both take connections from one queue).
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            ListenSocket::Tcp(s) => s.try_clone().map(ListenSocket::Tcp),
            ListenSocket::Unix(s) => s.try_clone().map(ListenSocket::Unix),
        }
    }
}

/// Binds `address` and listens: one socket for each of `workers` (at least one).
///
/// # Errors
/// `AddrInUse` when another process listens there, else what the system says; the text names the address.
pub fn bind_listeners(
    address: &Address,
    options: &ListenOptions,
    workers: usize,
) -> io::Result<Vec<ListenSocket>> {
    let bound = match address {
        Address::Ip(ip) => bind_tcp(*ip, options, workers.max(1)),
        Address::Pipe(path) => bind_unix(path, options, workers.max(1)),
    };
    bound.map_err(|e| io::Error::new(e.kind(), format!("cannot bind '{address}': {e}")))
}

fn bind_tcp(address: SocketAddr, options: &ListenOptions, workers: usize) -> io::Result<Vec<ListenSocket>> {
    if options.reuse_port && address.port() != 0 {
        // Without SO_REUSEPORT on this one the kernel reports any other listener; it never listens, so it takes no connection.
        tcp_socket(address, options, false)?;
    }
    let listen = |address| -> io::Result<TcpListener> {
        let socket = tcp_socket(address, options, options.reuse_port)?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Ok(socket.into())
    };
    let first = listen(address)?;
    let address = first.local_addr()?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(ListenSocket::Tcp(if options.reuse_port {
            listen(address)?
        } else {
            first.try_clone()?
        }));
    }
    sockets.insert(0, ListenSocket::Tcp(first));
    Ok(sockets)
}

fn tcp_socket(address: SocketAddr, options: &ListenOptions, reuse_port: bool) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // Connections of an earlier run in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    // Accepted sockets inherit it: no system call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, options: &ListenOptions, workers: usize) -> io::Result<Vec<ListenSocket>> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&unix_address(path)?)?;
    if let Some(mode) = options.mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let first = ListenSocket::Unix(socket.into());
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(first.try_clone()?);
    }
    sockets.push(first);
    Ok(sockets)
}

/// A path, or an abstract name that starts with `@`.
pub(super) fn unix_address(path: &Path) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => {
            let mut text = Vec::with_capacity(name.len() + 1);
            text.push(0);
            text.extend_from_slice(name);
            SockAddr::unix(std::ffi::OsStr::from_bytes(&text))
        }
        _ => SockAddr::unix(path),
    }
}

/// Removes the socket file of a process that is gone; a live listener or another kind of file is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::sync::Arc;

    use super::*;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    fn pipe(path: impl Into<std::path::PathBuf>) -> Address {
        Address::Pipe(Arc::new(path.into()))
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let sockets = bind_listeners(&ip("127.0.0.1:0"), &ListenOptions::default(), 3).unwrap();
        let addresses: Vec<_> = sockets.iter().map(|s| s.local_address().unwrap()).collect();
        assert_eq!(addresses.len(), 3);
        assert_ne!(addresses[0].port(), Some(0));
        assert!(addresses.iter().all(|a| *a == addresses[0]));
    }

    #[test]
    fn a_port_in_use_is_found_out_even_when_it_would_be_shared() {
        let theirs = bind_listeners(&ip("127.0.0.1:0"), &ListenOptions::default(), 1).unwrap();
        let address = theirs[0].local_address().unwrap();
        for reuse_port in [true, false] {
            let options = ListenOptions { reuse_port, ..ListenOptions::default() };
            let error = bind_listeners(&address, &options, 2).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().starts_with(&format!("cannot bind '{address}': ")), "{error}");
        }
        drop(theirs);
        bind_listeners(&address, &ListenOptions::default(), 2).unwrap();
    }

    #[test]
    fn a_shared_socket_is_duplicated() {
        let options = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let sockets = bind_listeners(&ip("[::1]:0"), &options, 2).unwrap();
        assert_eq!(sockets[0].local_address().unwrap(), sockets[1].local_address().unwrap());
    }

    #[test]
    fn ipv4_compat_decides_about_ipv4_peers() {
        for compat in [true, false] {
            let options = ListenOptions { ipv4_compat: compat, ..ListenOptions::default() };
            let sockets = bind_listeners(&ip("[::]:0"), &options, 1).unwrap();
            let port = sockets[0].local_address().unwrap().port().unwrap();
            // An address that no other test listens on: IPv4 may have given the same port to somebody.
            assert_eq!(std::net::TcpStream::connect(("127.201.7.3", port)).is_ok(), compat);
        }
    }

    #[test]
    fn a_stale_socket_file_is_removed_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listener.sock");
        let sockets = bind_listeners(&pipe(&path), &ListenOptions::default(), 2).unwrap();
        assert_eq!(sockets.len(), 2);
        let error = bind_listeners(&pipe(&path), &ListenOptions::default(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(path.exists());
        bind_listeners(&pipe(&path), &ListenOptions::default(), 1).unwrap();
    }

    #[test]
    fn a_socket_file_has_the_mode_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private.sock");
        let options = ListenOptions { mode: Some(0o600), ..ListenOptions::default() };
        let _socket = bind_listeners(&pipe(&path), &options, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_plain_file_is_never_removed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = bind_listeners(&pipe(file.path()), &ListenOptions::default(), 1).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert!(file.path().exists());
    }

    #[test]
    fn abstract_names_start_with_an_at_sign() {
        let name = format!("@outrigger-test-{}", std::process::id());
        let sockets = bind_listeners(&pipe(&name), &ListenOptions::default(), 1).unwrap();
        assert_eq!(sockets[0].local_address().unwrap().to_string(), name);
    }
}
