//! The last good configuration as a file of records: what was accepted, what went.
//!
//! A record is its length (4 bytes, little endian), a checksum (8 bytes) and a `DeltaDiscoveryResponse` with one resource or one removed
//! name. A change appends one record, so it costs what changed; when more than half of the file is history, it is written anew. A
//! record that a crash cut off, and what follows it, does not count.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Message;
use rustc_hash::FxHasher;

use super::private;

/// Of the length and the checksum.
const HEAD_BYTES: usize = 12;
/// A file of this size is never written anew.
const SMALL_BYTES: u64 = 256 << 10;
/// What the first record begins with; then comes whose state it is.
pub(crate) const MAGIC: &str = "outrigger state 1 of ";

/// Resources by type and name.
pub type Saved = BTreeMap<(ResourceType, String), Resource>;

/// One thing that happened to the configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A resource was accepted.
    Accepted(ResourceType, Box<Resource>),
    /// A resource is no longer there, or no longer wanted.
    Gone(ResourceType, String),
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    owner: String,
    file: File,
    file_bytes: u64,
    /// The sizes of the records that still count.
    sizes: BTreeMap<(ResourceType, String), u64>,
    /// Their sum.
    live_bytes: u64,
}

impl Journal {
    /// Opens the journal of `owner`, and gives what it says. One of somebody else, or one that cannot be read, is told and begun anew.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn open(path: PathBuf, owner: &str) -> io::Result<(Self, Saved)> {
        let saved = match std::fs::read(&path) {
            Ok(bytes) => tell(&path, read(&bytes, owner)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::new(),
            Err(error) => tell(&path, Err(error.to_string())),
        };
        // Written anew in any case: what did not count is gone then.
        let journal = Self::begin(path, owner.to_owned(), &saved)?;
        Ok((journal, saved))
    }

    /// Appends what happened.
    ///
    /// # Errors
    /// The file cannot be written; what is in it stays good up to there.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            self.note(record, encode(record, &mut bytes));
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record would hide what comes after it.
            self.file.set_len(self.file_bytes)?;
            return Err(error);
        }
        self.file_bytes += bytes.len() as u64;
        if self.file_bytes > SMALL_BYTES.max(2 * self.live_bytes) {
            let saved = tell(&self.path, read(&std::fs::read(&self.path)?, &self.owner));
            *self = Self::begin(self.path.clone(), self.owner.clone(), &saved)?;
        }
        Ok(())
    }

    /// A journal that says only this, in the place of whatever is there.
    fn begin(path: PathBuf, owner: String, saved: &Saved) -> io::Result<Self> {
        let mut bytes = Vec::new();
        frame(format!("{MAGIC}{owner}").as_bytes(), &mut bytes);
        let mut sizes = BTreeMap::new();
        for ((resource_type, name), resource) in saved {
            let record = Record::Accepted(*resource_type, Box::new(resource.clone()));
            sizes.insert((*resource_type, name.clone()), encode(&record, &mut bytes));
        }
        let file = private::replace(&path, &bytes)?;
        let live_bytes = sizes.values().sum();
        Ok(Self { path, owner, file, file_bytes: bytes.len() as u64, sizes, live_bytes })
    }

    fn note(&mut self, record: &Record, size: u64) {
        let before = match record {
            Record::Accepted(resource_type, resource) => {
                self.live_bytes += size;
                self.sizes.insert((*resource_type, resource.name.clone()), size)
            }
            Record::Gone(resource_type, name) => self.sizes.remove(&(*resource_type, name.clone())),
        };
        self.live_bytes -= before.unwrap_or_default();
    }
}

/// Appends a record; its size.
pub(crate) fn encode(record: &Record, bytes: &mut Vec<u8>) -> u64 {
    let (resource_type, resources, removed_resources) = match record {
        Record::Accepted(resource_type, resource) => {
            (resource_type, vec![Resource::clone(resource)], Vec::new())
        }
        Record::Gone(resource_type, name) => (resource_type, Vec::new(), vec![name.clone()]),
    };
    let message = DeltaDiscoveryResponse {
        type_url: resource_type.type_url().to_owned(),
        resources,
        removed_resources,
        ..Default::default()
    };
    frame(&message.encode_to_vec(), bytes)
}

pub(crate) fn frame(content: &[u8], bytes: &mut Vec<u8>) -> u64 {
    // A resource of 4 GiB does not come over gRPC.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(content).to_le_bytes());
    bytes.extend_from_slice(content);
    (HEAD_BYTES + content.len()) as u64
}

/// Tells a damaged record, not a forged one: who may write here may do anything.
fn checksum(content: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(content);
    hasher.finish()
}

/// What the records add up to, and how many bytes at the end do not count.
///
/// # Errors
/// It is no journal of `owner`.
pub(crate) fn read(bytes: &[u8], owner: &str) -> Result<(Saved, usize), String> {
    let Some((first, mut rest)) = next(bytes) else { return Err("it is damaged".to_owned()) };
    if first != format!("{MAGIC}{owner}").as_bytes() {
        return Err(format!("it is not the state of '{owner}'"));
    }
    let mut saved = Saved::new();
    while let Some((record, after)) = next(rest) {
        let Ok(message) = DeltaDiscoveryResponse::decode(record) else { break };
        rest = after;
        let Some(resource_type) = ResourceType::from_type_url(&message.type_url) else { continue };
        for resource in message.resources {
            saved.insert((resource_type, resource.name.clone()), resource);
        }
        for name in message.removed_resources {
            saved.remove(&(resource_type, name));
        }
    }
    Ok((saved, rest.len()))
}

/// Tells of what does not count.
fn tell(path: &Path, outcome: Result<(Saved, usize), String>) -> Saved {
    let path = path.display();
    match outcome {
        Ok((saved, 0)) => saved,
        Ok((saved, damaged)) => {
            tracing::warn!(target: "config", "'{path}': the last {damaged} bytes are damaged and do not count");
            saved
        }
        Err(reason) => {
            tracing::warn!(target: "config", "'{path}' does not count: {reason}");
            Saved::new()
        }
    }
}

/// The first record and what follows it.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let (content, rest) = rest.split_at_checked(length)?;
    (checksum(content) == u64::from_le_bytes(sum.try_into().ok()?)).then_some((content, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use outrigger_xds_api::wire::protobuf::Any;

    fn resource(name: &str, size: usize) -> Resource {
        let content = Any { type_url: ResourceType::Cluster.type_url().to_owned(), value: vec![7; size] };
        let resource = Some(content);
        Resource { name: name.to_owned(), version: size.to_string(), resource, ..Default::default() }
    }

    fn accepted(name: &str, size: usize) -> Record {
        Record::Accepted(ResourceType::Cluster, Box::new(resource(name, size)))
    }

    fn gone(name: &str) -> Record {
        Record::Gone(ResourceType::Cluster, name.to_owned())
    }

    fn names(saved: &Saved) -> Vec<(&str, &str)> {
        saved.iter().map(|((_, name), resource)| (name.as_str(), resource.version.as_str())).collect()
    }

    fn open(path: &Path, owner: &str) -> (Journal, Saved) {
        Journal::open(path.to_owned(), owner).unwrap()
    }

    #[test]
    fn what_was_accepted_last_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources");
        let (mut journal, saved) = open(&path, "web");
        assert!(saved.is_empty());
        journal.append(&[accepted("a", 1), accepted("b", 2)]).unwrap();
        journal.append(&[accepted("a", 3), gone("b"), accepted("c", 4), gone("d")]).unwrap();
        drop(journal);
        let (_, saved) = open(&path, "web");
        assert_eq!(names(&saved), [("a", "3"), ("c", "4")]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_, saved) = open(&path, "somebody else");
        assert!(saved.is_empty());
    }

    #[test]
    fn a_cut_or_damaged_record_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources");
        let (mut journal, _) = open(&path, "web");
        journal.append(&[accepted("a", 10)]).unwrap();
        let good = std::fs::read(&path).unwrap();
        journal.append(&[accepted("b", 10)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in good.len()..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(names(&open(&path, "web").1), [("a", "10")]);
        }
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(names(&open(&path, "web").1), [("a", "10")]);
        std::fs::write(&path, "something else").unwrap();
        assert!(open(&path, "web").1.is_empty());
    }

    #[test]
    fn history_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources");
        let (mut journal, _) = open(&path, "web");
        journal.append(&[accepted("stays", 1000)]).unwrap();
        for round in 0..1000 {
            journal
                .append(&[accepted("changes", 1000 + round % 2), accepted("goes", 5000), gone("goes")])
                .unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= SMALL_BYTES + 10_000);
        }
        drop(journal);
        let (_, saved) = open(&path, "web");
        assert_eq!(names(&saved), [("changes", "1001"), ("stays", "1000")]);
    }
}
