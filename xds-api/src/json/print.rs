//! From the wire to JSON, as Envoy's `config_dump` shows a message.

use serde_json::{Map, Number, Value};

use super::encode::{is_under_value, is_wrapper};
use super::scalar;
use crate::encoding::{self, Fields, MAX_DEPTH, Merged, Raw};
use crate::resource::message_name;
use crate::schema::{Field, Kind, Message, Scalar};

/// What stands for a secret, as in Envoy.
const REDACTED: &str = "[redacted]";

/// The JSON form of an encoded message: names as in the proto, unset fields left out, an `Any` opened when its type is
/// known. Secrets (`udpa.annotations.sensitive`) are replaced by `[redacted]`. Fails with a reason when the bytes are
/// malformed; a field that the schema does not know is left out.
pub fn to_json(full_name: &str, bytes: &[u8]) -> Result<Value, String> {
    let message = Message::find(full_name).ok_or_else(|| format!("unknown message type {full_name}"))?;
    print_message(message, bytes, false, 0)
}

fn print_message(message: Message, bytes: &[u8], is_secret: bool, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply".to_owned());
    }
    let fields = encoding::read(message, bytes).map_err(|error| error.to_string())?;
    let name = message.full_name();
    let integer = |name: &str, scalar: Scalar| fields.get(name).last().map_or(0, |raw| raw.integer(scalar));
    match name {
        "google.protobuf.Any" => print_any(&fields, is_secret, depth),
        "google.protobuf.Duration" | "google.protobuf.Timestamp" => {
            let seconds = i64::try_from(integer("seconds", Scalar::Int64)).unwrap_or_default();
            let nanos = i32::try_from(integer("nanos", Scalar::Int32)).unwrap_or_default();
            Ok(match name {
                "google.protobuf.Duration" => scalar::print_duration(seconds, nanos),
                _ => scalar::print_timestamp(seconds, nanos),
            }
            .into())
        }
        "google.protobuf.Struct" => match fields.known.first() {
            Some((field, values)) => print_map(*field, values, is_secret, depth),
            None => Ok(Value::Object(Map::new())),
        },
        "google.protobuf.ListValue" => match fields.known.first() {
            Some((field, values)) => print_field(*field, values, is_secret, depth),
            None => Ok(Value::Array(Vec::new())),
        },
        "google.protobuf.Value" => match fields.known.first() {
            Some((field, _)) if field.name() == "null_value" => Ok(Value::Null),
            Some((field, values)) => print_field(*field, values, is_secret, depth),
            None => Ok(Value::Null),
        },
        _ if is_wrapper(name) => match message.field_by_number(1) {
            // A wrapper that is there holds a value, if only the default.
            Some(field) => match fields.known.first() {
                Some((_, values)) => print_field(field, values, is_secret, depth),
                None => print_scalar(field.kind(), default_of(field), is_secret),
            },
            None => Ok(Value::Null),
        },
        _ => {
            let mut object = Map::new();
            print_fields(&fields, is_secret, depth, &mut object)?;
            Ok(Value::Object(object))
        }
    }
}

fn print_fields(
    fields: &Fields<'_>,
    is_secret: bool,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), String> {
    for (field, values) in &fields.known {
        let is_secret = is_secret || field.is_sensitive();
        if is_secret && !can_be_redacted(field.kind()) {
            continue;
        }
        object.insert(field.name().to_owned(), print_field(*field, values, is_secret, depth)?);
    }
    Ok(())
}

/// Numbers have no room for the word: a secret number is left out.
fn can_be_redacted(kind: Kind) -> bool {
    matches!(kind, Kind::Message(_) | Kind::Scalar(Scalar::String | Scalar::Bytes))
}

fn print_field(field: Field, values: &[Raw<'_>], is_secret: bool, depth: usize) -> Result<Value, String> {
    if field.is_map() {
        return print_map(field, values, is_secret, depth);
    }
    let print = |raw: Raw<'_>| match field.kind() {
        Kind::Message(message) => print_message(message, raw.bytes(), is_secret, depth + 1),
        kind => print_scalar(kind, raw, is_secret),
    };
    if field.is_list() {
        return values.iter().map(|raw| print(*raw)).collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    match (encoding::single(field, values), field.kind()) {
        (Some(Merged::Message(bytes)), Kind::Message(message)) => {
            print_message(message, &bytes, is_secret, depth + 1)
        }
        (Some(Merged::Scalar(raw)), kind) => print_scalar(kind, raw, is_secret),
        _ => Ok(Value::Null),
    }
}

fn print_map(field: Field, values: &[Raw<'_>], is_secret: bool, depth: usize) -> Result<Value, String> {
    let Kind::Message(entry_type) = field.kind() else { return Ok(Value::Null) };
    let (Some(key_field), Some(value_field)) = (entry_type.field_by_number(1), entry_type.field_by_number(2))
    else {
        return Ok(Value::Null);
    };
    // The order on the wire is that of a hash map: sorted, two dumps of the same message are equal.
    let mut entries = std::collections::BTreeMap::new();
    for raw in values {
        let entry = encoding::read(entry_type, raw.bytes()).map_err(|error| error.to_string())?;
        let key = match entry.get("key").last() {
            Some(raw) => print_scalar(key_field.kind(), *raw, false)?,
            None => print_scalar(key_field.kind(), default_of(key_field), false)?,
        };
        let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        let value = match (entry.get("value"), value_field.kind()) {
            ([], Kind::Message(message)) => print_message(message, &[], is_secret, depth + 1)?,
            ([], kind) => print_scalar(kind, default_of(value_field), is_secret)?,
            (values, _) => print_field(value_field, values, is_secret, depth)?,
        };
        entries.insert(key, value);
    }
    Ok(Value::Object(entries.into_iter().collect()))
}

fn print_any(fields: &Fields<'_>, is_secret: bool, depth: usize) -> Result<Value, String> {
    let mut object = Map::new();
    let type_url = match fields.get("type_url").last() {
        Some(raw) => text(*raw)?,
        None => return Ok(Value::Object(object)),
    };
    let bytes = fields.get("value").last().map_or(&[][..], |raw| raw.bytes());
    object.insert("@type".to_owned(), type_url.into());
    let name = message_name(type_url);
    match Message::find(name) {
        None if is_secret => {
            object.insert("value".to_owned(), REDACTED.into());
        }
        None => {
            object.insert("value".to_owned(), scalar::base64(bytes).into());
        }
        Some(message) if is_under_value(name) => {
            object.insert("value".to_owned(), print_message(message, bytes, is_secret, depth + 1)?);
        }
        Some(message) => {
            let Value::Object(content) = print_message(message, bytes, is_secret, depth + 1)? else {
                return Ok(Value::Object(object));
            };
            object.extend(content);
        }
    }
    Ok(Value::Object(object))
}

fn print_scalar(kind: Kind, raw: Raw<'_>, is_secret: bool) -> Result<Value, String> {
    Ok(match kind {
        Kind::Scalar(Scalar::String) if is_secret => REDACTED.into(),
        Kind::Scalar(Scalar::Bytes) if is_secret => scalar::base64(REDACTED.as_bytes()).into(),
        _ if is_secret => Value::Null,
        Kind::Scalar(Scalar::String) => text(raw)?.into(),
        Kind::Scalar(Scalar::Bytes) => scalar::base64(raw.bytes()).into(),
        Kind::Scalar(Scalar::Bool) => (raw.integer(Scalar::Bool) != 0).into(),
        Kind::Scalar(Scalar::Float) => print_float(shortest(raw.float())),
        Kind::Scalar(Scalar::Double) => print_float(raw.float()),
        // 64-bit integers are texts, because JavaScript's numbers would round them.
        Kind::Scalar(
            scalar @ (Scalar::Int64 | Scalar::Uint64 | Scalar::Sint64 | Scalar::Fixed64 | Scalar::Sfixed64),
        ) => raw.integer(scalar).to_string().into(),
        Kind::Scalar(scalar) => small_integer(raw.integer(scalar)),
        Kind::Enum(r#enum) => {
            let number = raw.integer(Scalar::Enum);
            match i32::try_from(number).ok().and_then(|number| r#enum.name(number)) {
                Some(name) => name.into(),
                None => small_integer(number),
            }
        }
        Kind::Message(_) => Value::Null,
    })
}

fn small_integer(value: i128) -> Value {
    i64::try_from(value).unwrap_or_default().into()
}

/// A whole number prints without a fraction, as in Envoy.
fn print_float(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 2_f64.powi(53) {
        return (value as i64).into();
    }
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// The double that prints as short as the float it comes from.
fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

fn default_of(field: Field) -> Raw<'static> {
    match field.kind() {
        Kind::Scalar(Scalar::String | Scalar::Bytes) | Kind::Message(_) => Raw::Bytes(&[]),
        Kind::Scalar(Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64) => Raw::Fixed64(0),
        Kind::Scalar(Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32) => Raw::Fixed32(0),
        _ => Raw::Varint(0),
    }
}

fn text(raw: Raw<'_>) -> Result<&str, String> {
    raw.text().map_err(|error| error.to_string())
}
