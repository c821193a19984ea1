//! The proof: connections through the rules, both ways, for each family of addresses that the pod has, to listeners of our own on
//! the sidecar's ports, which then ask the kernel where the connection wanted to go (`SO_ORIGINAL_DST`).
//!
//! Outbound: to an address outside. Inbound: to the loopback address that the rules hand to the chain for inbound connections,
//! because nobody inside can come from outside; that the chain is where it should be was read back before.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::{Domain, SockRef, Socket, Type};

use super::addresses::{Pod, leaves_the_pod, member};
use super::options::{CaptureOptions, List, Port, Range, Selection};
use super::rules::{Family, OWN_PORTS, TO_APPLICATION_V4, TO_APPLICATION_V6};

/// A connection that stays within the machine is there at once, or it went elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where ports are tried, upwards, for one that is captured.
const FIRST_PORT: u16 = 15100;
/// Addresses for documentation (RFC 5737, RFC 3849): nobody has them.
const SOMEWHERE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SOMEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What a connection proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What comes into the pod goes to the sidecar.
    Inbound,
    /// What the application sends goes to the sidecar.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        })
    }
}

/// Why capture is not proven.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// A connection did not come to the sidecar's port.
    #[error("{direction} {family}: a connection to {to} did not come to port {port}: {reason}")]
    NotCaptured {
        /// Which way.
        direction: Direction,
        /// Of which family.
        family: Family,
        /// Where the connection was to go.
        to: SocketAddr,
        /// Where the rules should send it.
        port: u16,
        /// What happened instead.
        reason: String,
    },
    /// The sidecar runs already, or somebody else has its port.
    #[error("cannot listen on {address} for the proof: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The proof would be a loop.
    #[error(
        "the proof cannot run as the sidecar's own user or group ({0}): what that sends is never captured"
    )]
    OwnUser(u32),
}

impl ProofError {
    /// Somebody listens on the sidecar's port.
    pub fn is_in_use(&self) -> bool {
        matches!(self, ProofError::Listen { error, .. } if error.kind() == io::ErrorKind::AddrInUse)
    }
}

/// What was proven, or could not be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    direction: Direction,
    family: Family,
    /// Where the connection went; `None`: there is nowhere to go.
    to: Option<SocketAddr>,
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, family, to } = self;
        match to {
            Some(to) => write!(f, "proven: {direction} {family} (a connection to {to})"),
            None => write!(
                f,
                "not tried: {direction} {family} (the pod has no address or no route to a captured one)"
            ),
        }
    }
}

/// Proves all that these options promise.
///
/// # Errors
/// The first promise that does not hold.
pub fn prove(options: &CaptureOptions, pod: &Pod) -> Result<Vec<Proven>, ProofError> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if user == options.proxy_uid || group == options.proxy_gid {
        return Err(ProofError::OwnUser(if user == options.proxy_uid { user } else { group }));
    }
    let mut proven = Vec::new();
    for family in Family::BOTH {
        for (direction, wanted, to) in [
            (Direction::Outbound, options.captures_outbound(), outside(options, pod, family)),
            (Direction::Inbound, options.captures_inbound(), inside(options, pod, family)),
        ] {
            if !wanted || (family == Family::V6 && !pod.has_ipv6()) {
                continue;
            }
            if let Some(to) = to {
                connect(options, direction, to)?;
            }
            proven.push(Proven { direction, family, to });
        }
    }
    Ok(proven)
}

/// An address and port outside the pod that is captured.
fn outside(options: &CaptureOptions, pod: &Pod, family: Family) -> Option<SocketAddr> {
    let is_excluded = |address: IpAddr| {
        options.exclude_outbound_ip_ranges.0.iter().any(|Range(net)| net.contains(&address))
    };
    let somewhere: IpAddr = match family {
        Family::V4 => SOMEWHERE_V4.into(),
        Family::V6 => SOMEWHERE_V6.into(),
    };
    let anywhere = || std::iter::once(somewhere).chain(pod.neighbours(family)).collect::<Vec<IpAddr>>();
    let (addresses, ports) = match (&options.include_outbound_ip_ranges, &options.include_outbound_ports) {
        (Selection::All, _) | (_, Selection::All) => (anywhere(), &Selection::All),
        (Selection::Some(ranges), _) if ranges.iter().any(|Range(net)| Family::of(net.addr()) == family) => {
            (ranges.iter().flat_map(|Range(net)| candidates(*net, pod)).collect(), &Selection::All)
        }
        (_, ports) => (anywhere(), ports),
    };
    let address =
        addresses.into_iter().find(|a| Family::of(*a) == family && !is_excluded(*a) && leaves_the_pod(*a))?;
    let port = port(ports, &options.exclude_outbound_ports, &[])?;
    Some(SocketAddr::new(address, port))
}

/// Addresses of an included range, those that the pod surely has a route to first.
fn candidates(net: IpNet, pod: &Pod) -> Vec<IpAddr> {
    let near = pod.neighbours(Family::of(net.addr())).into_iter().filter(|address| net.contains(address));
    near.chain(member(net)).collect()
}

/// The loopback address and port that stand for what comes in.
fn inside(options: &CaptureOptions, pod: &Pod, family: Family) -> Option<SocketAddr> {
    let address: IpAddr = match family {
        Family::V4 => TO_APPLICATION_V4.into(),
        Family::V6 => pod.has_loopback().then_some(TO_APPLICATION_V6)?.into(),
    };
    let own = [&OWN_PORTS[..], &[options.inbound_port]].concat();
    // What is excluded among outbound ports does not come to the chain for inbound connections from here.
    let excluded = [&options.exclude_inbound_ports.0[..], &options.exclude_outbound_ports.0[..]].concat();
    Some(SocketAddr::new(address, port(&options.include_inbound_ports, &List(excluded), &own)?))
}

/// A port that is captured.
fn port(included: &Selection<Port>, excluded: &List<Port>, own: &[u16]) -> Option<u16> {
    let is_captured = |port: &u16| !own.contains(port) && !excluded.0.contains(&Port(*port));
    match included {
        Selection::All => (FIRST_PORT..=u16::MAX).find(is_captured),
        Selection::Some(ports) => ports.iter().map(|Port(port)| *port).find(is_captured),
    }
}

/// Connects, and looks for the connection where the rules should send it.
fn connect(options: &CaptureOptions, direction: Direction, to: SocketAddr) -> Result<(), ProofError> {
    let family = Family::of(to.ip());
    let port = match direction {
        Direction::Inbound => options.inbound_port,
        Direction::Outbound => options.outbound_port,
    };
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let address = SocketAddr::new(any, port);
    let listener = listen(address).map_err(|error| ProofError::Listen { address, error })?;
    let not = |reason: String| ProofError::NotCaptured { direction, family, to, port, reason };
    let client = dial(direction, to).map_err(|error| not(error.to_string()))?;
    let accepted = accept_from(&listener, &client)
        .map_err(|error| not(error.to_string()))?
        .ok_or_else(|| not("somebody else answered".to_owned()))?;
    let original =
        original_destination(&accepted, family).map_err(|error| not(format!("SO_ORIGINAL_DST: {error}")))?;
    if original != Some(to) {
        let told = original.map_or_else(|| "nothing".to_owned(), |address| address.to_string());
        return Err(not(format!("SO_ORIGINAL_DST says {told}")));
    }
    Ok(())
}

fn dial(direction: Direction, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)?;
    if direction == Direction::Inbound {
        // Not from the very address that is dialled, as the kernel would choose: that is the sidecar's way to its application.
        let from: IpAddr = match Family::of(to.ip()) {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

/// The other end of the client's connection, if it came here.
fn accept_from(listener: &TcpListener, client: &TcpStream) -> io::Result<Option<TcpStream>> {
    let client = client.local_addr()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, peer)) if peer == client => return Ok(Some(stream)),
            // A stranger's: the next one.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn original_destination(stream: &TcpStream, family: Family) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(stream);
    let address = match family {
        Family::V4 => socket.original_dst_v4(),
        Family::V6 => socket.original_dst_v6(),
    }?;
    Ok(address.as_socket())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::options::options;
    use super::*;

    #[test]
    fn the_inbound_probe_goes_to_a_captured_port() {
        let to = |flags: &[&str]| inside(&options(flags), &Pod::default(), Family::V4).map(|to| to.port());
        assert_eq!(to(&[]), Some(15100));
        assert_eq!(
            to(&["--exclude-inbound-ports", "15100", "--exclude-outbound-ports", "15101"]),
            Some(15102)
        );
        assert_eq!(
            to(&["--include-inbound-ports", "15021,80,81", "--exclude-inbound-ports", "80"]),
            Some(81)
        );
        assert_eq!(to(&["--include-inbound-ports", "15006"]), None);
    }

    #[test]
    fn without_rules_the_proof_fails() {
        // Free ports: nobody listens, nothing is captured.
        let free = |_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let [inbound, outbound] = [0, 1].map(free);
        let flags =
            ["--inbound-port", &inbound, "--outbound-port", &outbound, "--include-outbound-ip-ranges", ""];
        let error = prove(&options(&flags), &Pod::default()).unwrap_err();
        assert!(
            error.to_string().contains("inbound IPv4: a connection to 127.0.0.6:15100 did not come to port"),
            "{error}"
        );
    }
}
