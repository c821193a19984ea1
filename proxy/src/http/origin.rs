//! Where a request comes from: the client's address behind other proxies, whether it is inside, and what upstreams are told of it.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue, VIA};
use ipnet::IpNet;

use super::HttpConnectionManager;
use super::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use super::repeated;
use crate::net::Address;
use crate::stats::Reporter;
use crate::transport_socket::TlsInfo;

const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// Set for requests from inside, which only this proxy can say.
pub(crate) const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// `internal_address_config`: who is inside. Unset, nobody is, as in Envoy 1.40.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InternalAddresses {
    /// `unix_sockets`.
    pub unix_sockets: bool,
    /// `cidr_ranges`, by default [`InternalAddresses::PRIVATE`].
    pub ranges: Box<[IpNet]>,
}

impl InternalAddresses {
    /// Addresses of private networks (RFC 1918, RFC 4193) and of this machine.
    pub const PRIVATE: [&'static str; 6] =
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.1/32", "fc00::/7", "::1/128"];

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        !self.unix_sockets && self.ranges.is_empty()
    }

    fn contain(&self, address: &Address) -> bool {
        match address {
            Address::Ip(address) => self.ranges.iter().any(|range| range.contains(&address.ip())),
            Address::Pipe(_) => self.unix_sockets,
        }
    }
}

/// What is known of a request's origin.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The client's address, where it is not the connection's.
    pub(crate) address: Option<SocketAddr>,
    /// `http` or `https`, as the client spoke it to the first proxy that is trusted.
    pub(crate) scheme: &'static str,
    /// From inside.
    pub(crate) internal: bool,
    /// From outside, and this is the first proxy that it meets.
    pub(crate) edge: bool,
    /// The request may have `x-envoy-*` headers that the router listens to.
    pub(crate) asks_router: bool,
}

impl Origin {
    /// Finds the origin, and writes the forwarding headers. `scheme` is what the client speaks to us.
    pub(crate) fn find(
        hcm: &HttpConnectionManager,
        headers: &mut HeaderMap,
        peer: &Address,
        local: &Address,
        scheme: &'static str,
    ) -> Self {
        let hops = hcm.xff_num_trusted_hops as usize;
        let (address, alone) = match (hcm.use_remote_address, hops) {
            (true, 0) => (None, !headers.contains_key(X_FORWARDED_FOR)),
            (true, hops) => {
                (last_address(headers, hops - 1).map(|(ip, _)| ip), !headers.contains_key(X_FORWARDED_FOR))
            }
            (false, hops) if hcm.asks_address => {
                last_address(headers, hops).map_or((None, false), |(ip, alone)| (Some(ip), alone))
            }
            (false, _) => (None, false),
        };
        let address = address.map(|ip| SocketAddr::new(ip, 0));
        if hcm.use_remote_address && !hcm.skip_xff_append {
            append_forwarded_for(headers, peer);
        }
        let trusted = !hcm.use_remote_address || hops > 0;
        let scheme = match headers.get(X_FORWARDED_PROTO).filter(|_| trusted) {
            Some(proto) if proto == "https" => "https",
            Some(proto) if proto == "http" => "http",
            Some(_) => scheme,
            None => {
                headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
                scheme
            }
        };
        if hcm.append_x_forwarded_port
            && (!trusted || !headers.contains_key(X_FORWARDED_PORT))
            && let Address::Ip(local) = local
        {
            headers.insert(X_FORWARDED_PORT, HeaderValue::from(local.port()));
        }
        let internal = alone && !hcm.internal_addresses.is_empty() && {
            let known = address.map(Address::Ip);
            let direct = Some(peer).filter(|_| hcm.use_remote_address);
            known.as_ref().or(direct).is_some_and(|address| hcm.internal_addresses.contain(address))
        };
        Self { address, scheme, internal, edge: hcm.use_remote_address && !internal, asks_router: false }
    }

    /// Whether the router listens to what such a caller asks of it by headers. As in Envoy to callers inside; beside them, on the mesh's
    /// own listeners, to the own application and to callers whose certificate was verified.
    pub(crate) fn is_heard(&self, reporter: Option<Reporter>, tls: Option<&TlsInfo>) -> bool {
        self.internal
            || match reporter {
                None => false,
                Some(Reporter::Source) => true,
                Some(Reporter::Destination) => tls.is_some_and(|tls| tls.peer_principal.is_some()),
            }
    }

    /// Says what the origin is, once nothing of what the client said about it is left.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, peer: &Address) {
        if self.internal {
            headers.insert(INTERNAL, HeaderValue::from_static("true"));
        }
        let peer = match peer {
            Address::Ip(peer) => Some(*peer),
            Address::Pipe(_) => None,
        };
        // An address is always a valid header value.
        if self.edge
            && let Some(address) = self.address.or(peer)
            && let Ok(value) = HeaderValue::try_from(address.ip().to_string())
        {
            headers.insert(EXTERNAL_ADDRESS, value);
        }
    }
}

/// The address that the request names, when proxies in front are trusted and the connection's address is none of the client's.
pub(crate) fn forwarded_address(hcm: &HttpConnectionManager, headers: &HeaderMap) -> Option<IpAddr> {
    let hops = hcm.xff_num_trusted_hops as usize;
    (!hcm.use_remote_address).then(|| last_address(headers, hops))?.map(|(ip, _)| ip)
}

/// The address in `x-forwarded-for` that so many trusted proxies stand behind, and whether it is the only one.
pub(crate) fn last_address(headers: &HeaderMap, skipped: usize) -> Option<(IpAddr, bool)> {
    let text = headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
    let mut addresses = text.rsplit(',').skip(skipped);
    let address = addresses.next()?.trim().parse().ok()?;
    Some((address, skipped == 0 && addresses.next().is_none()))
}

/// `use_remote_address`: the peer's address is appended to `x-forwarded-for`.
fn append_forwarded_for(headers: &mut HeaderMap, peer: &Address) {
    let Some(ip) = peer.ip() else { return };
    // An address is always a valid header value.
    if let Ok(value) = HeaderValue::try_from(ip.to_string()) {
        repeated::append_value(headers, &X_FORWARDED_FOR, b",", value);
    }
}

/// `via`: this proxy's name behind those that were there before.
pub(crate) fn append_via(headers: &mut HeaderMap, name: &HeaderValue) {
    repeated::append_value(headers, &VIA, b", ", name.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_heard() {
        let heard = |internal, reporter, tls: Option<&TlsInfo>| {
            Origin { address: None, scheme: "http", internal, edge: false, asks_router: false }
                .is_heard(reporter, tls)
        };
        let stranger = TlsInfo::default();
        let member = TlsInfo { peer_principal: Some("spiffe://td/ns/n/sa/a".into()), ..TlsInfo::default() };
        assert!(heard(true, None, None));
        assert!(!heard(false, None, Some(&member)), "not a listener of the mesh");
        assert!(heard(false, Some(Reporter::Source), None));
        for (tls, expected) in [(None, false), (Some(&stranger), false), (Some(&member), true)] {
            assert_eq!(heard(false, Some(Reporter::Destination), tls), expected, "{tls:?}");
        }
    }

    #[test]
    fn forwarded_for_appends() {
        let mut headers = HeaderMap::new();
        let peer = Address::Ip(([127, 1, 0, 9], 5).into());
        append_forwarded_for(&mut headers, &peer);
        assert_eq!(headers[X_FORWARDED_FOR], "127.1.0.9");
        append_forwarded_for(&mut headers, &peer);
        assert_eq!(headers[X_FORWARDED_FOR], "127.1.0.9,127.1.0.9");
    }

    #[test]
    fn the_address_behind_trusted_proxies() {
        let found = |value: &'static str, skipped| {
            let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static(value))]);
            last_address(&headers, skipped).map(|(ip, alone)| (ip.to_string(), alone))
        };
        let is = |ip: &str, alone| Some((ip.to_owned(), alone));
        assert_eq!(found("1.2.3.4", 0), is("1.2.3.4", true));
        assert_eq!(found("1.2.3.4, 5.6.7.8", 0), is("5.6.7.8", false));
        assert_eq!(found("1.2.3.4,5.6.7.8", 1), is("1.2.3.4", false));
        assert_eq!(found("::1", 0), is("::1", true));
        assert_eq!(found("1.2.3.4", 1), None);
        assert_eq!(found("nobody", 0), None);
    }
}
