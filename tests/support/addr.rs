//! Loopback addresses that stand for pods. All of 127.0.0.0/8 can be bound without privileges.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// An address of this test alone: drawn from 127.64.0.0 to 127.254.255.255, so that two tests or two processes never
/// meet, and connections that the kernel opens from 127.0.0.1 take no port of it.
pub fn pod_ip() -> Ipv4Addr {
    Ipv4Addr::new(127, fastrand::u8(64..=254), fastrand::u8(..), fastrand::u8(1..=254))
}

/// A free port, chosen by the kernel, on an address of its own. It stays free until the caller binds it.
pub fn free_addr() -> SocketAddr {
    free_addr_on(pod_ip().into())
}

/// A free port on `ip`, chosen by the kernel.
pub fn free_addr_on(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("bind a loopback address");
    listener.local_addr().expect("address of a bound socket")
}

/// An address where every connection is refused, for as long as the value lives: bound, but not listening.
#[derive(Debug)]
pub struct RefusingAddr {
    addr: SocketAddr,
    _socket: rustix::fd::OwnedFd,
}

impl RefusingAddr {
    /// Takes a free port on an address of its own.
    pub fn reserve() -> Self {
        use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, getsockname, socket};
        let ip = pod_ip();
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
        bind(&socket, &SocketAddrV4::new(ip, 0)).expect("bind a loopback address");
        let bound = SocketAddrV4::try_from(getsockname(&socket).expect("getsockname")).expect("IPv4");
        RefusingAddr { addr: SocketAddr::V4(bound), _socket: socket }
    }

    /// Where connections are refused.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
