//! What a source says goes to the configuration; what comes of it is logged and counted, the same for every kind of source.

use outrigger_xds_api::ResourceType;
use tokio::time::Instant;

use crate::config::apply::Update;
use crate::config::compile::Invalid;
use crate::config::handle::ConfigurationHandle;
use crate::config::sources::SourceId;
use crate::stats::Stats;

/// Applies what a source says of one type, and gives what was refused.
pub(super) fn apply(
    configuration: &ConfigurationHandle,
    source: SourceId,
    resource_type: ResourceType,
    updates: &[Update<'_>],
    removed: &[&str],
) -> Vec<Invalid> {
    let rejected = configuration.update(|c| c.apply(source, resource_type, updates, removed, Instant::now()));
    tracing::info!(
        target: "config",
        "{resource_type}: {} updated, {} removed, {} rejected",
        updates.len() - rejected.len(), removed.len(), rejected.len(),
    );
    for invalid in &rejected {
        tracing::warn!(target: "config", "rejected: {invalid}");
    }
    let outcome = if rejected.is_empty() { Outcome::Success } else { Outcome::Rejected };
    count(&configuration.read(|c| c.inputs().stats.clone()), resource_type, outcome);
    rejected
}

/// What an update came to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// Something came.
    Attempt,
    /// All of it is good.
    Success,
    /// Some of it is not.
    Rejected,
    /// It could not be read.
    Failure,
}

/// `listener_manager.lds.*` and `cluster_manager.cds.*`.
pub(super) fn count(stats: &Stats, resource_type: ResourceType, outcome: Outcome) {
    let server = stats.server();
    let counter = match (resource_type, outcome) {
        (ResourceType::Listener, Outcome::Attempt) => &server.lds_update_attempt,
        (ResourceType::Listener, Outcome::Success) => &server.lds_update_success,
        (ResourceType::Listener, Outcome::Rejected) => &server.lds_update_rejected,
        (ResourceType::Listener, Outcome::Failure) => &server.lds_update_failure,
        (ResourceType::Cluster, Outcome::Attempt) => &server.cds_update_attempt,
        (ResourceType::Cluster, Outcome::Success) => &server.cds_update_success,
        (ResourceType::Cluster, Outcome::Rejected) => &server.cds_update_rejected,
        (ResourceType::Cluster, Outcome::Failure) => &server.cds_update_failure,
        _ => return,
    };
    counter.inc();
}
