//! `HOST:PORT` as people, the injector and other meshes write the address of a server.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::DnsName;

/// Where a server is: an address, or a DNS name that stands for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// `IP:PORT`, an IPv6 address in brackets.
    Address(SocketAddr),
    /// `NAME:PORT`. A name that ends with a dot is looked up as it is, without search domains.
    Name(Arc<str>, u16),
}

impl HostPort {
    /// Whether it is this machine for certain: a loopback address or `localhost`, which no DNS server is asked for.
    pub fn is_loopback(&self) -> bool {
        match self {
            HostPort::Address(address) => address.ip().is_loopback(),
            HostPort::Name(name, _) => &**name == "localhost",
        }
    }

    /// The name that the server's certificate must have: as it is written, without a final dot, not as search domains
    /// complete it. `None` for an address.
    pub fn certificate_name(&self) -> Option<&str> {
        match self {
            HostPort::Address(_) => None,
            HostPort::Name(name, _) => Some(name.strip_suffix('.').unwrap_or(name)),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPort::Address(address) => address.fmt(f),
            HostPort::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        HostPort::Address(address)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(HostPort::Address(address));
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(|| format!("'{text}' has no port"))?;
        let port = port.parse().map_err(|_| format!("'{port}' is not a port"))?;
        match DnsName::try_from(name) {
            Ok(_) => Ok(HostPort::Name(name.into(), port)),
            Err(_) => Err(format!("'{name}' is neither a DNS name nor an IP address (IPv6 in brackets)")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn addresses_and_names() {
        let read = |text: &str| text.parse::<HostPort>().unwrap();
        assert_eq!(read("10.0.0.1:15012"), HostPort::Address(([10, 0, 0, 1], 15012).into()));
        assert_eq!(read("[::1]:1"), HostPort::Address("[::1]:1".parse().unwrap()));
        let name = read("outrigger-control-plane.outrigger-system.svc:15012");
        assert_eq!(name.certificate_name(), Some("outrigger-control-plane.outrigger-system.svc"));
        assert_eq!(read("istiod.:1").certificate_name(), Some("istiod"));
        for text in ["10.0.0.1:15012", "[::1]:1", "istiod.istio-system.svc.:15012"] {
            assert_eq!(read(text).to_string(), text);
        }
    }

    #[test]
    fn loopback_is_an_address_or_localhost() {
        let is_loopback = |text: &str| text.parse::<HostPort>().unwrap().is_loopback();
        assert!(["127.1.0.9:1", "[::1]:1", "localhost:1"].into_iter().all(is_loopback));
        assert!(!["192.0.2.1:1", "localhost.example:1"].into_iter().any(is_loopback));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for (text, reason) in [
            ("istiod", "'istiod' has no port"),
            ("istiod:https", "'https' is not a port"),
            ("istiod:70000", "'70000' is not a port"),
            (":15012", "'' is neither"),
            ("::1:15012", "'::1' is neither"),
            ("10.0.0:1", "'10.0.0' is neither"),
            ("a b:1", "'a b' is neither"),
        ] {
            let refused = text.parse::<HostPort>().unwrap_err();
            assert!(refused.starts_with(reason), "{text}: {refused}");
        }
    }
}
