//! Finding a server that may be known by its name only. Runs on main.
//!
//! There is no cache: a name is looked up for each attempt to connect, so that a server that moved is found again, and the pauses
//! between attempts are the pauses between look-ups. When a look-up fails, the last good answer is tried: whoever is there now
//! has to prove its name by TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use super::{DnsOptions, HostPort, LookupFamily, Resolver, ResolverSettings};

/// A server to connect to (gRPC's word), and where it was found last.
#[derive(Debug)]
pub struct Target {
    at: HostPort,
    resolver: Resolver,
    last: Mutex<Vec<IpAddr>>,
}

impl Target {
    /// Asks nobody yet.
    pub fn new(at: HostPort, dns: DnsOptions) -> Self {
        Self { at, resolver: Resolver::new(ResolverSettings::default(), dns), last: Mutex::default() }
    }

    /// As it was written.
    pub fn at(&self) -> &HostPort {
        &self.at
    }

    /// Its addresses now, IPv4 first; never empty.
    ///
    /// # Errors
    /// The name cannot be resolved now, and could not be before either.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let (name, port) = match &self.at {
            HostPort::Address(address) => return Ok(vec![*address]),
            HostPort::Name(name, port) => (name, *port),
        };
        let found = match self.resolver.look_up(name, LookupFamily::All).await {
            Ok(answer) if answer.addresses.is_empty() => {
                Err("there is no such name, or it has no address".to_owned())
            }
            Ok(answer) => Ok(sorted(answer.addresses)),
            Err(reason) => Err(reason),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) if *last != found => {
                tracing::info!(target: "config", "'{name}' is at {found:?}");
                *last = found;
            }
            Ok(_) => {}
            Err(reason) if last.is_empty() => return Err(format!("cannot resolve '{name}': {reason}")),
            Err(reason) => {
                tracing::warn!(target: "config", "cannot resolve '{name}': {reason}; trying the last answer, {last:?}");
            }
        }
        Ok(last.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }
}

/// Servers like to turn the order round; that is no move.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses
}
