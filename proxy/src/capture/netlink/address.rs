//! An address of the loopback interface, by rtnetlink (`linux/rtnetlink.h`, `linux/if_addr.h`).

use std::net::Ipv6Addr;

use super::message::{Attributes, CREATE, Message, REPLACE};
use super::socket::Subsystem;
use super::{Request, Transaction};

/// `LOOPBACK_IFINDEX`: in each network namespace the kernel makes the loopback interface first.
const LOOPBACK: u32 = 1;
/// `AF_INET6`
const INET6: u8 = 10;

/// `RTM_NEWADDR`
const NEW_ADDRESS: u16 = 20;
/// `RTM_DELADDR`
const DELETE_ADDRESS: u16 = 21;

/// Gives the loopback interface this address.
pub(in super::super) fn adding(address: Ipv6Addr) -> Transaction {
    transaction(NEW_ADDRESS, CREATE | REPLACE, address, "replace")
}

/// Takes it away.
pub(in super::super) fn removing(address: Ipv6Addr) -> Transaction {
    transaction(DELETE_ADDRESS, 0, address, "delete")
}

fn transaction(kind: u16, flags: u16, address: Ipv6Addr, verb: &str) -> Transaction {
    // `struct ifaddrmsg`: family, length of the prefix, flags, scope, number of the interface.
    let header = [&[INET6, 128, 0, 0], LOOPBACK.to_ne_bytes().as_slice()].concat();
    // `IFA_LOCAL` and `IFA_ADDRESS`, which differ for the two ends of a link.
    let both = Attributes::default().bytes(2, &address.octets()).bytes(1, &address.octets());
    let message = Message::new(kind, flags, &header, both).acknowledged();
    Transaction {
        subsystem: Subsystem::Route,
        requests: vec![Request { what: format!("the address {address} of lo"), message }],
        words: format!("ip -6 address {verb} {address}/128 dev lo"),
    }
}
