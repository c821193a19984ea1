//! Rules as nf_tables has them: expressions that load something into a register and compare it, then a verdict
//! (`linux/netfilter/nf_tables.h`; the names there are `NFTA_…` for the attributes).
//!
//! They are those that `nft` makes of the same rules in [words](super::super::nftables), so that it prints them as it prints its own.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::rules::{Match, Rule, Verdict};
use super::message::Attributes;

/// `NFTA_LIST_ELEM`
const ELEMENT: u16 = 1;
/// `NFT_REG_VERDICT`: what happens to the packet.
const VERDICT: u32 = 0;
/// `NFT_REG_1`: 16 bytes to work with.
const REGISTER: u32 = 1;
/// `NFTA_DATA_VALUE`
const DATA_VALUE: u16 = 1;
/// `NFTA_DATA_VERDICT`
const DATA_VERDICT: u16 = 2;

/// What is known of a packet besides its bytes (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy)]
enum Meta {
    InInterface = 6,
    OutInterface = 7,
    User = 10,
    Group = 11,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, one byte.
    Family = 15,
    /// The protocol above IP, one byte.
    Protocol = 16,
}

/// Where in a packet (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// `enum nft_cmp_ops`
#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal = 0,
    Unequal = 1,
}

/// `IPPROTO_TCP`
const TCP: [u8; 1] = [6];
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`
const IPV4: [u8; 1] = [2];
const IPV6: [u8; 1] = [10];
/// `IFNAMSIZ`
const INTERFACE_NAME: usize = 16;

/// Which end of a packet.
#[derive(Debug, Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// The expressions of a rule; `inbound` is the name of the chain for what comes in.
pub(super) fn expressions(rule: &Rule, inbound: &str) -> Attributes {
    let mut list = Attributes::default();
    for condition in &rule.matches {
        list = self::condition(list, condition);
    }
    if !rule.matches.iter().any(|condition| matches!(condition, Match::Port(_))) {
        list = is_tcp(list);
    }
    match rule.verdict {
        Verdict::Return => verdict(list, Code::Return, None),
        Verdict::Redirect(port) => redirect(list, port),
        Verdict::Inbound => jump(list, inbound),
    }
}

/// The expressions of the rule that leads all TCP into a chain.
pub(super) fn lead_into(chain: &str) -> Attributes {
    jump(is_tcp(Attributes::default()), chain)
}

fn condition(list: Attributes, condition: &Match) -> Attributes {
    match condition {
        Match::InInterface(name) => meta(list, Meta::InInterface, &interface(name)),
        Match::OutInterface(name) => meta(list, Meta::OutInterface, &interface(name)),
        Match::Source(net) => address(list, End::Source, net, Comparison::Equal),
        Match::Destination(net) => address(list, End::Destination, net, Comparison::Equal),
        Match::DestinationNot(net) => address(list, End::Destination, net, Comparison::Unequal),
        // The source port is before it.
        Match::Port(port) => {
            let list = payload(is_tcp(list), Header::Transport, 2, 2);
            compare(list, Comparison::Equal, &port.to_be_bytes())
        }
        Match::User(user) => meta(list, Meta::User, &user.to_ne_bytes()),
        Match::Group(group) => meta(list, Meta::Group, &group.to_ne_bytes()),
    }
}

fn is_tcp(list: Attributes) -> Attributes {
    meta(list, Meta::Protocol, &TCP)
}

/// A name fills the register, so that it is the whole name.
fn interface(name: &str) -> [u8; INTERFACE_NAME] {
    let mut padded = [0; INTERFACE_NAME];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    padded
}

fn address(list: Attributes, end: End, net: &IpNet, comparison: Comparison) -> Attributes {
    // Offsets in the headers of RFC 791 and RFC 8200.
    let (family, offset) = match (net, end) {
        (IpNet::V4(_), End::Source) => (IPV4, 12),
        (IpNet::V4(_), End::Destination) => (IPV4, 16),
        (IpNet::V6(_), End::Source) => (IPV6, 8),
        (IpNet::V6(_), End::Destination) => (IPV6, 24),
    };
    let wanted = octets(net.network());
    let length = if net.addr().is_ipv4() { 4 } else { 16 };
    let list = payload(meta(list, Meta::Family, &family), Header::Network, offset, length);
    let list =
        if net.prefix_len() == net.max_prefix_len() { list } else { mask(list, &octets(net.netmask())) };
    compare(list, comparison, &wanted)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn meta(list: Attributes, key: Meta, wanted: &[u8]) -> Attributes {
    let load = Attributes::default().number(2, key as u32).number(1, REGISTER);
    compare(expression(list, "meta", load), Comparison::Equal, wanted)
}

fn payload(list: Attributes, header: Header, offset: u32, length: u32) -> Attributes {
    let load = Attributes::default()
        .number(1, REGISTER)
        .number(2, header as u32)
        .number(3, offset)
        .number(4, length);
    expression(list, "payload", load)
}

/// Clears the bits of the register that are not in the mask.
fn mask(list: Attributes, mask: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let and = Attributes::default()
        .number(1, REGISTER)
        .number(2, REGISTER)
        .number(3, length)
        .nested(4, value(mask))
        .nested(5, value(&vec![0; mask.len()]));
    expression(list, "bitwise", and)
}

fn compare(list: Attributes, comparison: Comparison, wanted: &[u8]) -> Attributes {
    let compare =
        Attributes::default().number(1, REGISTER).number(2, comparison as u32).nested(3, value(wanted));
    expression(list, "cmp", compare)
}

fn redirect(list: Attributes, port: u16) -> Attributes {
    /// `NF_NAT_RANGE_PROTO_SPECIFIED`: a port is given.
    const WITH_PORT: u32 = 2;
    let load = Attributes::default().number(1, REGISTER).nested(2, value(&port.to_be_bytes()));
    let redirect = Attributes::default().number(1, REGISTER).number(3, WITH_PORT);
    expression(expression(list, "immediate", load), "redir", redirect)
}

/// `enum nft_verdicts`
#[derive(Debug, Clone, Copy)]
enum Code {
    Jump = -3,
    Return = -5,
}

fn jump(list: Attributes, chain: &str) -> Attributes {
    verdict(list, Code::Jump, Some(chain))
}

fn verdict(list: Attributes, code: Code, chain: Option<&str>) -> Attributes {
    let verdict = Attributes::default().number(1, (code as i32).cast_unsigned());
    let verdict = if let Some(chain) = chain { verdict.text(2, chain) } else { verdict };
    let data = Attributes::default().nested(DATA_VERDICT, verdict);
    expression(list, "immediate", Attributes::default().number(1, VERDICT).nested(2, data))
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(DATA_VALUE, bytes)
}

/// Appends an expression: `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
fn expression(list: Attributes, name: &str, data: Attributes) -> Attributes {
    list.nested(ELEMENT, Attributes::default().text(1, name).nested(2, data))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::message::{Answer, Message, answers, attributes};
    use super::*;

    /// The names of the expressions, each with the bytes that it compares with, masks with or loads.
    fn names(list: Attributes) -> Vec<(String, Vec<u8>)> {
        let mut bytes = Vec::new();
        Message::new(0, 0, &[], list).write(0, &mut bytes);
        let Some(Answer::Object { body, .. }) = answers(&bytes).next() else { panic!("{bytes:?}") };
        let get = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let read = |expression| {
            let (name, data) = (get(expression, 1).unwrap(), get(expression, 2).unwrap());
            let name = String::from_utf8(name.strip_suffix(b"\0").unwrap().to_vec()).unwrap();
            let value = match name.as_str() {
                "cmp" => get(get(data, 3).unwrap(), DATA_VALUE),
                "bitwise" => get(get(data, 4).unwrap(), DATA_VALUE),
                "immediate" => get(get(data, 2).unwrap(), DATA_VALUE),
                _ => None,
            };
            (name, value.unwrap_or_default().to_vec())
        };
        attributes(body).map(|(_, expression)| read(expression)).collect()
    }

    fn of(matches: impl Into<Vec<Match>>, verdict: Verdict) -> Vec<(String, Vec<u8>)> {
        names(expressions(&Rule { why: "", matches: matches.into(), verdict }, "inbound"))
    }

    fn expect(found: &[(String, Vec<u8>)], wanted: &[(&str, &[u8])]) {
        let found: Vec<(&str, &[u8])> =
            found.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        assert_eq!(found, wanted);
    }

    const META: (&str, &[u8]) = ("meta", &[]);
    const PAYLOAD: (&str, &[u8]) = ("payload", &[]);
    const IS_TCP: (&str, &[u8]) = ("cmp", &TCP);
    const VERDICT: (&str, &[u8]) = ("immediate", &[]);

    #[test]
    fn a_part_of_an_address_is_compared_under_a_mask() {
        let range = of([Match::Destination("10.96.0.0/12".parse().unwrap())], Verdict::Return);
        let masked = [
            META,
            ("cmp", &IPV4),
            PAYLOAD,
            ("bitwise", &[255, 240, 0, 0]),
            ("cmp", &[10, 96, 0, 0]),
            META,
            IS_TCP,
            VERDICT,
        ];
        expect(&range, &masked);
        let all = of([Match::Source("127.0.0.6/32".parse().unwrap())], Verdict::Inbound);
        expect(&all, &[META, ("cmp", &IPV4), PAYLOAD, ("cmp", &[127, 0, 0, 6]), META, IS_TCP, VERDICT]);
    }

    #[test]
    fn a_port_is_one_of_tcp() {
        let port = of([Match::Port(15006)], Verdict::Redirect(15001));
        let load = ("immediate", &15001u16.to_be_bytes()[..]);
        expect(&port, &[META, IS_TCP, PAYLOAD, ("cmp", &15006u16.to_be_bytes()), load, ("redir", &[])]);
    }

    #[test]
    fn a_name_is_compared_whole() {
        let named = of([Match::OutInterface("lo".to_owned())], Verdict::Return);
        expect(&named, &[META, ("cmp", b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), META, IS_TCP, VERDICT]);
    }
}
