//! The state of a watched directory: what each file holds, and what changed since the last look.
//!
//! Pure but for reading files; [`super::file`] decides when to look. Invariants: an object belongs to one file (the
//! first in the order of paths that defines it); a file that cannot be parsed keeps the objects of its last good
//! content; a directory that cannot be read keeps everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::source::document::{self, ParseError};
use crate::source::{Event, Object, ObjectKey, Unreadable};

/// How deep directories are followed; a loop of symbolic links ends there.
const MAX_DEPTH: usize = 16;

/// Files larger than this are refused, in bytes. A Kubernetes object is at most about 1.5 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What one file held when it was last read.
struct File {
    content: Vec<u8>,
    /// Objects of the last content that could be parsed.
    objects: Vec<Object>,
    /// Why `content` could not be parsed, when it could not.
    failure: Option<Unreadable>,
}

/// A directory of YAML and JSON files.
pub(super) struct Directory {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// What has been said so far.
    objects: BTreeMap<ObjectKey, Object>,
    unreadable: BTreeMap<Arc<str>, Unreadable>,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), objects: BTreeMap::new(), unreadable: BTreeMap::new() }
    }

    /// Reads the directory and says what changed. Every file is read, only those with new content are parsed.
    pub(super) fn rescan(&mut self) -> Vec<Event> {
        let mut unreadable = BTreeMap::new();
        let mut report = |found: Unreadable| {
            unreadable.entry(found.file.clone()).or_insert(found);
        };
        match list(&self.root) {
            Ok(listing) => {
                // What is below a directory that cannot be read may still be there.
                let hidden = |path: &Path| listing.failures.iter().any(|(below, _)| path.starts_with(below));
                self.files.retain(|path, _| listing.files.contains(path) || hidden(path));
                for path in &listing.files {
                    self.read(path);
                }
                for (path, error) in listing.failures {
                    report(unreadable_file(&path, format!("cannot be read: {error}")));
                }
            }
            // The whole directory is gone or closed to us: serve what we have until it is back.
            Err(error) => {
                report(unreadable_file(
                    &self.root,
                    format!("cannot be read: {error}; its objects stay in force"),
                ));
            }
        }
        for file in self.files.values() {
            if let Some(failure) = &file.failure {
                report(failure.clone());
            }
        }
        let (objects, duplicates) = self.merge();
        for duplicate in duplicates {
            report(duplicate);
        }
        self.difference(objects, unreadable)
    }

    /// Brings one file up to date.
    fn read(&mut self, path: &Path) {
        let content = match read_limited(path) {
            Ok(content) => content,
            Err(error) => {
                let file = self.files.entry(path.to_owned()).or_insert_with(File::empty);
                file.failure = Some(unreadable_file(path, format!("cannot be read: {error}")));
                // Parse again once it can be read.
                file.content.clear();
                return;
            }
        };
        let file = match self.files.get_mut(path) {
            Some(file) if file.content == content && !content.is_empty() => return,
            Some(file) => file,
            None => self.files.entry(path.to_owned()).or_insert_with(File::empty),
        };
        // An editor that truncates before it writes leaves an empty file for a moment: that is not a deletion.
        if content.is_empty() && !file.objects.is_empty() {
            file.failure = Some(unreadable_file(
                path,
                "is empty; the objects that it held stay in force until the file is removed".to_owned(),
            ));
            file.content.clear();
            return;
        }
        let name: Arc<str> = path.to_string_lossy().into();
        match document::parse(&name, &content) {
            Ok(objects) => {
                file.objects = objects;
                file.failure = None;
            }
            Err(ParseError { position, reason }) => {
                file.failure = Some(Unreadable { file: name, position, reason });
            }
        }
        file.content = content;
    }

    /// All objects of all files. The second part names files that define an object which another file has already.
    fn merge(&self) -> (BTreeMap<ObjectKey, Object>, Vec<Unreadable>) {
        let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for object in self.files.values().flat_map(|file| &file.objects) {
            if let Some(first) = objects.get(object.key()) {
                duplicates.push(Unreadable {
                    file: object.origin.file.clone(),
                    position: Some(object.origin.start),
                    reason: format!(
                        "{} is already defined at {}:{}; this one is not used",
                        object.key(),
                        first.origin.file,
                        first.origin.start.line
                    ),
                });
                continue;
            }
            objects.insert(object.key().clone(), object.clone());
        }
        (objects, duplicates)
    }

    /// What turns the last state into the given one, and remembers the given one.
    fn difference(
        &mut self,
        objects: BTreeMap<ObjectKey, Object>,
        unreadable: BTreeMap<Arc<str>, Unreadable>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for key in self.objects.keys().filter(|key| !objects.contains_key(*key)) {
            events.push(Event::Delete(key.clone()));
        }
        for (key, object) in &objects {
            if self.objects.get(key) != Some(object) {
                events.push(Event::Upsert(object.clone()));
            }
        }
        for file in self.unreadable.keys().filter(|file| !unreadable.contains_key(*file)) {
            events.push(Event::Readable { file: file.clone() });
        }
        for (file, found) in &unreadable {
            if self.unreadable.get(file) != Some(found) {
                events.push(Event::Unreadable(found.clone()));
            }
        }
        self.objects = objects;
        self.unreadable = unreadable;
        events
    }
}

impl File {
    fn empty() -> Self {
        Self { content: Vec::new(), objects: Vec::new(), failure: None }
    }
}

fn unreadable_file(path: &Path, reason: String) -> Unreadable {
    Unreadable { file: path.to_string_lossy().into(), position: None, reason }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("{length} bytes are more than the limit of {MAX_FILE_BYTES}")));
    }
    fs::read(path)
}

/// The files of a directory.
#[derive(Default)]
struct Listing {
    files: BTreeSet<PathBuf>,
    failures: Vec<(PathBuf, io::Error)>,
}

/// Lists the YAML and JSON files under `root`. Symbolic links are followed; entries that begin with a dot are not (this
/// leaves out the hidden copies in a mounted ConfigMap and editors' swap files).
fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    list_into(root, 0, &mut listing)?;
    Ok(listing)
}

fn list_into(directory: &Path, depth: usize, listing: &mut Listing) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("more than {MAX_DEPTH} directories deep")));
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        // A file may disappear between the listing and this look: then it is gone.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            match list_into(&path, depth + 1, listing) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => listing.failures.push((path, error)),
                _ => {}
            }
        } else if matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("yaml" | "yml" | "json")
        ) {
            listing.files.insert(path);
        }
    }
    Ok(())
}
