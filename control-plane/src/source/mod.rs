//! Sources of Kubernetes objects, and what they say: [`file`] is a directory of YAML, [`kubernetes`] an API server.
//!
//! A source turns what it watches into batches of [`Event`]s. A batch is applied as a whole, so that one save of a file
//! is one change. Objects are passed on undecoded: the front ends in [`crate::api`] decode them, the same way for every
//! source. Sources run on threads or tasks of their own and share nothing with the model but the channel.

mod directory;
pub(crate) mod document;
pub mod file;
pub mod kubernetes;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What these files and directories of YAML say now: what the source `file` says of a directory at its start, without
/// [`Event::Synced`].
pub fn read_files(paths: &[std::path::PathBuf]) -> Vec<Event> {
    directory::read_once(paths)
}

/// What a source says.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object appeared or changed.
    Upsert(Object),
    /// An object is gone.
    Delete(ObjectKey),
    /// A file (or other unit of the source) could not be read as a whole. Objects that it held before stay in force.
    Unreadable(Unreadable),
    /// What [`Event::Unreadable`] named is well again, or gone.
    Readable {
        /// The file, as in [`Unreadable::file`].
        file: Arc<str>,
    },
    /// Everything that existed when the source started has been said.
    Synced,
}

/// A file that could not be read or parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Path of the file.
    pub file: Arc<str>,
    /// Where in the file, when known.
    pub position: Option<Position>,
    /// What is wrong.
    pub reason: String,
}

/// The identity of a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind, for example `Service`.
    pub kind: String,
    /// Namespace; `default` when the document names none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One object as the source has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// `apiVersion` as written.
    pub api_version: String,
    /// Where it comes from; its key is the object's identity.
    pub origin: Arc<Origin>,
    /// The whole document.
    pub document: Arc<serde_json::Value>,
}

impl Object {
    /// The object's identity.
    pub fn key(&self) -> &ObjectKey {
        &self.origin.object
    }
}

/// A place in a text file; both numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// Where an object comes from. Every model node keeps its origin, so that whatever is said about it points at the
/// user's own object and, where there is one, file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The object.
    pub object: ObjectKey,
    /// The text that it was written in; `None` for an object of an API server, which has no lines.
    pub text: Option<Text>,
    /// `metadata.generation`, which grows with each change of the specification; 0 in a file.
    pub generation: i64,
}

impl Origin {
    /// The origin of an object that an API server holds.
    pub fn in_cluster(object: ObjectKey) -> Self {
        Self { object, text: None, generation: 0 }
    }
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Path of the file.
    pub file: Arc<str>,
    /// Where the document starts.
    pub start: Position,
    /// Where each field is, by its path (`spec.rules[0].matches`).
    pub(crate) fields: BTreeMap<String, Position>,
}

impl Text {
    /// Where the field at `path` is written. For a field that is not there, the nearest enclosing one that is.
    pub fn position_of(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            if let Some(position) = self.fields.get(path) {
                return *position;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.start,
            }
        }
    }
}

/// A field that is null is a field that is not there (Kubernetes).
pub(crate) fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(elements) => elements.into_iter().map(without_nulls).collect(),
        scalar => scalar,
    }
}

/// An origin for tests of other modules.
#[cfg(test)]
pub(crate) fn test_origin(kind: &str, namespace: &str, name: &str) -> Arc<Origin> {
    Arc::new(Origin {
        object: ObjectKey {
            group: String::new(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        text: None,
        generation: 0,
    })
}

/// The objects of a YAML text, for tests of other modules.
#[cfg(test)]
pub(crate) fn test_objects(text: &str) -> Vec<Object> {
    match document::parse(&"test.yaml".into(), text.as_bytes()) {
        Ok(objects) => objects,
        Err(error) => panic!("{error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_of_a_missing_field_is_its_parents() {
        let at = |line| Position { line, column: 1 };
        let text = Text {
            file: "x.yaml".into(),
            start: at(1),
            fields: [("spec".to_owned(), at(5)), ("spec.ports[0]".to_owned(), at(7))].into(),
        };
        assert_eq!(text.position_of("spec.ports[0].name"), at(7));
        assert_eq!(text.position_of("spec.ports[1].name"), at(5));
        assert_eq!(text.position_of("status"), at(1));
    }
}
