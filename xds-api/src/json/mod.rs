//! YAML and JSON to the wire and back, by the protobuf JSON mapping, with Envoy's habits.
//!
//! A text is parsed to a tree that knows its positions ([`parse()`]), encoded to the wire by the schema table
//! ([`encode()`]), and decoded by `prost`. No reflection is held in memory. What Envoy does is done here too:
//!
//! * Unknown fields are errors. Names may be spelled `connect_timeout` or `connectTimeout`.
//! * Enum values go by name in any case, or by number.
//! * A single value may stand where a list is expected, and `{}` for an empty `Any`.
//! * A Duration may also be written as the map of its fields, and a wrapper too.
//! * A number with a fraction or beyond 32 bits is a text where a text is expected, and in a `Struct` read from YAML.
//!
//! Stricter than Envoy: a field or key that is given twice (Envoy keeps the last), a second document (Envoy reads the
//! first) and a list in a list (Envoy flattens it) are errors.

mod encode;
mod parse;
mod print;
mod scalar;
mod tree;
mod yaml;

pub use encode::encode;
pub use parse::{MAX_DEPTH, MAX_NODES, parse, parse_one};
pub use print::to_json;
pub use tree::{Entry, Float, Map, Node, Value};
pub use yaml::write_yaml;

use prost::{Message, Name};

use crate::validate::{self, Report};

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The field, as in `static_resources.clusters[0].type`; empty when the text itself is broken.
    pub path: String,
    /// Line in the text, from 1.
    pub line: u32,
    /// Column in the line, in characters, from 1.
    pub column: u32,
    /// Why, in a few words, without the path.
    pub reason: String,
}

impl Error {
    pub(crate) fn at(path: &str, line: u32, column: u32, reason: impl Into<String>) -> Error {
        Error { path: path.to_owned(), line, column, reason: reason.into() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

/// What a text is written in. Both are parsed alike; they differ in what a number with a fraction is in a `Struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `1.5` in a `Struct` is the text `1.5`, as in Envoy.
    Yaml,
    /// `1.5` in a `Struct` is a number.
    Json,
}

/// Reads one message from a YAML text of one document. Does not validate: see [`load`].
pub fn from_yaml<M: Message + Name + Default>(text: &str) -> Result<M, Error> {
    from_node(&parse_one(text)?, Notation::Yaml)
}

/// Reads one message from a JSON text. Does not validate: see [`load`].
pub fn from_json<M: Message + Name + Default>(text: &str) -> Result<M, Error> {
    from_node(&parse_one(text)?, Notation::Json)
}

/// Reads one message from a parsed text. Does not validate.
pub fn from_node<M: Message + Name + Default>(node: &Node, notation: Notation) -> Result<M, Error> {
    let bytes = encode(&M::full_name(), node, notation)?;
    decode(node, &bytes)
}

/// Reads one message from a parsed text and applies Envoy's validation rules: every violation is an error with its
/// position. The report also tells which deprecated fields are used.
pub fn load<M: Message + Name + Default>(node: &Node, notation: Notation) -> Result<(M, Report), Vec<Error>> {
    let bytes = encode(&M::full_name(), node, notation).map_err(|error| vec![error])?;
    let report = validate::validate(&M::full_name(), &bytes);
    let violations = report.violations.iter().chain(&report.unknown);
    let errors: Vec<Error> = violations
        .map(|violation| {
            let (line, column) = node.locate(&violation.path);
            Error::at(&violation.path, line, column, violation.reason.clone())
        })
        .collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    decode(node, &bytes).map(|message| (message, report)).map_err(|error| vec![error])
}

fn decode<M: Message + Default>(node: &Node, bytes: &[u8]) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error::at("", node.line, node.column, error.to_string()))
}

#[cfg(test)]
mod tests;
