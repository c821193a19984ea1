//! Folders that are watched for changes of what is in them. The operating system tells on a thread of its own.

use std::path::Path;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

/// The folder that a file is in.
pub(crate) fn of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Calls `tell` for each event that is relevant, as long as the watcher lives. A folder that cannot be watched is told in the log.
pub(crate) fn watch(
    folder: &Path,
    is_relevant: impl Fn(&Event) -> bool + Send + 'static,
    tell: impl Fn() + Send + 'static,
) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error, for example a queue that is full, asks for a look.
        if event.is_ok_and(|event| !is_relevant(&event)) {
            return;
        }
        tell();
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(
            |error| tracing::error!(target: "config", "cannot watch '{}': {error}", folder.display()),
        )
        .ok()
}
