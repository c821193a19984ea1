//! From events to published snapshots.
//!
//! One task owns the [`Engine`]: it takes batches of events from the sources, merges those that wait, and publishes one
//! snapshot for them. Nothing is published before every source is synced, so no proxy ever sees half a mesh.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::model::{Finding, MeshSettings};
use crate::snapshot::{Engine, Snapshot};
use crate::source::Event;

/// Runs until the source is gone (`events` is closed) or nobody reads (`publish` has no receiver). The first snapshot, after
/// [`Event::Synced`], has generation 1.
pub async fn run(
    settings: MeshSettings,
    mut events: mpsc::Receiver<Vec<Event>>,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    let mut engine = Engine::new(settings);
    let mut synced = false;
    while let Some(mut batch) = events.recv().await {
        while let Ok(more) = events.try_recv() {
            batch.extend(more);
        }
        synced |= batch.iter().any(|event| matches!(event, Event::Synced));
        engine.apply(batch);
        if !synced {
            continue;
        }
        let before = publish.borrow().clone();
        let Some(after) = engine.publish() else { continue };
        tell("refused", before.rejections(), after.rejections());
        tell("without full effect", before.problems(), after.problems());
        info!(
            generation = after.generation(),
            proxies = after.scopes().count(),
            rejections = after.rejections().len(),
            "configuration published"
        );
        if publish.send(after).is_err() {
            return;
        }
    }
}

/// Logs what is new among findings.
fn tell(what: &str, before: &[Finding], after: &[Finding]) {
    let before: BTreeSet<&Finding> = before.iter().collect();
    for finding in after.iter().filter(|finding| !before.contains(finding)) {
        warn!("{what}: {finding}");
    }
}
