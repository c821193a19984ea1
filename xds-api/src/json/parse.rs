//! YAML text to positioned trees. JSON is YAML.
//!
//! Scalars are resolved as Envoy's YAML reader does it. Anchors, aliases, merge keys (`<<`) and Envoy's tag `!ignore`
//! (an entry that only holds anchors) are supported. Depth and size are limited, so that a hostile text costs little.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::Error;
use super::tree::{Entry, Float, Map, Node, Value};

/// How deep lists and maps may be nested.
pub const MAX_DEPTH: usize = 100;
/// How many nodes a text may have, with aliases expanded.
pub const MAX_NODES: usize = 1_000_000;

/// Parses every document of a text. A document that holds nothing is a null node; a text without any is an empty list.
pub fn parse(text: &str) -> Result<Vec<Node>, Error> {
    let mut builder = Builder {
        events: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        anchors: HashMap::new(),
        node_count: 0,
    };
    let mut documents = Vec::new();
    loop {
        match builder.next()? {
            (Event::DocumentStart(_), _) => {
                let (event, span) = builder.next()?;
                documents.push(builder.node(event, span, 0)?);
            }
            (Event::StreamEnd, _) => return Ok(documents),
            _ => {}
        }
    }
}

/// Parses a text that must be exactly one document.
pub fn parse_one(text: &str) -> Result<Node, Error> {
    let mut documents = parse(text)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document),
        (None, _) => Err(Error::at("", 1, 1, "the text holds no document")),
        (Some(second), false) => {
            Err(Error::at("", second.line, second.column, "expected one document, there are more"))
        }
    }
}

struct Builder<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Anchored>,
    node_count: usize,
}

struct Anchored {
    node: Node,
    node_count: usize,
    depth: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Error> {
        match self.events.next_event() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let (line, column) = position_of(error.marker());
                Err(Error::at("", line, column, error.info()))
            }
            // The end of the stream has been seen before.
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Error> {
        let (line, column) = position_of(&span.start);
        if depth > MAX_DEPTH {
            return Err(Error::at("", line, column, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.count(1, line, column)?;
        let first_node = self.node_count;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref()), anchor),
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, line, column, depth),
            // An empty document.
            _ => (Value::Null, 0),
        };
        let node = Node { value, line, column };
        if anchor > 0 {
            let depth = depth_of(&node);
            let node_count = self.node_count - first_node + 1;
            self.anchors.insert(anchor, Anchored { node: node.clone(), node_count, depth });
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, line: u32, column: u32, depth: usize) -> Result<Node, Error> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(Error::at("", line, column, "an alias stands inside what it refers to"));
        };
        if depth + anchored.depth > MAX_DEPTH {
            return Err(Error::at("", line, column, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (node, node_count) = (anchored.node.clone(), anchored.node_count);
        self.count(node_count, line, column)?;
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Error> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => {
                    nodes.shrink_to_fit();
                    return Ok(Value::Seq(nodes));
                }
                (event, span) => nodes.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Error> {
        let mut entries = Vec::new();
        let mut keys = HashSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let (line, column) = position_of(&span.start);
            let key = self.key(event, line, column)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match key {
                Key::Ignored => {}
                Key::Merge => merged.push(value),
                Key::Text(key) => {
                    if !keys.insert(key.clone()) {
                        return Err(Error::at("", line, column, format!("duplicate key {key:?}")));
                    }
                    entries.push(Entry { key, line, column, value });
                }
            }
        }
        for source in merged {
            merge(source, &mut entries, &mut keys)?;
        }
        // Most have one or two entries, and the tree of a large file is what memory is needed for at the start.
        entries.shrink_to_fit();
        Ok(Value::Map(Map::from_entries(entries)))
    }

    fn key(&mut self, event: Event<'a>, line: u32, column: u32) -> Result<Key, Error> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if tag.as_deref().is_some_and(is_ignore_tag) {
                    return Ok(Key::Ignored);
                }
                if style == ScalarStyle::Plain && text == "<<" {
                    return Ok(Key::Merge);
                }
                if anchor > 0 {
                    let node = Node { value: Value::String(text.clone().into_owned()), line, column };
                    self.anchors.insert(anchor, Anchored { node, node_count: 1, depth: 0 });
                }
                Ok(Key::Text(text.into_owned()))
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).map(|anchored| &anchored.node.value) {
                Some(Value::String(text)) => Ok(Key::Text(text.clone())),
                _ => Err(Error::at("", line, column, "a key must be a string")),
            },
            _ => Err(Error::at("", line, column, "a key must be a string, not a list or a map")),
        }
    }

    fn count(&mut self, nodes: usize, line: u32, column: u32) -> Result<(), Error> {
        self.node_count += nodes;
        if self.node_count > MAX_NODES {
            return Err(Error::at(
                "",
                line,
                column,
                format!("more than {MAX_NODES} values, aliases expanded"),
            ));
        }
        Ok(())
    }
}

enum Key {
    Text(String),
    Merge,
    Ignored,
}

/// Adds what the map, or the maps, behind a merge key have and the entries lack.
fn merge(source: Node, entries: &mut Vec<Entry>, keys: &mut HashSet<String>) -> Result<(), Error> {
    let (line, column) = (source.line, source.column);
    match source.value {
        Value::Map(map) => {
            let added = map.iter().filter(|entry| keys.insert(entry.key.clone())).cloned();
            entries.extend(added.collect::<Vec<_>>());
            Ok(())
        }
        Value::Seq(sources) if sources.iter().all(|source| matches!(source.value, Value::Map(_))) => {
            sources.into_iter().try_for_each(|source| merge(source, entries, keys))
        }
        _ => Err(Error::at("", line, column, "a merge key takes a map or a list of maps")),
    }
}

fn depth_of(node: &Node) -> usize {
    match &node.value {
        Value::Seq(nodes) => 1 + nodes.iter().map(depth_of).max().unwrap_or_default(),
        Value::Map(map) => 1 + map.iter().map(|entry| depth_of(&entry.value)).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Envoy's own tag: the entry is only there to hold anchors.
fn is_ignore_tag(tag: &Tag) -> bool {
    tag.handle == "!" && tag.suffix == "ignore"
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = style != ScalarStyle::Plain
        || tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str")
        || tag.is_some_and(|tag| tag.handle.is_empty() && tag.suffix == "!");
    if is_text { Value::String(text.to_owned()) } else { plain_scalar(text) }
}

/// Resolves a scalar that is not quoted, as Envoy's YAML reader (yaml-cpp) does it.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if let Some(value) = integer(text) {
        return Value::Int(value);
    }
    match float(text) {
        Some(value) => Value::Float(Float { value, text: text.to_owned() }),
        None => Value::String(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|value| sign * value)
}

/// A finite decimal number with a fraction or an exponent. `inf` and `nan` in any spelling are texts.
fn float(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.contains(['.', 'e', 'E']);
    text.parse::<f64>().ok().filter(|value| is_number && value.is_finite())
}

fn position_of(marker: &saphyr_parser::Marker) -> (u32, u32) {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(marker.line()), narrow(marker.col()).saturating_add(1))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
