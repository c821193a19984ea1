//! What the kernel says of the pod's addresses and routes (`/proc/net`), and the one address that the capture adds.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::netlink;
use super::rules::{Family, TO_APPLICATION_V6};
use super::step::Step;

/// The address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assigned {
    net: Ipv6Net,
    interface: String,
}

/// Networks that this pod is in, from its own point of view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    v4: Vec<Ipv4Net>,
    v6: Vec<Assigned>,
}

impl Pod {
    /// Reads the present state of this network namespace.
    pub fn read() -> Self {
        // A file that is not there: the kernel has no such family.
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self { v4: connected_v4(&read("/proc/net/route")), v6: assigned_v6(&read("/proc/net/if_inet6")) }
    }

    /// Whether it has an IPv6 address that others can reach.
    pub fn has_ipv6(&self) -> bool {
        self.v6.iter().any(|assigned| assigned.interface != "lo" && is_global(assigned.net.addr()))
    }

    /// What gives the loopback interface [`TO_APPLICATION_V6`], unless it has it; the sidecar calls its application
    /// from there. (Of 127.0.0.0/8 the loopback interface has all.)
    pub fn adding_loopback(&self) -> Option<Step> {
        (self.has_ipv6() && !self.has_loopback())
            .then(|| Step::Netlink(netlink::address::adding(TO_APPLICATION_V6)))
    }

    /// What takes it away again, if it is there.
    pub fn removing_loopback(&self) -> Option<Step> {
        self.has_loopback().then(|| Step::Netlink(netlink::address::removing(TO_APPLICATION_V6)))
    }

    /// Whether the loopback interface has [`TO_APPLICATION_V6`].
    pub fn has_loopback(&self) -> bool {
        self.v6.iter().any(|a| a.interface == "lo" && a.net.addr() == TO_APPLICATION_V6)
    }

    /// Addresses of others that this pod could send to: of networks that it is connected to.
    pub fn neighbours(&self, family: Family) -> Vec<IpAddr> {
        match family {
            Family::V4 => self.v4.iter().flat_map(|net| net.hosts().take(3)).map(IpAddr::from).collect(),
            Family::V6 => self
                .v6
                .iter()
                .filter(|a| a.interface != "lo" && is_global(a.net.addr()))
                .flat_map(|a| a.net.hosts().take(3))
                .map(IpAddr::from)
                .collect(),
        }
    }
}

/// Whether a packet to this address would leave the pod.
pub fn leaves_the_pod(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket asks the routing table and sends nothing.
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() != address && !source.ip().is_loopback())
}

/// An address of this network that is most probably somebody's, or nobody's: but no name of the network itself.
pub fn member(net: IpNet) -> Option<IpAddr> {
    net.hosts().next()
}

fn is_global(address: Ipv6Addr) -> bool {
    !(address.is_loopback() || address.is_unicast_link_local() || address.is_multicast())
}

/// `/proc/net/route`: the networks that are reached without a gateway. Addresses are in the machine's byte order.
fn connected_v4(text: &str) -> Vec<Ipv4Net> {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok().map(|n| Ipv4Addr::from(n.to_ne_bytes()));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, gateway, mask) = (hex(fields.get(1)?)?, hex(fields.get(2)?)?, hex(fields.get(7)?)?);
        let net = Ipv4Net::with_netmask(destination, mask).ok()?;
        (gateway.is_unspecified() && net.prefix_len() > 0).then_some(net)
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// `/proc/net/if_inet6`: address, interface number, prefix length, scope, flags, interface.
fn assigned_v6(text: &str) -> Vec<Assigned> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, prefix, _, _, interface] = fields[..] else { return None };
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let net = Ipv6Net::new(address, u8::from_str_radix(prefix, 16).ok()?).ok()?;
        Some(Assigned { net, interface: interface.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const IF_INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
20010db8000000000000000000000007 02 40 00 80     eth0
";

    fn pod(if_inet6: &str) -> Pod {
        Pod { v4: Vec::new(), v6: assigned_v6(if_inet6) }
    }

    #[test]
    fn a_pod_has_ipv6_when_others_can_reach_it() {
        assert!(pod(IF_INET6).has_ipv6());
        let lines: Vec<&str> = IF_INET6.lines().collect();
        assert!(!pod(lines[0]).has_ipv6());
        assert!(!pod(&lines[..2].join("\n")).has_ipv6());
        assert!(!pod("").has_ipv6());
        let with = "00000000000000000000000000000006 01 80 00 80 lo";
        assert!(pod(with).has_loopback() && !pod(with).has_ipv6() && !pod(IF_INET6).has_loopback());
        assert_eq!(pod(IF_INET6).neighbours(Family::V6)[1].to_string(), "2001:db8::1");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn connected_networks_are_routes_without_a_gateway() {
        let text = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0101010A	0003	0	0	0	00000000	0	0	0
eth0	0001010A	00000000	0001	0	0	0	00FFFFFF	0	0	0
";
        assert_eq!(connected_v4(text), ["10.1.1.0/24".parse().unwrap()]);
    }
}
