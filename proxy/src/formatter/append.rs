//! How values are appended.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::net::Address;

/// What an operator appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// Nothing: the value is not known.
    Empty,
    /// What JSON has without quotes: a number, or JSON text.
    Raw,
    /// Text.
    Text,
}

/// Text; empty text is a value that is not known.
pub(super) fn text(value: Option<&str>, out: &mut Vec<u8>) -> Appended {
    match value {
        Some(value) if !value.is_empty() => {
            out.extend_from_slice(value.as_bytes());
            Appended::Text
        }
        _ => Appended::Empty,
    }
}

pub(super) fn number(value: u64, out: &mut Vec<u8>) -> Appended {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    Appended::Raw
}

pub(super) fn milliseconds(value: Option<Duration>, out: &mut Vec<u8>) -> Appended {
    match value {
        Some(value) => number(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), out),
        None => Appended::Empty,
    }
}

/// The values with commas between them.
pub(super) fn joined<T: AsRef<[u8]>>(values: impl IntoIterator<Item = T>, out: &mut Vec<u8>) -> Appended {
    let start = out.len();
    for value in values {
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(value.as_ref());
    }
    if out.len() > start { Appended::Text } else { Appended::Empty }
}

/// Free text without white space, so that fields of a line stay apart.
pub(super) fn underscored(value: &str, out: &mut Vec<u8>) -> Appended {
    out.extend(value.bytes().map(|b| if b.is_ascii_whitespace() { b'_' } else { b }));
    if value.is_empty() { Appended::Empty } else { Appended::Text }
}

/// Cuts what stands in `out` from `start` on to `length` bytes.
pub(super) fn clip(appended: Appended, start: usize, length: usize, out: &mut Vec<u8>) -> Appended {
    if out.len() - start > length {
        out.truncate(start + length);
    }
    appended
}

/// A part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressPart {
    Whole,
    WithoutPort,
    Port,
    /// Its network of this prefix length.
    Network(u8),
}

impl AddressPart {
    /// What stands in the brackets of `..._WITHOUT_PORT`. Envoy takes any text for no length.
    ///
    /// # Errors
    /// Neither IPv4 nor IPv6 has so long a prefix.
    pub(super) fn without_port(parameters: &str) -> Result<Self, String> {
        match parameters.parse() {
            Ok(length @ 0..=128) => Ok(AddressPart::Network(length)),
            _ if parameters.is_empty() => Ok(AddressPart::WithoutPort),
            _ => Err(format!("'{parameters}' is not the length of an address prefix")),
        }
    }
}

pub(super) fn address(address: Option<&Address>, part: AddressPart, out: &mut Vec<u8>) -> Appended {
    match (address, part) {
        (None, _) | (Some(Address::Pipe(_)), AddressPart::Port) => Appended::Empty,
        (Some(Address::Ip(address)), part) => socket_address(*address, part, out),
        (Some(Address::Pipe(path)), _) => {
            out.extend_from_slice(path.as_os_str().as_encoded_bytes());
            Appended::Text
        }
    }
}

pub(super) fn socket_address(address: SocketAddr, part: AddressPart, out: &mut Vec<u8>) -> Appended {
    match part {
        AddressPart::Port => return number(address.port().into(), out),
        AddressPart::Network(length) => return network(address.ip(), length, out),
        AddressPart::Whole | AddressPart::WithoutPort => {}
    }
    match address.ip() {
        // By hand: `Display` of an address costs as much as the rest of a line.
        IpAddr::V4(ip) => {
            for (i, octet) in ip.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(ip) if part == AddressPart::WithoutPort => drop(write!(out, "{ip}")),
        IpAddr::V6(ip) => drop(write!(out, "[{ip}]")),
    }
    if part == AddressPart::Whole {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
    }
    Appended::Text
}

/// `10.1.0.0/16`; nothing when the address has not so many bits.
fn network(ip: IpAddr, length: u8, out: &mut Vec<u8>) -> Appended {
    let Ok(network) = ipnet::IpNet::new(ip, length) else { return Appended::Empty };
    drop(write!(out, "{}", network.trunc()));
    Appended::Text
}
