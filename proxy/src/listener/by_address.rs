//! The listeners of one worker by their addresses: where a connection is handed whose original destination was restored.
//!
//! Holds cells, not listeners, so new content needs no change here. Runs on the worker.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Listener;
use crate::config::live::Live;

/// See the module.
#[derive(Debug, Default)]
pub struct ListenersByAddress(RefCell<FxHashMap<SocketAddr, Arc<Live<Listener>>>>);

impl ListenersByAddress {
    /// This listener has this address from now on, whether it is bound there or not.
    pub fn insert(&self, address: SocketAddr, listener: Arc<Live<Listener>>) {
        self.0.borrow_mut().insert(address, listener);
    }

    /// The listener of this name does not have this address any more; another one may have it already.
    pub fn remove(&self, address: SocketAddr, name: &str) {
        let mut listeners = self.0.borrow_mut();
        if listeners.get(&address).is_some_and(|listener| **listener.name() == *name) {
            listeners.remove(&address);
        }
    }

    /// The published listener whose address is `destination`, else the one on its port of all addresses of its IP version.
    pub(super) fn find(&self, destination: SocketAddr) -> Option<(Arc<Live<Listener>>, Arc<Listener>)> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listeners = self.0.borrow();
        // Without scope and flow label, which a listener's address does not have.
        [destination.ip(), any].into_iter().find_map(|ip| {
            let live = listeners.get(&SocketAddr::new(ip, destination.port()))?;
            Some((live.clone(), live.get()?))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::listener::FilterChains;
    use crate::tcp::tests::Setup;

    fn live(name: &str) -> Arc<Live<Listener>> {
        let setup = Setup::new();
        Live::with(name, Arc::new(setup.listener(FilterChains::build(Vec::new(), None).unwrap())))
    }

    #[test]
    fn the_exact_address_then_the_port_of_all_addresses() {
        let listeners = ListenersByAddress::default();
        for (address, name) in [
            ("10.0.0.1:80", "exact"),
            ("0.0.0.0:80", "port"),
            ("[::]:80", "port of IPv6"),
            ("0.0.0.0:81", "other port"),
        ] {
            listeners.insert(address.parse().unwrap(), live(name));
        }
        let found =
            |address: &str| listeners.find(address.parse().unwrap()).map(|(live, _)| live.name().to_string());
        assert_eq!(found("10.0.0.1:80").as_deref(), Some("exact"));
        assert_eq!(found("10.0.0.2:80").as_deref(), Some("port"));
        assert_eq!(found("[2001:db8::1]:80").as_deref(), Some("port of IPv6"));
        assert_eq!(found("[2001:db8::1]:81"), None);
        assert_eq!(found("10.0.0.1:82"), None);

        listeners.remove("10.0.0.1:80".parse().unwrap(), "another");
        assert_eq!(found("10.0.0.1:80").as_deref(), Some("exact"));
        listeners.remove("10.0.0.1:80".parse().unwrap(), "exact");
        assert_eq!(found("10.0.0.1:80").as_deref(), Some("port"));
    }

    #[test]
    fn a_listener_that_is_not_published_is_passed_over() {
        let listeners = ListenersByAddress::default();
        let exact = live("exact");
        listeners.insert("10.0.0.1:80".parse().unwrap(), exact.clone());
        listeners.insert("0.0.0.0:80".parse().unwrap(), live("port"));
        exact.withdraw();
        let (found, _) = listeners.find("10.0.0.1:80".parse().unwrap()).unwrap();
        assert_eq!(&**found.name(), "port");
    }
}
