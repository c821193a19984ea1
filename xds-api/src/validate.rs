//! Envoy's validation rules (protoc-gen-validate) on encoded messages, by the schema table.
//!
//! Walks the wire bytes, so it also sees what a decoder would drop: fields and enum values that this version does not
//! know. What is inside an `Any` of a known type is checked too. Reasons are worded as Envoy words them.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;

use crate::encoding::{self, Fields, MAX_DEPTH, Merged, Raw};
use crate::path::Path;
use crate::resource::message_name;
use crate::schema::rules::{Bounds, Check, Format, Rules, StringRules};
use crate::schema::{Enum, Field, Kind, Message, Scalar};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, as in `filter_chains[0].filters[1].name`; empty for the message itself.
    pub path: String,
    /// Why, in a few words, without the path.
    pub reason: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// What a validation found, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Broken rules, malformed bytes, and fields that Envoy refuses by default. Any makes the message invalid.
    pub violations: Vec<Violation>,
    /// Field numbers and enum values that the schema does not have, and types of an `Any`. The caller decides: Envoy
    /// refuses the first in static configuration and tolerates them in what a server sends.
    pub unknown: Vec<Violation>,
    /// Paths of deprecated fields that are set.
    pub deprecated: Vec<String>,
}

impl Report {
    /// An error when there is a violation.
    pub fn into_result(self) -> Result<(), Vec<Violation>> {
        if self.violations.is_empty() { Ok(()) } else { Err(self.violations) }
    }
}

/// Checks an encoded message of the type `full_name`.
pub fn validate(full_name: &str, bytes: &[u8]) -> Report {
    let mut validator = Validator { path: Path::default(), report: Report::default() };
    match Message::find(full_name) {
        Some(message) => validator.message(message, bytes, 0),
        None => validator.unknown(format!("unknown message type {full_name}")),
    }
    validator.report
}

struct Validator {
    path: Path,
    report: Report,
}

impl Validator {
    fn violation(&mut self, reason: impl Into<String>) {
        let path = self.path.as_str().to_owned();
        self.report.violations.push(Violation { path, reason: reason.into() });
    }

    fn unknown(&mut self, reason: impl Into<String>) {
        let path = self.path.as_str().to_owned();
        self.report.unknown.push(Violation { path, reason: reason.into() });
    }

    fn message(&mut self, message: Message, bytes: &[u8], depth: usize) {
        if depth > MAX_DEPTH {
            return self.violation("nested too deeply");
        }
        let fields = match encoding::read(message, bytes) {
            Ok(fields) => fields,
            Err(error) => return self.violation(error.to_string()),
        };
        for number in &fields.unknown {
            self.unknown(format!("unknown field number {number} of {message:?}"));
        }
        if message.full_name() == "google.protobuf.Any" {
            return self.any(&fields, depth);
        }
        for field in message.fields() {
            let values = fields.known.iter().find(|(known, _)| *known == field);
            let values = values.map_or(&[][..], |(_, values)| values);
            let mark = self.path.enter_field(field.name());
            self.field(message, field, values, depth);
            self.path.leave(mark);
        }
        if message.is_unchecked() {
            return;
        }
        for (index, oneof) in message.oneofs().enumerate() {
            let is_set = fields.known.iter().any(|(field, _)| field.oneof_index() == Some(index));
            if oneof.is_required() && !is_set {
                let mark = self.path.enter_field(oneof.name());
                self.violation("is required");
                self.path.leave(mark);
            }
        }
    }

    fn any(&mut self, fields: &Fields<'_>, depth: usize) {
        let type_url = match fields.get("type_url").last().map(|raw| raw.text()) {
            Some(Ok(type_url)) => type_url,
            Some(Err(error)) => return self.violation(error.to_string()),
            None => return,
        };
        let bytes = fields.get("value").last().map_or(&[][..], |raw| raw.bytes());
        match Message::find(message_name(type_url)) {
            Some(message) => self.message(message, bytes, depth + 1),
            None => self.unknown(format!("unknown type {type_url:?}")),
        }
    }

    fn field(&mut self, message: Message, field: Field, values: &[Raw<'_>], depth: usize) {
        let rules = field.rules().filter(|_| !message.is_unchecked());
        if !values.is_empty() {
            if field.is_disallowed() {
                self.violation("the field is deprecated and no longer allowed");
            } else if field.is_deprecated() {
                self.report.deprecated.push(self.path.as_str().to_owned());
            }
        }
        if field.is_map() {
            return self.map(field, rules, values, depth);
        }
        if field.is_list() {
            return self.list(field, rules, values, depth);
        }
        match encoding::single(field, values) {
            // In a oneof the rule means: not empty when this is the one that is set.
            None if rules.is_some_and(|rules| rules.required) && field.oneof_index().is_none() => {
                self.violation("value is required");
            }
            // A scalar without presence is checked with its default value; so is an unset string with a least length.
            None if matches!(field.kind(), Kind::Message(_)) || is_optional(field) => {}
            None => self.scalar(field.kind(), rules, zero(field.kind())),
            Some(Merged::Scalar(raw)) => self.scalar(field.kind(), rules, raw),
            Some(Merged::Message(bytes)) => self.nested(field.kind(), rules, &bytes, depth),
        }
    }

    fn list(&mut self, field: Field, rules: Option<&Rules>, values: &[Raw<'_>], depth: usize) {
        let mut items = None;
        if let Some(Rules { check: Check::Repeated(rules), .. }) = rules {
            if !(values.is_empty() && rules.ignore_empty) {
                self.count("items", values.len(), rules.min_items, rules.max_items);
                if rules.unique && has_duplicates(values) {
                    self.violation("repeated value must contain unique items");
                }
            }
            items = rules.items;
        }
        for (index, raw) in values.iter().enumerate() {
            let mark = self.path.enter_index(index);
            match field.kind() {
                Kind::Message(_) => self.nested(field.kind(), items, raw.bytes(), depth),
                kind => self.scalar(kind, items, *raw),
            }
            self.path.leave(mark);
        }
    }

    fn map(&mut self, field: Field, rules: Option<&Rules>, values: &[Raw<'_>], depth: usize) {
        let (mut keys, mut entries) = (None, None);
        if let Some(Rules { check: Check::Map(rules), .. }) = rules {
            if !(values.is_empty() && rules.ignore_empty) {
                self.count("pairs", values.len(), rules.min_pairs, rules.max_pairs);
            }
            (keys, entries) = (rules.keys, rules.values);
        }
        let Kind::Message(entry_type) = field.kind() else { return };
        for raw in values {
            let entry = match encoding::read(entry_type, raw.bytes()) {
                Ok(entry) => entry,
                Err(error) => {
                    self.violation(error.to_string());
                    continue;
                }
            };
            let key_kind = entry_type.field_by_number(1).map_or(Kind::Scalar(Scalar::String), Field::kind);
            let key = entry.get("key").last().copied().unwrap_or_else(|| zero(key_kind));
            let name = match key_kind {
                Kind::Scalar(Scalar::String) => String::from_utf8_lossy(key.bytes()).into_owned(),
                kind => key.integer(encoding::scalar_of(kind)).to_string(),
            };
            let mark = self.path.enter_key(&name);
            self.scalar(key_kind, keys, key);
            if let Some(value_field) = entry_type.field_by_number(2) {
                match encoding::single(value_field, entry.get("value")) {
                    Some(Merged::Message(bytes)) => self.nested(value_field.kind(), entries, &bytes, depth),
                    Some(Merged::Scalar(raw)) => self.scalar(value_field.kind(), entries, raw),
                    None if matches!(value_field.kind(), Kind::Message(_)) => {
                        self.nested(value_field.kind(), entries, &[], depth);
                    }
                    None => self.scalar(value_field.kind(), entries, zero(value_field.kind())),
                }
            }
            self.path.leave(mark);
        }
    }

    fn count(&mut self, what: &str, count: usize, min: Option<usize>, max: Option<usize>) {
        if let Some(min) = min.filter(|min| count < *min) {
            self.violation(format!("value must contain at least {min} {}", plural(what, min)));
        }
        if let Some(max) = max.filter(|max| count > *max) {
            self.violation(format!("value must contain no more than {max} {}", plural(what, max)));
        }
    }

    /// A message that is set.
    fn nested(&mut self, kind: Kind, rules: Option<&Rules>, bytes: &[u8], depth: usize) {
        let Kind::Message(message) = kind else { return };
        if let Some(rules) = rules {
            self.message_rules(message, rules, bytes);
            if rules.skip {
                return;
            }
        }
        self.message(message, bytes, depth + 1);
    }

    /// Rules on a message as a value: a duration, the type of an Any, or what a wrapper holds.
    fn message_rules(&mut self, message: Message, rules: &Rules, bytes: &[u8]) {
        // Malformed bytes are reported by the walk into the message.
        let Ok(fields) = encoding::read(message, bytes) else { return };
        match (&rules.check, message.full_name()) {
            (Check::None, _) => {}
            (Check::Duration(bounds), "google.protobuf.Duration") => {
                let part = |name: &str, scalar| fields.get(name).last().map_or(0, |raw| raw.integer(scalar));
                let nanos = part("seconds", Scalar::Int64) * 1_000_000_000 + part("nanos", Scalar::Int32);
                self.bounds(bounds, nanos, &print_nanos);
            }
            (Check::Any { among }, "google.protobuf.Any") => {
                let type_url = fields.get("type_url").last().map_or("", |raw| raw.text().unwrap_or_default());
                if !among.contains(&type_url) {
                    self.violation("type URL must be in list");
                }
            }
            _ => {
                if let Some(field) = message.field_by_number(1).filter(|field| field.name() == "value") {
                    let raw = fields.get("value").last().copied().unwrap_or_else(|| zero(field.kind()));
                    self.scalar(field.kind(), Some(rules), raw);
                }
            }
        }
    }

    fn scalar(&mut self, kind: Kind, rules: Option<&Rules>, raw: Raw<'_>) {
        if let Kind::Enum(r#enum) = kind {
            return self.enumeration(r#enum, rules, raw);
        }
        let scalar = encoding::scalar_of(kind);
        let text = match scalar {
            Scalar::String => match raw.text() {
                Ok(text) => text,
                Err(error) => return self.violation(error.to_string()),
            },
            _ => "",
        };
        match rules.map(|rules| &rules.check) {
            Some(Check::Bool { constant }) if (raw.integer(Scalar::Bool) != 0) != *constant => {
                self.violation(format!("value must equal {constant}"));
            }
            Some(Check::Integer(bounds)) => {
                self.bounds(bounds, raw.integer(scalar), &|value| value.to_string());
            }
            Some(Check::Float(bounds)) => self.bounds(bounds, raw.float(), &|value| value.to_string()),
            Some(Check::String(rules)) => self.string(rules, text),
            Some(Check::Bytes(rules)) => {
                let length = raw.bytes().len();
                if let Some(min) = rules.min_bytes.filter(|min| length < *min) {
                    self.violation(format!("value length must be at least {min} bytes"));
                }
                if let Some(max) = rules.max_bytes.filter(|max| length > *max) {
                    self.violation(format!("value length must be at most {max} bytes"));
                }
            }
            _ => {}
        }
    }

    fn enumeration(&mut self, r#enum: Enum, rules: Option<&Rules>, raw: Raw<'_>) {
        let number = i32::try_from(raw.integer(Scalar::Enum)).unwrap_or_default();
        let is_defined = r#enum.name(number).is_some();
        if r#enum.is_disallowed(number) {
            let name = r#enum.name(number).unwrap_or_default();
            self.violation(format!("the value {name} is deprecated and no longer allowed"));
        }
        if let Some(Rules { check: Check::Enum(rules), .. }) = rules {
            if rules.defined_only && !is_defined {
                return self.violation("value must be one of the defined enum values");
            }
            if !rules.among.is_empty() && !rules.among.contains(&number) {
                self.violation("value must be in list of allowed values");
            }
            if rules.not_among.contains(&number) {
                self.violation("value must not be in list of disallowed values");
            }
        }
        if !is_defined {
            self.unknown(format!("unknown value {number} of {}", r#enum.full_name()));
        }
    }

    fn bounds<T: PartialOrd + Copy + Default>(
        &mut self,
        bounds: &Bounds<T>,
        value: T,
        print: &dyn Fn(T) -> String,
    ) {
        if bounds.ignore_empty && value == T::default() {
            return;
        }
        type Holds<T> = fn(&T, &T) -> bool;
        let limits: [(Option<T>, &str, Holds<T>); 4] = [
            (bounds.gt, "greater than", T::gt),
            (bounds.gte, "greater than or equal to", T::ge),
            (bounds.lt, "less than", T::lt),
            (bounds.lte, "less than or equal to", T::le),
        ];
        for (limit, words, holds) in limits {
            // Not a number breaks every limit.
            if let Some(limit) = limit.filter(|limit| !holds(&value, limit)) {
                self.violation(format!("value must be {words} {}", print(limit)));
            }
        }
        if !bounds.among.is_empty() && !bounds.among.contains(&value) {
            self.violation("value must be in list of allowed values");
        }
        if bounds.not_among.contains(&value) {
            self.violation("value must not be in list of disallowed values");
        }
    }

    fn string(&mut self, rules: &StringRules, text: &str) {
        if rules.ignore_empty && text.is_empty() {
            return;
        }
        let characters = text.chars().count();
        let at_least = |min: Option<usize>, length: usize| min.filter(|min| length < *min);
        let at_most = |max: Option<usize>, length: usize| max.filter(|max| length > *max);
        let reasons = [
            at_least(rules.min_len, characters)
                .map(|min| format!("value length must be at least {min} characters")),
            at_most(rules.max_len, characters)
                .map(|max| format!("value length must be at most {max} characters")),
            at_least(rules.min_bytes, text.len())
                .map(|min| format!("value length must be at least {min} bytes")),
            at_most(rules.max_bytes, text.len())
                .map(|max| format!("value length must be at most {max} bytes")),
            (rules.prefix.filter(|prefix| !text.starts_with(prefix)))
                .map(|prefix| format!("value does not have prefix {prefix:?}")),
            (rules.suffix.filter(|suffix| !text.ends_with(suffix)))
                .map(|suffix| format!("value does not have suffix {suffix:?}")),
            (rules.contains.filter(|part| !text.contains(part)))
                .map(|part| format!("value does not contain substring {part:?}")),
            (rules.not_contains.filter(|part| text.contains(part)))
                .map(|part| format!("value contains substring {part:?}")),
            (rules.pattern.filter(|pattern| !matches_pattern(pattern, text)))
                .map(|pattern| format!("value does not match regex pattern {pattern:?}")),
            (rules.format.filter(|format| !has_format(*format, text))).map(|format| match format {
                Format::HttpHeaderName { .. } => "value is not a valid HTTP header name".to_owned(),
                Format::HttpHeaderValue { .. } => "value is not a valid HTTP header value".to_owned(),
            }),
            (!rules.among.is_empty() && !rules.among.contains(&text))
                .then(|| "value must be in list of allowed values".to_owned()),
            rules
                .not_among
                .contains(&text)
                .then(|| "value must not be in list of disallowed values".to_owned()),
        ];
        for reason in reasons.into_iter().flatten() {
            self.violation(reason);
        }
    }
}

/// Whether an unset scalar is no value at all: a member of a oneof, or a proto3 `optional`.
fn is_optional(field: Field) -> bool {
    field.oneof_index().is_some() || encoding::has_presence(field)
}

/// The value of an unset field.
fn zero(kind: Kind) -> Raw<'static> {
    match kind {
        Kind::Scalar(Scalar::String | Scalar::Bytes) | Kind::Message(_) => Raw::Bytes(&[]),
        Kind::Scalar(Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64) => Raw::Fixed64(0),
        Kind::Scalar(Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32) => Raw::Fixed32(0),
        _ => Raw::Varint(0),
    }
}

fn has_duplicates(values: &[Raw<'_>]) -> bool {
    let mut seen = HashSet::new();
    values.iter().any(|raw| {
        !seen.insert(match raw {
            Raw::Varint(bits) | Raw::Fixed64(bits) => (*bits, &[][..]),
            Raw::Fixed32(bits) => (u64::from(*bits), &[][..]),
            Raw::Bytes(bytes) => (0, *bytes),
        })
    })
}

fn plural(what: &str, count: usize) -> &str {
    if count == 1 { what.trim_end_matches('s') } else { what }
}

fn print_nanos(nanos: i128) -> String {
    let seconds = nanos / 1_000_000_000;
    match nanos % 1_000_000_000 {
        0 => format!("{seconds}s"),
        fraction => format!("{seconds}.{}s", format!("{:09}", fraction.abs()).trim_end_matches('0')),
    }
}

/// The formats of `validate.proto`: strict is the grammar of RFC 9110, else only NUL and line breaks are refused.
fn has_format(format: Format, text: &str) -> bool {
    let is_on_one_line = || !text.contains(['\0', '\n', '\r']);
    match format {
        Format::HttpHeaderName { strict: false } | Format::HttpHeaderValue { strict: false } => {
            is_on_one_line()
        }
        Format::HttpHeaderName { strict: true } => {
            let name = text.strip_prefix(':').unwrap_or(text);
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`".contains(&byte);
            !name.is_empty() && name.bytes().all(is_token)
        }
        Format::HttpHeaderValue { strict: true } => {
            text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
        }
    }
}

/// Patterns come from the schema alone, a dozen in all; each is compiled at its first use.
fn matches_pattern(pattern: &'static str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<&'static str, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled.entry(pattern).or_insert_with(|| Regex::new(pattern).ok());
    regex.as_ref().is_some_and(|regex| regex.is_match(text))
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
