//! Opaque TCP: `tcp_proxy` and the copy loop. Runs on the workers.

mod buffered;
mod copy;
mod mesh_metrics;
mod proxy;
mod splice;

use std::sync::Arc;
use std::time::Duration;

use crate::access_log::AccessLogs;
use crate::cluster::lb::Criteria;
use crate::route::Clusters;
use crate::stats::{Reporter, TcpStats};

pub use copy::{ByteCounts, CopyEnd, CopyLimits, copy_bidirectional};
pub use proxy::serve;

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`, compiled.
#[derive(Debug)]
pub struct TcpProxy {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// `cluster` or `weighted_clusters`.
    pub clusters: Clusters,
    /// `metadata_match`: what is asked of the hosts.
    pub criteria: Option<Arc<Criteria>>,
    /// `idle_timeout`, default 1 h; `None` = off.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `max_connect_attempts`, default 1.
    pub max_connect_attempts: u32,
    /// `hash_policy` has `source_ip`: clusters with a hash table pick by the peer's address.
    pub hashes_source_ip: bool,
    /// `access_log`.
    pub access_logs: AccessLogs,
    /// `access_log_options.flush_access_log_on_connected`.
    pub log_on_connected: bool,
    /// `access_log_options.flush_access_log_on_start`.
    pub log_on_start: bool,
    /// `access_log_options.access_log_flush_interval`.
    pub log_interval: Option<Duration>,
    /// `envoy_tcp_*`.
    pub stats: Arc<TcpStats>,
    /// Our own: mesh metrics.
    pub reporter: Option<Reporter>,
}

#[cfg(test)]
pub(crate) mod tests;
