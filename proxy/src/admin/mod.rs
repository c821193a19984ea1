//! The admin interface: Envoy's endpoints, over HTTP/1 on the main runtime; and the two small servers beside it (Prometheus for
//! scrapers, readiness for the kubelet).
//!
//! What it shows comes through [`AdminView`], which the server implements. Secrets are never shown: certificates by their public
//! facts only, and private material in `/config_dump` as `[redacted]`.

mod certs;
mod clusters;
mod config_dump;
mod endpoints;
pub(crate) mod query;
mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use certs::CertificateEntry;
pub(crate) use endpoints::ready;
pub use serve::{serve, serve_prometheus, serve_readiness};

use crate::access_log::LogFiles;
use crate::cluster::Cluster;
use crate::logging::Logging;
use crate::net::Address;
use crate::stats::Stats;

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Takes traffic.
    Live,
    /// Finishes what it has; also after `/healthcheck/fail`.
    Draining,
    /// Waits for the first configuration of the clusters.
    PreInitializing,
    /// Waits for the first configuration of listeners and what they need.
    Initializing,
}

impl ServerState {
    /// Envoy's name.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerState::Live => "LIVE",
            ServerState::Draining => "DRAINING",
            ServerState::PreInitializing => "PRE_INITIALIZING",
            ServerState::Initializing => "INITIALIZING",
        }
    }

    /// The value of `envoy_server_state`.
    pub fn number(self) -> i64 {
        self as i64
    }
}

/// A cluster as `/clusters` shows it.
#[derive(Debug, Clone)]
pub struct ClusterEntry {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// It came by CDS.
    pub added_via_api: bool,
}

/// A listener as `/listeners` shows it.
#[derive(Debug, Clone)]
pub struct ListenerEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens, with the port that the system picked.
    pub addresses: Vec<Address>,
}

/// What `/drain_listeners` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drain {
    /// Only listeners with `traffic_direction: INBOUND`.
    pub inbound_only: bool,
    /// Discourage new requests for the drain time before listeners close.
    pub graceful: bool,
    /// Drain connections, but let the listeners go on.
    pub skip_exit: bool,
}

/// What the admin interface shows and does.
pub trait AdminView: Send + Sync + 'static {
    /// Where the process is in its life.
    fn state(&self) -> ServerState;
    /// Why a process that is live should get no traffic, if that is so.
    fn unready_reason(&self) -> Option<String>;
    /// What is shed under pressure at present: the name of the action or point, and how strongly it is on, percent.
    fn shedding(&self) -> Vec<(&'static str, u32)> {
        Vec::new()
    }
    /// Active clusters, by name.
    fn clusters(&self) -> Vec<ClusterEntry>;
    /// Active listeners, by name.
    fn listeners(&self) -> Vec<ListenerEntry>;
    /// `envoy.admin.v3.ConfigDump` as JSON. Need not be redacted.
    fn config_dump(&self, include_eds: bool) -> serde_json::Value;
    /// Certificates in use.
    fn certs(&self) -> Vec<CertificateEntry>;
    /// `envoy.admin.v3.CommandLineOptions` as JSON.
    fn command_line_options(&self) -> serde_json::Value;
    /// `envoy.config.core.v3.Node` as JSON.
    fn node(&self) -> serde_json::Value;
    /// `/healthcheck/fail` (false) and `/healthcheck/ok` (true).
    fn set_healthy(&self, healthy: bool);
    /// `/drain_listeners`.
    fn drain(&self, drain: Drain);
    /// `/quitquitquit`.
    fn quit(&self);
}

/// All that the admin interface works with.
#[derive(Clone)]
pub struct AdminState {
    /// The server.
    pub view: Arc<dyn AdminView>,
    /// Its statistics.
    pub stats: Arc<Stats>,
    /// Its access logs.
    pub log_files: Arc<LogFiles>,
    /// Its process log.
    pub logging: Arc<Logging>,
}

impl AdminState {
    /// `/stats/prometheus` with this query (`usedonly`, `filter=`).
    ///
    /// # Errors
    /// What is wrong with the query.
    pub fn prometheus(&self, query: Option<&str>) -> Result<String, String> {
        endpoints::prometheus_page(self, &query::Query::parse(query))
    }

    /// Brings statistics up to date that only the view knows. Called before statistics are shown.
    fn refresh_stats(&self) {
        let (server, state, now) = (self.stats.server(), self.view.state(), SystemTime::now());
        server.state.set(state.number());
        server.live.set(i64::from(state == ServerState::Live));
        let certificates = self.view.certs();
        let days = certificates
            .iter()
            .flat_map(|entry| entry.chain.iter().chain(&entry.ca))
            .map(|certificate| certs::days_until_expiration(certificate, now))
            .min();
        // Without any certificate the gauge stays untouched, at zero.
        if let Some(days) = days {
            server.days_until_first_cert_expiring.set(i64::try_from(days).unwrap_or(i64::MAX));
        }
    }
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState").field("state", &self.view.state()).finish_non_exhaustive()
    }
}
