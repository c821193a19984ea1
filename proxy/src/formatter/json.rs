//! JSON formats: one object a line, keys in order, values typed.

use serde_json::Value;

use super::append::Appended;
use super::format::Template;
use super::time::Clock;
use super::{CapturePlan, Values};

/// A compiled `json_format`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonFormat {
    fields: Vec<Field>,
    omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    /// `"key":`.
    key: Box<[u8]>,
    value: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// A constant, as JSON text.
    Constant(Box<[u8]>),
    Null,
    Template(Template),
    Object(Vec<Field>),
    Array(Vec<Node>),
}

impl JsonFormat {
    pub(super) fn compile(
        object: &serde_json::Map<String, Value>,
        omit_empty: bool,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        Ok(Self { fields: compile_fields(object, plan)?, omit_empty })
    }

    pub(super) fn append(&self, values: Values<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
        Line { values, clock, omit_empty: self.omit_empty, out }.object(&self.fields);
        out.push(b'\n');
    }
}

fn compile_fields(
    object: &serde_json::Map<String, Value>,
    plan: &mut CapturePlan,
) -> Result<Vec<Field>, String> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    entries
        .into_iter()
        .map(|(key, value)| {
            let value = Node::compile(value, plan).map_err(|error| format!("{key}: {error}"))?;
            Ok(Field { key: format!("{}:", Value::from(key.as_str())).into_bytes().into(), value })
        })
        .collect()
}

impl Node {
    fn compile(value: &Value, plan: &mut CapturePlan) -> Result<Self, String> {
        Ok(match value {
            Value::Null => Node::Null,
            Value::String(text) => Node::Template(Template::compile(text, plan)?),
            Value::Object(object) => Node::Object(compile_fields(object, plan)?),
            Value::Array(values) => {
                Node::Array(values.iter().map(|value| Node::compile(value, plan)).collect::<Result<_, _>>()?)
            }
            // A `google.protobuf.Value` has no integers.
            Value::Number(number) => match number.as_f64() {
                Some(n) if n.fract() == 0.0 && n.abs() < 1e15 => {
                    Node::Constant((n as i64).to_string().into_bytes().into())
                }
                _ => Node::Constant(number.to_string().into_bytes().into()),
            },
            Value::Bool(_) => Node::Constant(value.to_string().into_bytes().into()),
        })
    }
}

/// A line being written.
struct Line<'a> {
    values: Values<'a>,
    clock: &'a mut Clock,
    omit_empty: bool,
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn object(&mut self, fields: &[Field]) {
        self.out.push(b'{');
        let mut first = true;
        for field in fields {
            let start = self.out.len();
            if !first {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&field.key);
            if self.value(&field.value) || !self.omit_empty {
                first = false;
            } else {
                self.out.truncate(start);
            }
        }
        self.out.push(b'}');
    }

    /// Appends a value; false when it is `null`.
    fn value(&mut self, node: &Node) -> bool {
        match node {
            Node::Constant(text) => self.out.extend_from_slice(text),
            Node::Null => {
                self.out.extend_from_slice(b"null");
                return false;
            }
            Node::Object(fields) => self.object(fields),
            Node::Array(nodes) => {
                self.out.push(b'[');
                let mut first = true;
                for node in nodes {
                    let start = self.out.len();
                    if !first {
                        self.out.push(b',');
                    }
                    if self.value(node) || !self.omit_empty {
                        first = false;
                    } else {
                        self.out.truncate(start);
                    }
                }
                self.out.push(b']');
            }
            Node::Template(template) => return self.template(template),
        }
        true
    }

    fn template(&mut self, template: &Template) -> bool {
        let start = self.out.len();
        let Some(operator) = template.single_operator() else {
            template.append(self.values, self.clock, if self.omit_empty { "" } else { "-" }, self.out);
            quote(self.out, start);
            return true;
        };
        match operator.append(Values { json: true, ..self.values }, self.clock, self.out) {
            Appended::Raw => true,
            Appended::Text => {
                quote(self.out, start);
                true
            }
            Appended::Empty => {
                self.out.extend_from_slice(b"null");
                false
            }
        }
    }
}

/// Makes a JSON string of what stands in `out` from `start`. Bytes that are not UTF-8 become U+FFFD.
fn quote(out: &mut Vec<u8>, start: usize) {
    if out[start..].iter().all(|b| matches!(b, 0x20..=0x7e) && !matches!(b, b'"' | b'\\')) {
        out.insert(start, b'"');
        out.push(b'"');
        return;
    }
    let raw = out.split_off(start);
    out.extend_from_slice(Value::from(String::from_utf8_lossy(&raw)).to_string().as_bytes());
}
