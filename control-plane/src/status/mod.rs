//! What became of the user's objects, told where the user looks.
//!
//! [`by_proxies`] turns what proxies refuse into findings about objects; [`objects`] puts all that is known of an object
//! together; [`files`] writes it beside the objects of a directory, [`cluster`] into the objects of an API server as [`conditions`],
//! of [`policies`] for each target.
//! Invariants: a status is never read as configuration, and
//! writing one never delays a push. Runs on the main runtime; files are written on its blocking pool.

pub mod by_proxies;
mod cluster;
mod conditions;
mod files;
mod lease;
mod objects;
mod policies;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use crate::ads::proxies::Proxies;
use crate::snapshot::Snapshot;
pub use cluster::InCluster;
use files::StatusFiles;

/// After a change so long is waited for more of it: a refusal mostly comes from many proxies at once.
const SETTLE: Duration = Duration::from_millis(100);

/// The name of the folder of statuses, in the directory of objects.
pub const FOLDER: &str = ".status";

/// A time for people, to the second.
fn timestamp(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Keeps the files in `folder` equal to what became of the objects in `source`, until the source is gone.
pub async fn keep_files(
    source: PathBuf,
    folder: PathBuf,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    proxies: Arc<Proxies>,
) {
    let mut files = StatusFiles::new(source, folder);
    let mut refusals = proxies.follow_refusals();
    loop {
        refusals.borrow_and_update();
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if snapshot.generation() > 0 {
            let statuses = objects::statuses(&snapshot, &proxies.list());
            let written = tokio::task::spawn_blocking(move || {
                files.write(&statuses);
                files
            });
            // It only fails when the process stops.
            let Ok(after) = written.await else { return };
            files = after;
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            // `proxies` is held here.
            _ = refusals.changed() => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}
