//! A parsed YAML or JSON document whose every value knows where it stands in the text.

use crate::path::{self, Step};

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What stands there.
    pub value: Value,
    /// Line in the text, from 1.
    pub line: u32,
    /// Column in the line, in characters, from 1.
    pub column: u32,
}

/// What a node holds. Scalars that are not quoted are resolved as Envoy does it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` and `false`, also spelled `yes`, `no`, `on`, `off`, `y`, `n`.
    Bool(bool),
    /// Decimal, hexadecimal (`0x`) or octal (a leading `0`).
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(Float),
    /// Everything else, and whatever is quoted.
    String(String),
    /// A list.
    Seq(Vec<Node>),
    /// A map.
    Map(Map),
}

/// A number with a fraction or an exponent, and how it was written: `1.10` may be meant as a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Float {
    /// The number.
    pub value: f64,
    /// As it was written.
    pub text: String,
}

/// A map from text to node, in the order of the document. No key occurs twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
}

/// One entry of a [`Map`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, as it was written.
    pub key: String,
    /// Line of the key, from 1.
    pub line: u32,
    /// Column of the key, from 1.
    pub column: u32,
    /// The value.
    pub value: Node,
}

impl Map {
    pub(super) fn from_entries(entries: Vec<Entry>) -> Map {
        Map { entries }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Every entry, in the order of the document.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Value {
    /// What kind of thing it is, for an error message that must not show it: `a list`, `an integer`.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::String(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// What it is, for an error message: `a list`, `the integer 5`.
    pub fn describe(&self) -> String {
        match self {
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(value) => format!("the integer {value}"),
            Value::Float(float) => format!("the number {}", float.text),
            Value::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
            other => other.kind().to_owned(),
        }
    }
}

impl Node {
    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(map) => map.get(key),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Line and column of the field at `path` (`a.b[0].c`, `metadata["key"]`), or of the deepest part of the path that
    /// is in the text. Names count in either spelling, `connect_timeout` and `connectTimeout`.
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let mut node = self;
        let mut position = (self.line, self.column);
        for step in path::steps(path) {
            let entry = match (&node.value, &step) {
                (Value::Map(map), Step::Key(key)) => map.entry(key),
                (Value::Map(map), Step::Field(name)) => {
                    map.entry(name).or_else(|| map.iter().find(|entry| is_same_name(&entry.key, name)))
                }
                (Value::Seq(nodes), Step::Index(index)) => match nodes.get(*index) {
                    Some(element) => {
                        node = element;
                        position = (node.line, node.column);
                        continue;
                    }
                    None => None,
                },
                // A single value may stand where a list is expected.
                (_, Step::Index(0)) => continue,
                _ => None,
            };
            let Some(entry) = entry else { break };
            node = &entry.value;
            position = (entry.line, entry.column);
        }
        position
    }

    /// The same value as `serde_json` has it, for strict decoding with serde. Integers beyond 64 bits become floating
    /// point numbers.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => (*value as f64).into(),
            },
            Value::Float(float) => float.value.into(),
            Value::String(text) => text.as_str().into(),
            Value::Seq(nodes) => nodes.iter().map(Node::to_json).collect(),
            Value::Map(map) => {
                let entries = map.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}

/// Whether two spellings of a field name are the same but for underscores and case.
fn is_same_name(a: &str, b: &str) -> bool {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    plain(a) == plain(b)
}
