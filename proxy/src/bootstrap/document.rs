//! Configuration texts: read, merged, and able to say where in them something is.

use std::fmt;
use std::path::Path;

use outrigger_xds_api::json::{self, Node, Notation};
use outrigger_xds_api::wire::bootstrap::v3::Bootstrap;
use prost::Message;

use crate::config::compile::Invalid;

/// A problem with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// File name, or the flag that had the text.
    pub source: String,
    /// Line and column from 1, where known.
    pub position: Option<(u32, u32)>,
    /// Field path; empty when the text itself is broken.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Located {
    /// `file:line:column: path: reason`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// A bootstrap as it was read.
#[derive(Debug, Default)]
pub struct Document {
    /// The message, merged from all texts.
    pub message: Bootstrap,
    texts: Vec<Text>,
}

#[derive(Debug)]
struct Text {
    source: String,
    tree: Node,
}

impl Document {
    /// A bootstrap that was never a text.
    pub fn from_message(message: Bootstrap) -> Self {
        Self { message, texts: Vec::new() }
    }

    /// Merges a text over what is there, as protobuf merges: fields replace, lists are appended.
    ///
    /// # Errors
    /// Syntax, unknown fields, and Envoy's validation rules, with their places.
    pub fn merge(&mut self, source: &str, text: &str) -> Result<(), Vec<Located>> {
        let is_json = Path::new(source).extension().is_some_and(|extension| extension == "json");
        let notation = if is_json { Notation::Json } else { Notation::Yaml };
        let located = |e: json::Error| Located {
            source: source.to_owned(),
            position: Some((e.line, e.column)),
            path: e.path,
            reason: e.reason,
        };
        let tree = json::parse_one(text).map_err(|e| vec![located(e)])?;
        let (message, report) = json::load::<Bootstrap>(&tree, notation)
            .map_err(|errors| errors.into_iter().map(located).collect::<Vec<_>>())?;
        for path in &report.deprecated {
            tracing::warn!(target: "config", "{source}: {path} is deprecated");
        }
        if self.texts.is_empty() {
            self.message = message;
        } else {
            let bytes = message.encode_to_vec();
            self.message.merge(bytes.as_slice()).map_err(|e| {
                vec![Located {
                    source: source.to_owned(),
                    position: None,
                    path: String::new(),
                    reason: e.to_string(),
                }]
            })?;
        }
        self.texts.push(Text { source: source.to_owned(), tree });
        Ok(())
    }

    /// Where the problems are that compiling found in the resource at `prefix`.
    pub fn locate(&self, prefix: &str, invalid: &Invalid) -> Vec<Located> {
        let located = |problem: &crate::config::compile::Problem| {
            let path = match (prefix.is_empty(), problem.path.is_empty()) {
                (true, _) => problem.path.clone(),
                (_, true) => prefix.to_owned(),
                _ => format!("{prefix}.{}", problem.path),
            };
            // With several texts the position of a list element is not known.
            let (source, position) = match self.texts.as_slice() {
                [only] => (only.source.clone(), Some(only.tree.locate(&path))),
                [] => ("bootstrap".to_owned(), None),
                several => (several.iter().map(|t| t.source.as_str()).collect::<Vec<_>>().join(" + "), None),
            };
            Located { source, position, path, reason: problem.reason.clone() }
        };
        invalid.problems.iter().map(located).collect()
    }

    /// Forgets the texts: they are only needed for places of errors.
    pub fn into_message(self) -> Bootstrap {
        self.message
    }
}
