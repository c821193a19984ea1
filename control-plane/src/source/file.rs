//! `--source file:DIR`: a directory of Kubernetes YAML, watched.
//!
//! A thread of its own waits for the operating system to tell of changes, lets a burst of them settle, and looks again
//! at the whole directory. It survives that the directory disappears and comes back, and editors that write by renaming.

use std::path::{Path, PathBuf};
use std::sync::mpsc as thread_channel;
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::debug;

use crate::source::Event;
use crate::source::directory::Directory;

/// A burst of changes is over when nothing happened for so long.
const SETTLE: Duration = Duration::from_millis(50);

/// A burst that does not end is looked at after so long.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);

/// How often the directory itself is checked for having been replaced: a watch does not tell.
const CHECK_ROOT_EVERY: Duration = Duration::from_secs(1);

/// Starts watching `directory`; what happens below `ignored`, where the control plane itself writes, is no change. The first batch ends with [`Event::Synced`]; each later one is what one burst of writes
/// changed. The thread ends when the receiver of `events` is dropped.
///
/// # Errors
/// When the directory does not exist at the start (a typing mistake is better told than waited for), or the thread cannot
/// be started.
pub fn watch(
    directory: PathBuf,
    ignored: Option<PathBuf>,
    events: mpsc::Sender<Vec<Event>>,
) -> std::io::Result<()> {
    let metadata = std::fs::metadata(&directory)?;
    if !metadata.is_dir() {
        return Err(std::io::Error::other(format!("{} is not a directory", directory.display())));
    }
    std::thread::Builder::new().name("source-file".into()).spawn(move || {
        run(&directory, ignored.as_deref(), &events);
    })?;
    Ok(())
}

fn run(root: &Path, ignored: Option<&Path>, events: &mpsc::Sender<Vec<Event>>) {
    let mut directory = Directory::new(root.to_owned());
    // The watch comes first, so that no change can fall between the first look and the watch.
    let mut watch = Watch::start(root, ignored);
    let mut batch = directory.rescan();
    batch.push(Event::Synced);
    loop {
        if !batch.is_empty() && events.blocking_send(std::mem::take(&mut batch)).is_err() {
            return;
        }
        let changed = watch.wait();
        if events.is_closed() {
            return;
        }
        if watch.is_stale(root) {
            debug!(directory = %root.display(), "watching again");
            watch = Watch::start(root, ignored);
        } else if !changed {
            continue;
        }
        batch = directory.rescan();
    }
}

/// A running watch of one directory.
struct Watch {
    changes: thread_channel::Receiver<()>,
    /// Held for its effect: dropping it ends the watch.
    watcher: Option<RecommendedWatcher>,
    /// The watched directory's identity, when it existed.
    identity: Option<Identity>,
}

impl Watch {
    fn start(root: &Path, ignored: Option<&Path>) -> Self {
        let (tell, changes) = thread_channel::channel();
        let ignored = ignored.map(Path::to_owned);
        let is_ignored =
            move |path: &PathBuf| ignored.as_ref().is_some_and(|ignored| path.starts_with(ignored));
        let watcher = notify::recommended_watcher(move |change: notify::Result<notify::Event>| {
            // Our own reading is no change. An error (for example a queue overflow) asks for a look, and so does an event
            // that names no path.
            let relevant = change.map_or(true, |event| {
                let is_own = !event.paths.is_empty() && event.paths.iter().all(&is_ignored);
                !event.kind.is_access() && !is_own
            });
            if relevant {
                // The receiver is gone when the watch was replaced.
                let _ = tell.send(());
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                // Said once more, for the user, by the directory when it cannot be read.
                debug!(directory = %root.display(), %error, "cannot watch; trying again");
                None
            }
        };
        Self { changes, watcher, identity: identity(root) }
    }

    /// Waits until a burst of changes is over (`true`) or it is time to check the root (`false`).
    fn wait(&self) -> bool {
        use thread_channel::RecvTimeoutError::{Disconnected, Timeout};
        match self.changes.recv_timeout(CHECK_ROOT_EVERY) {
            Ok(()) => {}
            Err(Timeout) => return false,
            // There is no watcher: only the time passes.
            Err(Disconnected) => {
                std::thread::sleep(CHECK_ROOT_EVERY);
                return false;
            }
        }
        let began = Instant::now();
        while began.elapsed() < SETTLE_AT_MOST && self.changes.recv_timeout(SETTLE).is_ok() {}
        true
    }

    /// Whether the directory is another one than the one that is watched.
    fn is_stale(&self, root: &Path) -> bool {
        self.watcher.is_none() || identity(root) != self.identity
    }
}

/// What tells a directory from another one at the same path: device, inode and, as inodes are used again, the time of
/// birth where the file system has it.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::fs;

    use super::*;

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {}}";

    /// Waits for an object of this name; every batch on the way is taken.
    fn wait_for(events: &mut mpsc::Receiver<Vec<Event>>, name: &str) {
        loop {
            let batch = events.blocking_recv().expect("the watch ended");
            let found =
                batch.iter().any(|event| matches!(event, Event::Upsert(object) if object.key().name == name));
            if found {
                return;
            }
        }
    }

    #[test]
    fn follows_writes_renames_and_a_replaced_directory() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("mesh");
        let write = |path: &Path, name: &str| fs::write(path, SERVICE.replace("NAME", name)).unwrap();
        fs::create_dir(&root).unwrap();
        write(&root.join("a.yaml"), "first");
        let (sender, mut events) = mpsc::channel(8);
        watch(root.clone(), None, sender).unwrap();
        let first = events.blocking_recv().unwrap();
        assert!(matches!(first.as_slice(), [Event::Upsert(_), Event::Synced]), "{first:?}");

        write(&root.join("a.yaml"), "written");
        wait_for(&mut events, "written");
        write(&root.join("new.tmp"), "renamed");
        fs::rename(root.join("new.tmp"), root.join("a.yaml")).unwrap();
        wait_for(&mut events, "renamed");
        fs::create_dir(root.join("below")).unwrap();
        write(&root.join("below/b.yaml"), "below");
        wait_for(&mut events, "below");

        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        write(&root.join("c.yaml"), "again");
        wait_for(&mut events, "again");
        write(&root.join("c.yaml"), "and-again");
        wait_for(&mut events, "and-again");
    }

    #[test]
    fn what_the_control_plane_itself_writes_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let (root, own) = (folder.path(), folder.path().join(".status"));
        let watch = Watch::start(root, Some(&own));
        fs::create_dir(&own).unwrap();
        fs::write(own.join("a.part"), "1").unwrap();
        fs::rename(own.join("a.part"), own.join("a.yaml")).unwrap();
        assert!(!watch.wait(), "only the time passed");
        fs::write(root.join("a.yaml"), "1").unwrap();
        assert!(watch.wait());
        // How a mounted ConfigMap changes: only hidden names are touched.
        fs::create_dir(root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        assert!(watch.wait());
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, _events) = mpsc::channel(8);
        assert!(watch(folder.path().join("missing"), None, sender.clone()).is_err());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(watch(folder.path().join("file"), None, sender).is_err());
    }
}
