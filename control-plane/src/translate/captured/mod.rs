//! Listeners of workloads whose connections the kernel captures (interception mode `REDIRECT`).
//!
//! A captured connection arrives at one of two ports of the sidecar, and still knows the address that it was meant for.
//! *Outbound* (15001) that address picks a listener of its own, which has no socket: one for each port and cluster IP of
//! a Service, and one for each port of hosts that have no address of their own ([`by_content`]). What no such listener takes is for a Pod,
//! or for the world outside: Pods of the mesh get mutual TLS with
//! exactly the identity that belongs to the address, byte by byte, whatever they speak. *Inbound* (15006) it picks the port.
//!
//! Between sidecars a Service is called at POD_IP:15006 with the port in the SNI, as in explicit mode, so both kinds of
//! workload can talk to each other. Only calls by a Pod's own address go to the very port that was called.

mod by_content;
mod inbound;
mod outbound;
mod service;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Workload;

pub(super) use inbound::{inbound_listeners, passthrough_clusters, to_application};
pub(crate) use outbound::outbound_virtual;
pub(super) use service::own_service_listeners;
pub(crate) use service::service_listeners;

/// An IP version. Sockets are bound for each on its own: a Pod may lack one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn has(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    /// Source of what the sidecar sends to its own application: the capture lets it through by that (Istio's addresses).
    fn to_application(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(127, 0, 0, 6).into(),
            Self::V6 => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
        }
    }

    fn any_address(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Istio's name of a virtual listener, with the version where it is not 4.
    fn named(self, name: &str) -> String {
        match self {
            Self::V4 => name.to_owned(),
            Self::V6 => format!("{name}6"),
        }
    }
}

/// The families that a workload has an address of.
fn families(workload: &Workload) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| workload.ips.iter().any(|ip| family.has(ip)))
}
