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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::test_objects;

    #[tokio::test]
    async fn publishes_nothing_before_the_source_is_synced() {
        let (events, receiver) = mpsc::channel(8);
        let (publish, mut snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let task = tokio::spawn(run(MeshSettings::default(), receiver, publish));
        let upsert = |text: &str| test_objects(text).into_iter().map(Event::Upsert).collect::<Vec<_>>();
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: NAME}, spec: {}, status: {podIP: 127.1.0.1}}";
        events.send(upsert(&pod.replace("NAME", "a"))).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!snapshots.has_changed().unwrap());
        let mut second = upsert(&pod.replace("NAME", "b"));
        second.push(Event::Synced);
        events.send(second).await.unwrap();
        snapshots.changed().await.unwrap();
        let snapshot = snapshots.borrow_and_update().clone();
        assert_eq!((snapshot.generation(), snapshot.scopes().count()), (1, 2));
        drop(events);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_empty_mesh_is_published() {
        let (events, receiver) = mpsc::channel(8);
        let (publish, mut snapshots) = watch::channel(Arc::new(Snapshot::default()));
        tokio::spawn(run(MeshSettings::default(), receiver, publish));
        events.send(vec![Event::Synced]).await.unwrap();
        snapshots.changed().await.unwrap();
        assert_eq!(snapshots.borrow().generation(), 1);
    }
}
