//! What configuration counts in `envoy_cluster_*`, `envoy_http_rds_*`, `envoy_listener_manager_*` and `envoy_cluster_manager_*`
//! about its updates. Runs on main.

use std::sync::Arc;

use super::compile::Discovery;
use super::configuration::Configuration;
use super::sources::SourceId;
use super::warming::Slot;
use crate::cluster::EndpointSet;
use crate::stats::{ClusterStats, RdsStats};

/// What came of an update of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointUpdate {
    /// The hosts or their weights are other ones.
    Changed,
    /// It says what the one before it said.
    Unchanged,
    /// It is not valid.
    Rejected,
}

impl Configuration {
    /// The statistics of a route configuration, held until it is forgotten.
    pub(super) fn rds_stats(&mut self, name: &str) -> Arc<RdsStats> {
        if let Some(stats) = self.rds_stats.get(name) {
            return stats.clone();
        }
        let stats = self.inputs.stats.rds(name);
        self.rds_stats.insert(name.into(), stats.clone());
        stats
    }

    /// Counts an update in each cluster that uses these endpoints.
    pub(super) fn count_endpoint_update(&self, source: SourceId, name: &str, update: EndpointUpdate) {
        let assignment = self.assignments.of(source).and_then(|all| all.get(name));
        let is_empty = assignment.is_some_and(|a| a.value.hosts.is_empty());
        let users = self.endpoint_users.of(source).and_then(|users| users.get(name));
        for cluster in users.into_iter().flatten() {
            let Some(version) = self.clusters.get(cluster).and_then(Slot::newest) else { continue };
            let stats = &version.compiled.cluster.stats;
            stats.update_attempt.inc();
            if update == EndpointUpdate::Rejected {
                stats.update_rejected.inc();
                continue;
            }
            stats.update_success.inc();
            if update == EndpointUpdate::Unchanged {
                stats.update_no_rebuild.inc();
            }
            if is_empty {
                stats.update_empty.inc();
            }
        }
    }

    /// Counts the loss of the control plane in everything that it would have updated.
    pub fn count_lost_control_plane(&self) {
        let server = self.inputs.stats.server();
        server.lds_update_failure.inc();
        server.cds_update_failure.inc();
        self.rds_stats.values().for_each(|stats| stats.update_failure.inc());
        let versions = self.clusters.iter().filter_map(|(_, slot)| slot.newest());
        for version in versions.filter(|v| matches!(v.compiled.discovery, Discovery::Eds { .. })) {
            version.compiled.cluster.stats.update_failure.inc();
        }
    }

    /// Brings the numbers of clusters and listeners up to date.
    pub(super) fn count(&self) {
        let stats = self.inputs.stats.server();
        stats.active_clusters.set(number(self.clusters.active_count()));
        stats.warming_clusters.set(number(self.clusters.waiting_count()));
        stats.total_listeners_active.set(number(self.listeners.active_count()));
        stats.total_listeners_warming.set(number(self.listeners.waiting_count()));
    }
}

/// Counts a set of hosts that takes the place of another one.
pub(super) fn count_membership(stats: &ClusterStats, old: Option<&EndpointSet>, new: &EndpointSet) {
    new.count(stats);
    let ids = |set: &EndpointSet| {
        let mut ids: Vec<u64> = set.hosts().map(|host| host.id).collect();
        ids.sort_unstable();
        ids
    };
    if old.map(ids).unwrap_or_default() != ids(new) {
        stats.membership_change.inc();
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
