//! `validate.rules` (protoc-gen-validate) as Rust expressions of `schema::rules`. A rule that is not known here stops
//! the build: none is ever dropped silently.

use prost_reflect::{DynamicMessage, Value};

/// The expression of one field's rules, or `None` when they say nothing.
pub(crate) fn expression(rules: &DynamicMessage) -> Option<String> {
    let mut required = false;
    let mut skip = false;
    let mut check = None;
    for (field, value) in rules.fields() {
        let value = message(value);
        match field.name() {
            "message" => {
                required |= flag(value, "required");
                skip |= flag(value, "skip");
            }
            kind => {
                required |= matches!(kind, "duration" | "timestamp" | "any") && flag(value, "required");
                check = self::check(kind, value);
            }
        }
    }
    if !required && !skip && check.is_none() {
        return None;
    }
    let check = check.unwrap_or_else(|| "Check::None".to_owned());
    Some(format!("Rules {{ required: {required}, skip: {skip}, check: {check} }}"))
}

fn check(kind: &str, rules: &DynamicMessage) -> Option<String> {
    let check = match kind {
        "float" | "double" => bounds(rules, "Check::Float", &|value| match value {
            Value::F32(value) => format!("{value:?}f64"),
            Value::F64(value) => format!("{value:?}f64"),
            other => panic!("not a float: {other:?}"),
        }),
        "int32" | "int64" | "uint32" | "uint64" | "sint32" | "sint64" | "fixed32" | "fixed64"
        | "sfixed32" | "sfixed64" => bounds(rules, "Check::Integer", &integer),
        "duration" => bounds(rules, "Check::Duration", &nanoseconds),
        "string" => Some(text(rules, "Check::String", "StringRules")),
        "bytes" => Some(text(rules, "Check::Bytes", "BytesRules")),
        "enum" => Some(enumeration(rules)),
        "repeated" => Some(repeated(rules)),
        "map" => Some(map(rules)),
        "bool" => Some(format!("Check::Bool {{ constant: {} }}", flag(rules, "const"))),
        "any" => any(rules),
        "timestamp" => {
            only(rules, &["required"]);
            None
        }
        other => panic!("unknown kind of rules: {other}"),
    };
    check.filter(|_| rules.fields().next().is_some())
}

/// Numeric rules: an interval, or a list of values.
fn bounds(rules: &DynamicMessage, variant: &str, number: &dyn Fn(&Value) -> String) -> Option<String> {
    let mut members = Vec::new();
    for (field, value) in rules.fields() {
        match field.name() {
            name @ ("gt" | "gte" | "lt" | "lte") => members.push(format!("{name}: Some({})", number(value))),
            "const" => members.push(format!("among: &[{}]", number(value))),
            "in" => members.push(format!("among: &[{}]", list(value, number))),
            "not_in" => members.push(format!("not_among: &[{}]", list(value, number))),
            "ignore_empty" => members.push(format!("ignore_empty: {}", is_true(value))),
            "required" => {}
            other => panic!("unknown numeric rule: {other}"),
        }
    }
    (!members.is_empty()).then(|| format!("{variant}(Bounds {{ {}, ..Bounds::ANY }})", members.join(", ")))
}

fn text(rules: &DynamicMessage, variant: &str, r#type: &str) -> String {
    let mut members = Vec::new();
    for (field, value) in rules.fields() {
        match field.name() {
            name @ ("min_len" | "max_len" | "min_bytes" | "max_bytes") => {
                let name = match (r#type, name) {
                    ("BytesRules", "min_len") => "min_bytes",
                    ("BytesRules", "max_len") => "max_bytes",
                    _ => name,
                };
                members.push(format!("{name}: Some({})", integer(value)));
            }
            "const" => members.push(format!("among: &[{}]", literal(value))),
            "in" => members.push(format!("among: &[{}]", list(value, &literal))),
            "not_in" => members.push(format!("not_among: &[{}]", list(value, &literal))),
            name @ ("pattern" | "prefix" | "suffix" | "contains" | "not_contains") => {
                members.push(format!("{name}: Some({})", literal(value)));
            }
            "ignore_empty" => members.push(format!("ignore_empty: {}", is_true(value))),
            "well_known_regex" => {
                let strict = rules.get_field_by_name("strict").is_none_or(|value| is_true(&value));
                let format = match value {
                    Value::EnumNumber(1) => "HttpHeaderName",
                    Value::EnumNumber(2) => "HttpHeaderValue",
                    other => panic!("unknown well-known regex: {other:?}"),
                };
                members.push(format!("format: Some(Format::{format} {{ strict: {strict} }})"));
            }
            "strict" => {}
            other => panic!("unknown rule of {type}: {other}"),
        }
    }
    format!("{variant}({type} {{ {}, ..{type}::ANY }})", members.join(", "))
}

fn enumeration(rules: &DynamicMessage) -> String {
    let mut members = Vec::new();
    for (field, value) in rules.fields() {
        match field.name() {
            "defined_only" => members.push(format!("defined_only: {}", is_true(value))),
            "const" => members.push(format!("among: &[{}]", integer(value))),
            "in" => members.push(format!("among: &[{}]", list(value, &integer))),
            "not_in" => members.push(format!("not_among: &[{}]", list(value, &integer))),
            other => panic!("unknown enum rule: {other}"),
        }
    }
    format!("Check::Enum(EnumRules {{ {}, ..EnumRules::ANY }})", members.join(", "))
}

fn repeated(rules: &DynamicMessage) -> String {
    let mut members = Vec::new();
    for (field, value) in rules.fields() {
        match field.name() {
            name @ ("min_items" | "max_items") => members.push(format!("{name}: Some({})", integer(value))),
            name @ ("unique" | "ignore_empty") => members.push(format!("{name}: {}", is_true(value))),
            "items" => members.extend(nested("items", value)),
            other => panic!("unknown rule of a repeated field: {other}"),
        }
    }
    format!("Check::Repeated(RepeatedRules {{ {} }})", with_rest(members, "RepeatedRules"))
}

fn map(rules: &DynamicMessage) -> String {
    let mut members = Vec::new();
    for (field, value) in rules.fields() {
        match field.name() {
            name @ ("min_pairs" | "max_pairs") => members.push(format!("{name}: Some({})", integer(value))),
            // A message value always is set on the wire: nothing is sparse.
            "no_sparse" => {}
            "ignore_empty" => members.push(format!("ignore_empty: {}", is_true(value))),
            name @ ("keys" | "values") => members.extend(nested(name, value)),
            other => panic!("unknown rule of a map: {other}"),
        }
    }
    format!("Check::Map(MapRules {{ {} }})", with_rest(members, "MapRules"))
}

fn any(rules: &DynamicMessage) -> Option<String> {
    let mut among = None;
    for (field, value) in rules.fields() {
        match field.name() {
            "required" => {}
            "in" => among = Some(format!("Check::Any {{ among: &[{}] }}", list(value, &literal))),
            other => panic!("unknown rule of an Any: {other}"),
        }
    }
    among
}

fn nested(name: &str, rules: &Value) -> Option<String> {
    expression(message(rules)).map(|rules| format!("{name}: Some(&{rules})"))
}

fn with_rest(mut members: Vec<String>, r#type: &str) -> String {
    members.push(format!("..{type}::ANY"));
    members.join(", ")
}

fn only(rules: &DynamicMessage, known: &[&str]) {
    for (field, _) in rules.fields() {
        assert!(known.contains(&field.name()), "unknown rule: {}", field.full_name());
    }
}

fn message(value: &Value) -> &DynamicMessage {
    value.as_message().unwrap_or_else(|| panic!("rules are not a message: {value:?}"))
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    rules.get_field_by_name(name).is_some_and(|value| is_true(&value))
}

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| panic!("not a bool: {value:?}"))
}

fn integer(value: &Value) -> String {
    match value {
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::EnumNumber(value) => value.to_string(),
        other => panic!("not an integer: {other:?}"),
    }
}

/// A `google.protobuf.Duration` in nanoseconds.
fn nanoseconds(value: &Value) -> String {
    let duration = message(value);
    let part = |name: &str| {
        let value = duration.get_field_by_name(name).unwrap_or_else(|| panic!("a duration has no {name}"));
        value.as_i64().or_else(|| value.as_i32().map(i64::from)).unwrap_or_default()
    };
    (i128::from(part("seconds")) * 1_000_000_000 + i128::from(part("nanos"))).to_string()
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        other => panic!("not a text: {other:?}"),
    }
}

fn list(value: &Value, item: &dyn Fn(&Value) -> String) -> String {
    let items = value.as_list().unwrap_or_else(|| panic!("not a list: {value:?}"));
    items.iter().map(item).collect::<Vec<_>>().join(", ")
}
