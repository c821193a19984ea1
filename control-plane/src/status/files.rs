//! The files: one for each file of objects, at the same path below the folder of statuses, in the same notation.
//!
//! Each is replaced as a whole, and only when it says something else than before. What the folder holds that was not written
//! by a control plane is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_xds_api::json;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::objects::{FileStatus, STATE};
use super::timestamp;
use crate::source::ObjectKey;

/// The first field of every file, and its value.
const WRITER: (&str, &str) = ("written_by", env!("CARGO_PKG_NAME"));

/// How deep the folder is looked through for files of an earlier process.
const MAX_DEPTH: usize = 16;

/// What has been written so far.
#[derive(Debug)]
pub(super) struct StatusFiles {
    source: PathBuf,
    folder: PathBuf,
    /// The text of each file.
    texts: BTreeMap<PathBuf, String>,
    /// The state of each object, and since when it is in it.
    since: BTreeMap<ObjectKey, (Value, OffsetDateTime)>,
    is_cleaned: bool,
    /// The last failure, so that it is told once.
    failure: Option<String>,
}

impl StatusFiles {
    /// Nothing is written yet.
    pub(super) fn new(source: PathBuf, folder: PathBuf) -> Self {
        let (texts, since) = (BTreeMap::new(), BTreeMap::new());
        Self { source, folder, texts, since, is_cleaned: false, failure: None }
    }

    /// Writes what has changed and removes files whose file of objects is gone. A failure is logged; the next call tries
    /// again.
    pub(super) fn write(&mut self, statuses: &BTreeMap<Arc<str>, FileStatus>) {
        let now = OffsetDateTime::now_utc();
        let mut since = BTreeMap::new();
        let mut texts = BTreeMap::new();
        for (file, status) in statuses {
            let Some(path) = self.path_of(file) else { continue };
            let objects = status.objects.iter().map(|(key, shown)| {
                let state = shown.get(STATE).cloned().unwrap_or_default();
                let at = match self.since.get(key) {
                    Some((before, at)) if *before == state => *at,
                    _ => now,
                };
                since.insert(key.clone(), (state, at));
                with_time(shown, at)
            });
            let objects: Vec<Value> = objects.collect();
            texts.insert(path, text(file, &status.failures, objects));
        }
        self.since = since;
        let failure = self.replace(texts).err().map(|error| error.to_string());
        if failure != self.failure
            && let Some(error) = &failure
        {
            tracing::warn!(folder = %self.folder.display(), error, "cannot write the status of the objects");
        }
        self.failure = failure;
    }

    /// Where the status of a file of objects is; `None` for what is not a file below the source.
    fn path_of(&self, file: &str) -> Option<PathBuf> {
        let below = Path::new(file).strip_prefix(&self.source).ok()?;
        (!below.as_os_str().is_empty()).then(|| self.folder.join(below))
    }

    fn replace(&mut self, texts: BTreeMap<PathBuf, String>) -> io::Result<()> {
        if !self.is_cleaned {
            let mut earlier = BTreeSet::new();
            find_ours(&self.folder, 0, &mut earlier);
            for path in earlier.iter().filter(|path| !texts.contains_key(*path)) {
                fs::remove_file(path)?;
            }
            self.is_cleaned = true;
        }
        let gone: Vec<PathBuf> =
            self.texts.keys().filter(|path| !texts.contains_key(*path)).cloned().collect();
        for path in gone {
            remove(&path)?;
            self.texts.remove(&path);
        }
        for (path, text) in texts {
            if self.texts.get(&path) != Some(&text) {
                if !self.texts.contains_key(&path) && is_foreign(&path) {
                    let reason =
                        format!("{} is there and was not written by a control plane", path.display());
                    return Err(io::Error::other(reason));
                }
                write(&path, &text)?;
                self.texts.insert(path, text);
            }
        }
        Ok(())
    }
}

/// The object's status with the time since when it is so, behind the state.
fn with_time(shown: &Map<String, Value>, at: OffsetDateTime) -> Value {
    let mut timed = Map::new();
    for (name, value) in shown {
        timed.insert(name.clone(), value.clone());
        if name == STATE {
            timed.insert("since".to_owned(), timestamp(at).into());
        }
    }
    timed.into()
}

fn text(file: &str, failures: &[Value], objects: Vec<Value>) -> String {
    let mut status = json!({ WRITER.0: WRITER.1, "file": file });
    if !failures.is_empty() {
        status["failures"] = failures.into();
    }
    status["objects"] = objects.into();
    if file.ends_with(".json") {
        return format!("{status:#}\n");
    }
    let mut text = String::new();
    json::write_yaml(&status, &mut text);
    text
}

/// Replaces a file as a whole: nobody ever reads half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    fs::create_dir_all(folder)?;
    let part = folder.join(format!(".{}.part", name.to_string_lossy()));
    fs::write(&part, text)?;
    fs::rename(part, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The files below `folder` that a control plane has written. What cannot be read is none.
fn find_ours(folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            find_ours(&path, depth + 1, found);
        } else if kind.is_file() && fs::read_to_string(&path).is_ok_and(|text| is_ours(&text)) {
            found.insert(path);
        }
    }
}

/// Whether there is a file that somebody else wrote.
fn is_foreign(path: &Path) -> bool {
    match fs::read_to_string(path) {
        Ok(text) => !is_ours(&text),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn is_ours(text: &str) -> bool {
    json::parse_one(text)
        .is_ok_and(|status| status.get(WRITER.0).and_then(json::Node::as_str) == Some(WRITER.1))
}
