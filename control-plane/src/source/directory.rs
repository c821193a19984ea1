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
        let listing = list(&self.root);
        self.look(listing)
    }

    fn look(&mut self, listing: io::Result<Listing>) -> Vec<Event> {
        let mut unreadable = BTreeMap::new();
        let mut report = |found: Unreadable| {
            unreadable.entry(found.file.clone()).or_insert(found);
        };
        match listing {
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
            let Some(first) = objects.get(object.key()) else {
                objects.insert(object.key().clone(), object.clone());
                continue;
            };
            if let (Some(text), Some(first)) = (&object.origin.text, &first.origin.text) {
                let (key, line) = (object.key(), first.start.line);
                duplicates.push(Unreadable {
                    file: text.file.clone(),
                    position: Some(text.start),
                    reason: format!(
                        "{key} is already defined at {}:{line}; this one is not used",
                        first.file
                    ),
                });
            }
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

/// What files and directories hold now. A directory is read as if it were watched.
pub(super) fn read_once(paths: &[PathBuf]) -> Vec<Event> {
    let mut all = Listing::default();
    for path in paths {
        if !path.is_dir() {
            all.files.insert(path.clone());
            continue;
        }
        match list(path) {
            Ok(listing) => {
                all.files.extend(listing.files);
                all.failures.extend(listing.failures);
            }
            Err(error) => all.failures.push((path.clone(), error)),
        }
    }
    Directory::new(PathBuf::new()).look(Ok(all))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn service(name: &str, port: u16) -> String {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    }

    /// Events in short: `+name` upserted, `-name` deleted, `!file` unreadable, `.file` well again.
    fn rescan(directory: &mut Directory) -> Vec<String> {
        let file = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let short = |event: Event| match event {
            Event::Upsert(object) => format!("+{}", object.key().name),
            Event::Delete(key) => format!("-{}", key.name),
            Event::Unreadable(found) => {
                let line = found.position.map(|position| format!(":{}", position.line)).unwrap_or_default();
                format!("!{}{line}: {}", file(&found.file), found.reason)
            }
            Event::Readable { file: path } => format!(".{}", file(&path)),
            Event::Synced => "synced".to_owned(),
        };
        directory.rescan().into_iter().map(short).collect()
    }

    fn watched() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_owned());
        (folder, directory)
    }

    #[test]
    fn says_only_what_changed() {
        let (folder, mut directory) = watched();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.yaml"), service("a", 1) + &service("b", 1)).unwrap();
        fs::create_dir(path("below")).unwrap();
        fs::write(path("below/c.yml"), service("c", 1)).unwrap();
        fs::write(path("notes.txt"), "no: [yaml").unwrap();
        fs::write(path(".swap.yaml"), service("hidden", 1)).unwrap();
        assert_eq!(rescan(&mut directory), ["+a", "+b", "+c"]);
        assert!(rescan(&mut directory).is_empty());
        fs::write(path("a.yaml"), service("a", 1) + &service("b", 2)).unwrap();
        assert_eq!(rescan(&mut directory), ["+b"]);
        fs::write(path("new.yaml"), service("b", 2)).unwrap();
        fs::rename(path("new.yaml"), path("a.yaml")).unwrap();
        // `b` moved up in the file, so its origin changed.
        assert_eq!(rescan(&mut directory), ["-a", "+b"]);
        fs::remove_dir_all(path("below")).unwrap();
        assert_eq!(rescan(&mut directory), ["-c"]);
    }

    #[test]
    fn a_broken_file_keeps_its_objects() {
        let (folder, mut directory) = watched();
        let path = folder.path().join("a.yaml");
        fs::write(&path, service("a", 1)).unwrap();
        rescan(&mut directory);
        fs::write(&path, service("a", 1) + "---\nkind: [\n").unwrap();
        let events = rescan(&mut directory);
        assert!(matches!(events.as_slice(), [event] if event.starts_with("!a.yaml:")), "{events:?}");
        assert!(rescan(&mut directory).is_empty());
        fs::write(&path, "").unwrap();
        let events = rescan(&mut directory);
        assert!(matches!(events.as_slice(), [event] if event.contains("is empty")), "{events:?}");
        fs::write(&path, service("a", 2)).unwrap();
        assert_eq!(rescan(&mut directory), ["+a", ".a.yaml"]);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(rescan(&mut directory)[0].contains("is not UTF-8 text"));
        fs::remove_file(&path).unwrap();
        assert_eq!(rescan(&mut directory), ["-a", ".a.yaml"]);
    }

    #[test]
    fn the_first_definition_wins() {
        let (folder, mut directory) = watched();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.yaml"), service("a", 1)).unwrap();
        fs::write(path("b.yaml"), service("a", 2)).unwrap();
        let events = rescan(&mut directory);
        assert_eq!(events[0], "+a");
        assert!(events[1].starts_with("!b.yaml:2: Service default/a is already defined at "), "{events:?}");
        fs::remove_file(path("a.yaml")).unwrap();
        assert_eq!(rescan(&mut directory), ["+a", ".b.yaml"]);
    }

    #[test]
    fn a_directory_that_disappears_keeps_everything() {
        let (folder, mut directory) = watched();
        let root = folder.path().to_owned();
        fs::write(root.join("a.yaml"), service("a", 1)).unwrap();
        rescan(&mut directory);
        let away = root.with_extension("away");
        fs::rename(&root, &away).unwrap();
        let events = rescan(&mut directory);
        assert!(matches!(events.as_slice(), [event] if event.contains("stay in force")), "{events:?}");
        fs::rename(&away, &root).unwrap();
        let events = rescan(&mut directory);
        assert!(matches!(events.as_slice(), [event] if event.starts_with('.')), "{events:?}");
    }
}
