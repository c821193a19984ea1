//! Downstream: accept → listener filters → filter chain match → transport socket → network filter.
//!
//! Compiled on main, run on the workers. A worker reads the `Live<Listener>` at each accept, so that new content needs no new
//! socket, and a connection keeps the listener that it was accepted with, or that it was handed to because of its original
//! destination.

mod accept;
mod by_address;
mod connection;
mod filter_chain;
mod filter_chain_match;
pub mod http_inspector;
mod inspect;
mod listener_filter;
mod prefixes;
mod sorted_map;
pub mod tls_fingerprint;
pub mod tls_inspector;

use std::sync::Arc;
use std::time::Duration;

use crate::net::Address;
use crate::stats::ListenerStats;

pub use accept::accept_loop;
pub use by_address::ListenersByAddress;
pub use filter_chain::{FilterChain, NetworkFilter};
pub use filter_chain_match::{ConnectionFacts, FilterChainMatch, FilterChains, SourceType};
pub use inspect::InspectError;
pub use listener_filter::{ConnectionPredicate, ListenerFilter, ListenerFilterKind};

/// `envoy.config.listener.v3.Listener`, compiled. The sockets live apart from it: a new `Listener` under the same name and
/// address changes no socket.
#[derive(Debug)]
pub struct Listener {
    /// `name`.
    pub name: Arc<str>,
    /// `address` and `additional_addresses`.
    pub addresses: Vec<Address>,
    /// `bind_to_port`: without it there is no socket, and connections come from listeners that hand them over.
    pub is_bound: bool,
    /// `use_original_dst`: connections go to the listener of their original destination, if there is one.
    pub hands_over: bool,
    /// `listener_filters`, in their order.
    pub filters: Vec<ListenerFilter>,
    /// `filter_chains`, as a matcher.
    pub filter_chains: FilterChains,
    /// `listener_filters_timeout`, default 15 s, `None` = off.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_timeout: bool,
    /// `ignore_global_conn_limit`: its connections are accepted however many there are in the process.
    pub ignores_connection_limit: bool,
    /// `bypass_overload_manager`: nothing is shed here.
    pub bypasses_overload: bool,
    /// `tcp_backlog_size`.
    pub backlog: u32,
    /// `envoy_listener_*`.
    pub stats: Arc<ListenerStats>,
    /// `access_log` of the listener: one line for each connection, at its end.
    pub access_logs: crate::access_log::AccessLogs,
}

#[cfg(test)]
pub(crate) mod drain_tests;
#[cfg(test)]
mod tests;
