//! From a positioned tree to the wire, by the schema table.

use super::scalar::{self, Expected};
use super::tree::{Entry, Map, Node, Value};
use super::{Error, Notation};
use crate::encoding::{Written, has_presence, scalar_of, write_bytes, write_scalar, write_value};
use crate::path::Path;
use crate::schema::{Cardinality, Field, Kind, Message, Scalar};

/// Encodes a node as the message `full_name`. Fails at the first thing that does not fit, with its path and position.
pub fn encode(full_name: &str, node: &Node, notation: Notation) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder { path: Path::default(), notation, is_secret: false };
    let Some(message) = Message::find(full_name) else {
        return Err(encoder.error(node, format!("unknown message type {full_name}")));
    };
    let mut out = Vec::new();
    encoder.message(message, node, &mut out)?;
    Ok(out)
}

/// A walk over a tree. After an error the path is where it happened, and the walk is over.
struct Encoder {
    path: Path,
    notation: Notation,
    /// Inside a field whose value must not be shown, not even in an error.
    is_secret: bool,
}

impl Encoder {
    fn error(&self, node: &Node, reason: impl Into<String>) -> Error {
        Error::at(self.path.as_str(), node.line, node.column, reason)
    }

    fn mismatch(&self, node: &Node, expected: impl Into<Expected>) -> Error {
        let found = if self.is_secret { node.value.kind().to_owned() } else { node.value.describe() };
        self.error(node, format!("expected {}, got {found}", expected.into()))
    }

    fn error_at_key(&self, entry: &Entry, reason: impl Into<String>) -> Error {
        Error::at(self.path.as_str(), entry.line, entry.column, reason)
    }

    fn message(&mut self, message: Message, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        match (message.full_name(), &node.value) {
            // An element of a list that is null is an empty message.
            (name, Value::Null) if name != "google.protobuf.Value" => Ok(()),
            ("google.protobuf.Any", _) => self.any(node, out),
            ("google.protobuf.Struct", _) => self.r#struct(message, node, out),
            ("google.protobuf.Value", _) => self.value(message, node, out),
            ("google.protobuf.ListValue", _) => self.list_value(message, node, out),
            // The other well-known types may also be written as the map of their fields, as in Envoy.
            (_, Value::Map(map)) => self.fields(message, map, None, out),
            ("google.protobuf.Duration", value) => {
                let (seconds, nanos) = self.read(node, value, scalar::duration)?;
                write_time(out, seconds, nanos);
                Ok(())
            }
            ("google.protobuf.Timestamp", value) => {
                let (seconds, nanos) = self.read(node, value, scalar::timestamp)?;
                write_time(out, seconds, nanos);
                Ok(())
            }
            (name, _) => match wrapped_field(name).and_then(|number| message.field_by_number(number)) {
                Some(field) => self.single(field, node, out),
                None => Err(self.mismatch(node, format!("a map of the fields of {name}"))),
            },
        }
    }

    /// A well-known type in its text form.
    fn read<T>(
        &self,
        node: &Node,
        value: &Value,
        read: impl FnOnce(&str) -> Result<T, Expected>,
    ) -> Result<T, Error> {
        scalar::text(value).and_then(|text| read(&text)).map_err(|expected| self.mismatch(node, expected))
    }

    /// The fields of a message, without the entry `skipped`.
    fn fields(
        &mut self,
        message: Message,
        map: &Map,
        skipped: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut set: Vec<Field> = Vec::new();
        for entry in map.iter().filter(|entry| Some(entry.key.as_str()) != skipped) {
            let Some(field) = message.field_by_name(&entry.key) else {
                let _ = self.path.enter_field(&entry.key);
                return Err(self.error_at_key(entry, "unknown field"));
            };
            let mark = self.path.enter_field(field.name());
            if entry.value.value != Value::Null || takes_null(field) {
                if let Some(reason) = conflict(message, field, &set) {
                    return Err(self.error_at_key(entry, reason));
                }
                set.push(field);
                let was_secret = self.is_secret;
                self.is_secret |= field.is_sensitive();
                self.field(field, &entry.value, out)?;
                self.is_secret = was_secret;
            }
            self.path.leave(mark);
        }
        Ok(())
    }

    fn field(&mut self, field: Field, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        if field.is_map() {
            return self.map(field, node, out);
        }
        if !field.is_list() {
            return self.single(field, node, out);
        }
        let mut packed = Vec::new();
        match &node.value {
            Value::Seq(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    let mark = self.path.enter_index(index);
                    self.element(field, node, out, &mut packed)?;
                    self.path.leave(mark);
                }
            }
            // A single value may stand where a list is expected.
            _ => self.element(field, node, out, &mut packed)?,
        }
        if !packed.is_empty() {
            write_bytes(out, field.number(), &packed);
        }
        Ok(())
    }

    /// An element of a list: to `packed` when the list is packed, else to `out`.
    fn element(
        &mut self,
        field: Field,
        node: &Node,
        out: &mut Vec<u8>,
        packed: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if let Kind::Message(message) = field.kind() {
            return self.nested(field.number(), message, node, out);
        }
        let scalar = scalar_of(field.kind());
        let value = self.scalar(field.kind(), node)?;
        match field.cardinality() {
            Cardinality::Packed => write_value(packed, scalar, &value),
            _ => write_scalar(out, field.number(), scalar, &value),
        }
        Ok(())
    }

    fn single(&mut self, field: Field, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Kind::Message(message) = field.kind() {
            return self.nested(field.number(), message, node, out);
        }
        let value = self.scalar(field.kind(), node)?;
        if has_presence(field) || field.oneof_index().is_some() || !value.is_default() {
            write_scalar(out, field.number(), scalar_of(field.kind()), &value);
        }
        Ok(())
    }

    fn nested(&mut self, number: u32, message: Message, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        self.message(message, node, &mut bytes)?;
        write_bytes(out, number, &bytes);
        Ok(())
    }

    fn scalar(&self, kind: Kind, node: &Node) -> Result<Written, Error> {
        let written = match (kind, &node.value) {
            (_, Value::Null) => Ok(scalar::default_of(scalar_of(kind))),
            (Kind::Enum(r#enum), value) => {
                scalar::enum_number(r#enum, value).map(|number| Written::Integer(number.into()))
            }
            (kind, value) => scalar::scalar(scalar_of(kind), value),
        };
        written.map_err(|expected| self.mismatch(node, expected))
    }

    fn map(&mut self, field: Field, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        let Value::Map(map) = &node.value else {
            return Err(self.mismatch(node, "a map"));
        };
        let Kind::Message(entry_type) = field.kind() else { return Ok(()) };
        let (Some(key_field), Some(value_field)) =
            (entry_type.field_by_number(1), entry_type.field_by_number(2))
        else {
            return Ok(());
        };
        for entry in map.iter() {
            let mark = self.path.enter_key(&entry.key);
            let key_scalar = scalar_of(key_field.kind());
            let key = scalar::scalar(key_scalar, &Value::String(entry.key.clone()))
                .map_err(|expected| self.error_at_key(entry, format!("expected {expected} as the key")))?;
            let mut bytes = Vec::new();
            write_scalar(&mut bytes, 1, key_scalar, &key);
            self.single(value_field, &entry.value, &mut bytes)?;
            write_bytes(out, field.number(), &bytes);
            self.path.leave(mark);
        }
        Ok(())
    }

    /// An Any is the message that it holds, with its type URL as `@type`; a well-known type is under `value`.
    fn any(&mut self, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        const TYPE: &str = "@type";
        let Value::Map(map) = &node.value else {
            return Err(self.mismatch(node, "a map with @type"));
        };
        let Some(r#type) = map.entry(TYPE) else {
            return match map.is_empty() {
                true => Ok(()),
                false => Err(self.error(node, "@type is missing")),
            };
        };
        let type_error = |encoder: &mut Encoder, reason: String| {
            let _ = encoder.path.enter_field(TYPE);
            Err(encoder.error_at_key(r#type, reason))
        };
        let Some(type_url) = r#type.value.as_str() else {
            return type_error(self, "expected a type URL".to_owned());
        };
        let name = match type_url.rsplit_once('/') {
            Some((host, name)) if !host.is_empty() && !name.is_empty() => name,
            _ => {
                return type_error(
                    self,
                    format!("{type_url:?} is no type URL: expected type.googleapis.com/..."),
                );
            }
        };
        let Some(message) = Message::find(name) else {
            return type_error(self, format!("unknown type {name}"));
        };
        let mut bytes = Vec::new();
        if !is_under_value(name) {
            self.fields(message, map, Some(TYPE), &mut bytes)?;
        } else {
            for entry in map.iter().filter(|entry| entry.key != TYPE) {
                let mark = self.path.enter_field(&entry.key);
                if entry.key != "value" {
                    let reason = format!("unknown field: {name} has its content under `value`");
                    return Err(self.error_at_key(entry, reason));
                }
                self.message(message, &entry.value, &mut bytes)?;
                self.path.leave(mark);
            }
        }
        write_bytes(out, 1, type_url.as_bytes());
        write_bytes(out, 2, &bytes);
        Ok(())
    }

    fn r#struct(&mut self, message: Message, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        match message.field_by_number(1) {
            Some(fields) => self.map(fields, node, out),
            None => Ok(()),
        }
    }

    fn list_value(&mut self, message: Message, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        match (&node.value, message.field_by_number(1)) {
            (Value::Seq(_), Some(values)) => self.field(values, node, out),
            _ => Err(self.mismatch(node, "a list")),
        }
    }

    /// A value of any type. As in Envoy, a number from YAML is a text when it has a fraction or exceeds 32 bits.
    fn value(&mut self, message: Message, node: &Node, out: &mut Vec<u8>) -> Result<(), Error> {
        let nested = |number: u32| match message.field_by_number(number).map(Field::kind) {
            Some(Kind::Message(message)) => Some(message),
            _ => None,
        };
        let is_yaml = self.notation == Notation::Yaml;
        match &node.value {
            Value::Null => write_scalar(out, 1, Scalar::Enum, &Written::Integer(0)),
            Value::Int(value) if is_yaml && i32::try_from(*value).is_err() => {
                write_bytes(out, 3, value.to_string().as_bytes());
            }
            Value::Int(value) => write_scalar(out, 2, Scalar::Double, &Written::Float(*value as f64)),
            Value::Float(float) if is_yaml => write_bytes(out, 3, float.text.as_bytes()),
            Value::Float(float) => write_scalar(out, 2, Scalar::Double, &Written::Float(float.value)),
            Value::String(text) => write_bytes(out, 3, text.as_bytes()),
            Value::Bool(value) => write_scalar(out, 4, Scalar::Bool, &Written::Integer((*value).into())),
            Value::Map(_) => {
                if let Some(message) = nested(5) {
                    self.nested(5, message, node, out)?;
                }
            }
            Value::Seq(_) => {
                if let Some(message) = nested(6) {
                    self.nested(6, message, node, out)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether `null` is a value of the field and does not mean that it is unset.
fn takes_null(field: Field) -> bool {
    match field.kind() {
        Kind::Message(message) => {
            message.full_name() == "google.protobuf.Value" && !field.is_list() && !field.is_map()
        }
        Kind::Enum(r#enum) => r#enum.full_name() == "google.protobuf.NullValue",
        Kind::Scalar(_) => false,
    }
}

/// Why a field cannot be set beside those that are.
fn conflict(message: Message, field: Field, set: &[Field]) -> Option<String> {
    if set.contains(&field) {
        return Some("the field is given twice".to_owned());
    }
    let oneof = field.oneof_index()?;
    let other = set.iter().find(|other| other.oneof_index() == Some(oneof))?;
    let name = message.oneofs().nth(oneof).map(|oneof| oneof.name()).unwrap_or_default();
    Some(format!("only one of the oneof {name} may be set, and {} is", other.name()))
}

/// The number of the field in a wrapper such as `google.protobuf.UInt32Value`.
fn wrapped_field(name: &str) -> Option<u32> {
    matches!(
        name.strip_prefix("google.protobuf."),
        Some(
            "DoubleValue"
                | "FloatValue"
                | "Int64Value"
                | "UInt64Value"
                | "Int32Value"
                | "UInt32Value"
                | "BoolValue"
                | "StringValue"
                | "BytesValue"
        )
    )
    .then_some(1)
}

/// Whether an Any that holds this type has its content under `value`, because its JSON form is no map of its fields.
pub(super) fn is_under_value(name: &str) -> bool {
    wrapped_field(name).is_some()
        || matches!(
            name.strip_prefix("google.protobuf."),
            Some("Any" | "Duration" | "Timestamp" | "Struct" | "Value" | "ListValue")
        )
}

/// Whether the JSON form of this type is that of its field 1.
pub(super) fn is_wrapper(name: &str) -> bool {
    wrapped_field(name).is_some()
}

/// The fields that a Duration and a Timestamp have in common.
fn write_time(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    for (number, scalar, value) in [(1, Scalar::Int64, i128::from(seconds)), (2, Scalar::Int32, nanos.into())]
    {
        let value = Written::Integer(value);
        if !value.is_default() {
            write_scalar(out, number, scalar, &value);
        }
    }
}
