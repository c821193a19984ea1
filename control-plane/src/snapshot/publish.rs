//! From events to published snapshots.
//!
//! One task owns the [`Engine`]: it takes batches of events from the sources, lets changes settle while endpoints overtake
//! ([`Lanes`]), and publishes one snapshot for what became due. Nothing is published before every source is synced, so no
//! proxy ever sees half a mesh.

use std::collections::BTreeSet;
use std::future;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::model::{Finding, MeshSettings};
use crate::snapshot::lanes::Lanes;
use crate::snapshot::{Engine, Snapshot};
use crate::source::Event;

/// Runs until the source is gone (`events` is closed) or nobody reads (`publish` has no receiver). The first snapshot, at
/// [`Event::Synced`], has generation 1.
pub async fn run(
    settings: MeshSettings,
    mut events: mpsc::Receiver<Vec<Event>>,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    let mut engine = Engine::new(settings);
    let mut synced = false;
    while !synced {
        let Some(batch) = events.recv().await else { return };
        synced = batch.iter().any(|event| matches!(event, Event::Synced));
        engine.apply(batch);
    }
    let mut lanes = Lanes::default();
    loop {
        if !publish_changes(&mut engine, &publish) {
            return;
        }
        let due = tokio::select! {
            received = events.recv() => {
                let Some(batch) = received else { return };
                lanes.add(batch, Instant::now())
            }
            () = sleep_until(lanes.due()) => lanes.take(),
        };
        engine.apply(due);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => future::pending().await,
    }
}

/// Publishes when something changed. `false` when nobody reads any more.
fn publish_changes(engine: &mut Engine, publish: &watch::Sender<Arc<Snapshot>>) -> bool {
    let before = publish.borrow().clone();
    let Some(after) = engine.publish() else { return true };
    tell("refused", before.rejections(), after.rejections());
    tell("without full effect", before.problems(), after.problems());
    info!(
        generation = after.generation(),
        proxies = after.scopes().count(),
        rejections = after.rejections().len(),
        "configuration published"
    );
    publish.send(after).is_ok()
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

    #[tokio::test(start_paused = true)]
    async fn changes_settle_and_endpoints_overtake() {
        let (events, receiver) = mpsc::channel(8);
        let (publish, mut snapshots) = watch::channel(Arc::new(Snapshot::default()));
        tokio::spawn(run(MeshSettings::default(), receiver, publish));
        events.send(vec![Event::Synced]).await.unwrap();
        snapshots.changed().await.unwrap();
        let start = Instant::now();
        let send = async |text: &str| {
            events.send(test_objects(text).into_iter().map(Event::Upsert).collect()).await.unwrap();
        };
        send("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}").await;
        send("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}, status: {podIP: 127.1.0.1}}").await;
        snapshots.changed().await.unwrap();
        let snapshot = snapshots.borrow_and_update().clone();
        assert_eq!((snapshot.generation(), snapshot.scopes().count()), (2, 1));
        assert_eq!(start.elapsed().as_millis(), 0, "the Pod did not wait");
        send("{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 80}]}}").await;
        snapshots.changed().await.unwrap();
        assert_eq!(snapshots.borrow_and_update().generation(), 3, "both Services in one");
        assert!((10..=11).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}
