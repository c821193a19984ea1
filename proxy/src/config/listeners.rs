//! Listeners between configuration and workers: their sockets, and what the workers are told.
//!
//! A socket belongs to an address, not to a version of the listener: versions that have an address in common share its sockets,
//! so a change of content never touches them. Main keeps one handle of each, so an address that stays is never unbound. A listener
//! that is not bound to its port has addresses and no sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::compile::{CompiledListener, References};
use super::live::Live;
use super::warming::{Slot, Slots};
use crate::listener::Listener;
use crate::net::{Address, ListenOptions, ListenSocket, bind_listeners};
use crate::stats::ServerStats;

/// What the workers have to be told.
#[derive(Debug)]
pub enum Change {
    /// Accept connections for this listener, and no longer on other sockets than these. Its connections live on.
    Listen {
        /// Read at each accept, so a new version needs no change.
        listener: Arc<Live<Listener>>,
        /// Its IP addresses, bound or not: connections are handed over to them.
        addresses: Vec<SocketAddr>,
        /// For each worker: its sockets, one per address; none when it is not bound.
        sockets: Vec<Vec<ListenSocket>>,
    },
    /// Accept no more; connections drain.
    Stop {
        /// `Listener.name`.
        name: Arc<str>,
        /// Ids of its filter chains.
        gone: Vec<u64>,
    },
    /// Connections of these chains end at their next request boundary.
    DrainChains {
        /// `Listener.name`.
        name: Arc<str>,
        /// Ids of the filter chains.
        gone: Vec<u64>,
    },
}

/// The sockets of one address, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// As configured.
    pub address: Address,
    sockets: Vec<ListenSocket>,
}

impl Bound {
    /// Where it listens: with the port that the system picked.
    pub fn local_address(&self) -> Address {
        let local = self.sockets.first().and_then(|socket| socket.local_address().ok());
        local.unwrap_or_else(|| self.address.clone())
    }
}

/// A listener with its sockets.
#[derive(Debug)]
pub struct ListenerVersion {
    /// The compiled listener.
    pub compiled: CompiledListener,
    /// What it refers to.
    pub(super) references: References,
    /// One per address; none when it is not bound.
    pub(super) sockets: Vec<Arc<Bound>>,
}

impl ListenerVersion {
    /// The sockets of its addresses; none when it is not bound.
    pub fn bound(&self) -> &[Arc<Bound>] {
        &self.sockets
    }

    /// Its addresses, those that are bound with the port that the system picked.
    pub fn local_addresses(&self) -> Vec<Address> {
        match self.compiled.listener.is_bound {
            true => self.sockets.iter().map(|bound| bound.local_address()).collect(),
            false => self.compiled.listener.addresses.clone(),
        }
    }

    /// What the workers are told when this version takes the place of `replaced`.
    pub(super) fn changes(
        &self,
        cell: &Arc<Live<Listener>>,
        replaced: Option<&ListenerVersion>,
        workers: usize,
        stats: &ServerStats,
    ) -> Vec<Change> {
        let name = &self.compiled.listener.name;
        let mut changes = Vec::new();
        if !replaced.is_some_and(|old| self.listens_like(old)) {
            changes.extend(self.listen(cell, workers, stats));
        }
        if let Some(old) = replaced {
            let kept = &self.compiled.chains;
            let gone = old.compiled.chains.iter().map(|compiled| compiled.chain.id);
            let gone: Vec<u64> =
                gone.filter(|id| !kept.iter().any(|compiled| compiled.chain.id == *id)).collect();
            if !gone.is_empty() {
                changes.push(Change::DrainChains { name: name.clone(), gone });
            }
        }
        changes
    }

    /// Whether addresses and sockets are the same.
    fn listens_like(&self, other: &ListenerVersion) -> bool {
        let (listener, others) = (&self.compiled.listener, &other.compiled.listener);
        listener.is_bound == others.is_bound
            && listener.addresses == others.addresses
            && self.sockets.len() == other.sockets.len()
            && self.sockets.iter().zip(&other.sockets).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn listen(&self, cell: &Arc<Live<Listener>>, workers: usize, stats: &ServerStats) -> Option<Change> {
        let ip = |address| match address {
            Address::Ip(ip) => Some(ip),
            Address::Pipe(_) => None,
        };
        let addresses = self.local_addresses().into_iter().filter_map(ip).collect();
        let sockets = (0..workers).map(|worker| self.sockets_of(worker)).collect::<Result<Vec<_>, _>>();
        match sockets {
            Ok(sockets) => Some(Change::Listen { listener: cell.clone(), addresses, sockets }),
            Err(error) => {
                // Out of file descriptors: the listener is bound but nobody accepts.
                stats.listener_create_failure.inc();
                tracing::error!(target: "config", "listener '{}': {error}", self.compiled.listener.name);
                None
            }
        }
    }

    fn sockets_of(&self, worker: usize) -> std::io::Result<Vec<ListenSocket>> {
        self.sockets
            .iter()
            .filter_map(|bound| bound.sockets.get(worker))
            .map(ListenSocket::try_clone)
            .collect()
    }
}

/// The sockets for a new version: those of the versions before it, or of a listener that is leaving, where the address is the same;
/// else new ones.
pub(super) fn bind(
    listeners: &Slots<ListenerVersion>,
    leaving: &FxHashSet<Arc<str>>,
    compiled: &CompiledListener,
    workers: usize,
) -> Result<Vec<Arc<Bound>>, String> {
    if !compiled.listener.is_bound {
        return Ok(Vec::new());
    }
    let options = ListenOptions { backlog: compiled.listener.backlog, ..ListenOptions::default() };
    let existing = |address: &Address| {
        let names = [&compiled.listener.name].into_iter().chain(leaving);
        let versions = names.filter_map(|name| listeners.get(name)).flat_map(Slot::versions);
        versions.flat_map(|version| &version.sockets).find(|bound| bound.address == *address).cloned()
    };
    compiled
        .listener
        .addresses
        .iter()
        .map(|address| {
            if let Some(bound) = existing(address) {
                return Ok(bound);
            }
            let sockets = if workers == 0 {
                Vec::new()
            } else {
                bind_listeners(address, &options, workers).map_err(|e| e.to_string())?
            };
            Ok(Arc::new(Bound { address: address.clone(), sockets }))
        })
        .collect()
}

/// Which listeners have an address, in any of their versions.
#[derive(Debug, Default)]
pub struct AddressUsers(FxHashMap<Address, Vec<Arc<str>>>);

impl AddressUsers {
    /// A listener has a new version.
    pub(super) fn add(&mut self, compiled: &CompiledListener) {
        let name = &compiled.listener.name;
        for address in &compiled.listener.addresses {
            let users = self.0.entry(address.clone()).or_default();
            if !users.contains(name) {
                users.push(name.clone());
            }
        }
    }

    /// A version of a listener is gone; `slot` has what is left.
    pub(super) fn remove(&mut self, compiled: &CompiledListener, slot: Option<&Slot<ListenerVersion>>) {
        let has = |version: &ListenerVersion, address| version.compiled.listener.addresses.contains(address);
        for address in &compiled.listener.addresses {
            let is_used = slot.is_some_and(|slot| slot.versions().any(|version| has(version, address)));
            if !is_used && let Some(users) = self.0.get_mut(address) {
                users.retain(|user| *user != compiled.listener.name);
                if users.is_empty() {
                    self.0.remove(address);
                }
            }
        }
    }
}

/// Refuses an address that another listener has and keeps, bound or not. A bound port 0 is never the same twice.
pub(super) fn bound_elsewhere(
    users: &AddressUsers,
    leaving: &FxHashSet<Arc<str>>,
    compiled: &CompiledListener,
) -> Result<(), String> {
    let name = &compiled.listener.name;
    let is_bound = compiled.listener.is_bound;
    let is_fixed = |address: &Address| !is_bound || !matches!(address, Address::Ip(ip) if ip.port() == 0);
    for (i, address) in compiled.listener.addresses.iter().enumerate().filter(|(_, a)| is_fixed(a)) {
        if compiled.listener.addresses[..i].contains(address) {
            return Err(format!("listener '{name}' has the address '{address}' twice"));
        }
        let mut others = users.0.get(address).into_iter().flatten();
        if let Some(other) = others.find(|other| *other != name && !leaving.contains(*other)) {
            return Err(format!(
                "error adding listener: '{name}' has duplicate address '{address}' as existing listener '{other}'"
            ));
        }
    }
    Ok(())
}
