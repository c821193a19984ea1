//! What a sidecar keeps on disk, so that it starts without its control plane: its last good configuration.
//!
//! The directory is the sidecar's alone (0700, files 0600): secrets are in it. In a pod it is in memory, and lasts as long as the pod.

pub(crate) mod journal;
pub mod private;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use journal::Journal;
pub use journal::{Record, Saved};

/// The file of the configuration.
const RESOURCES: &str = "resources";

/// Writes what happens to the configuration, on a thread of its own: a slow disk holds nobody up.
#[derive(Debug)]
pub struct Recorder(Sender<Record>);

impl Recorder {
    /// Opens the state of `owner` in a directory, and gives what it says.
    ///
    /// # Errors
    /// The directory or the file in it cannot be written.
    pub fn open(directory: &Path, owner: &str) -> io::Result<(Self, Saved)> {
        private::make_directory(directory)?;
        let (journal, saved) = Journal::open(directory.join(RESOURCES), owner)?;
        let (sender, records) = channel();
        std::thread::Builder::new().name("state".to_owned()).spawn(move || write(journal, &records))?;
        Ok((Self(sender), saved))
    }

    /// Writes this down, soon.
    pub fn record(&self, record: Record) {
        // The thread ends only with this.
        let _ = self.0.send(record);
    }
}

fn write(mut journal: Journal, records: &Receiver<Record>) {
    while let Ok(first) = records.recv() {
        let batch: Vec<Record> = std::iter::once(first).chain(records.try_iter()).collect();
        if let Err(error) = journal.append(&batch) {
            tracing::error!(target: "config", "the configuration cannot be kept for the next start: {error}");
        }
    }
}
