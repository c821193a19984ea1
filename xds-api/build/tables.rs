//! Lays the descriptors out as flat tables: texts are ranges of one string and references are indexes, so that the
//! tables need no relocation and stay file-backed until they are read.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};

use crate::rules;

/// No oneof, no type.
const NONE: u16 = u16::MAX;

/// The Rust source of the tables.
pub(crate) fn generate(pool: &DescriptorPool) -> String {
    let mut messages: Vec<MessageDescriptor> = pool.all_messages().collect();
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    let mut enums: Vec<EnumDescriptor> = pool.all_enums().collect();
    enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));

    let mut tables = Tables {
        message_index: index(messages.iter().map(MessageDescriptor::full_name)),
        enum_index: index(enums.iter().map(EnumDescriptor::full_name)),
        texts: Texts::default(),
        rules: BTreeMap::new(),
        extensions: Extensions::new(pool),
        messages: String::new(),
        fields: String::new(),
        field_count: 0,
        oneofs: String::new(),
        oneof_count: 0,
        enums: String::new(),
        values: String::new(),
        value_count: 0,
    };
    for message in &messages {
        tables.add_message(message);
    }
    for descriptor in &enums {
        tables.add_enum(descriptor);
    }
    tables.finish(messages.len(), enums.len())
}

fn index<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<String, u16> {
    names.enumerate().map(|(index, name)| (name.to_owned(), narrow(index))).collect()
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or_else(|_| panic!("{number} does not fit the table"))
}

struct Tables {
    message_index: HashMap<String, u16>,
    enum_index: HashMap<String, u16>,
    texts: Texts,
    /// Expression to its index; equal rules are shared.
    rules: BTreeMap<String, u16>,
    extensions: Extensions,
    messages: String,
    fields: String,
    field_count: usize,
    oneofs: String,
    oneof_count: usize,
    enums: String,
    values: String,
    value_count: usize,
}

impl Tables {
    fn add_message(&mut self, message: &MessageDescriptor) {
        let name = self.texts.add(message.full_name());
        // The oneofs that a proto3 `optional` implies are no oneofs to anyone.
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        let mut fields: Vec<FieldDescriptor> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let disabled = self.extensions.flag(&message.options(), "validate.disabled")
            || self.extensions.flag(&message.options(), "validate.ignored");
        writeln!(
            self.messages,
            "    MessageRow {{ name: {name}, first_field: {}, field_count: {}, first_oneof: {}, oneof_count: {}, \
             is_unchecked: {disabled} }},",
            self.field_count,
            fields.len(),
            self.oneof_count,
            oneofs.len()
        )
        .ok();
        for oneof in &oneofs {
            let name = self.texts.add(oneof.name());
            let required = self.extensions.flag(&oneof.options(), "validate.required");
            writeln!(self.oneofs, "    OneofRow {{ name: {name}, is_required: {required} }},").ok();
        }
        for field in &fields {
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let oneof =
                oneof.and_then(|oneof| oneofs.iter().position(|other| *other == oneof)).map_or(NONE, narrow);
            self.add_field(field, oneof);
        }
        self.field_count += fields.len();
        self.oneof_count += oneofs.len();
    }

    fn add_field(&mut self, field: &FieldDescriptor, oneof: u16) {
        let name = self.texts.add(field.name());
        let json_name = self.texts.add(field.json_name());
        let (kind, r#type) = match field.kind() {
            Kind::Message(message) => ("Message", self.message_index[message.full_name()]),
            Kind::Enum(descriptor) => ("Enum", self.enum_index[descriptor.full_name()]),
            Kind::Double => ("Double", NONE),
            Kind::Float => ("Float", NONE),
            Kind::Int32 => ("Int32", NONE),
            Kind::Int64 => ("Int64", NONE),
            Kind::Uint32 => ("Uint32", NONE),
            Kind::Uint64 => ("Uint64", NONE),
            Kind::Sint32 => ("Sint32", NONE),
            Kind::Sint64 => ("Sint64", NONE),
            Kind::Fixed32 => ("Fixed32", NONE),
            Kind::Fixed64 => ("Fixed64", NONE),
            Kind::Sfixed32 => ("Sfixed32", NONE),
            Kind::Sfixed64 => ("Sfixed64", NONE),
            Kind::Bool => ("Bool", NONE),
            Kind::String => ("String", NONE),
            Kind::Bytes => ("Bytes", NONE),
        };
        let cardinality = if field.is_map() {
            "Map"
        } else if field.is_list() && field.is_packed() {
            "Packed"
        } else if field.is_list() {
            "Repeated"
        } else if field.supports_presence() {
            "Optional"
        } else {
            "Implicit"
        };
        let options = field.options();
        let is_deprecated =
            options.get_field_by_name("deprecated").is_some_and(|value| value.as_bool() == Some(true));
        let is_disallowed = self.extensions.flag(&options, "envoy.annotations.disallowed_by_default");
        let is_sensitive = self.extensions.flag(&options, "udpa.annotations.sensitive");
        let rules =
            self.extensions.message(&options, "validate.rules").and_then(|rules| rules::expression(&rules));
        let rules = rules.map_or(0, |rules| {
            // Index 0 means none.
            let next = narrow(self.rules.len() + 1);
            *self.rules.entry(rules).or_insert(next)
        });
        writeln!(
            self.fields,
            "    FieldRow {{ name: {name}, json_name: {json_name}, number: {}, kind: Scalar::{kind}, type_index: {type}, \
             cardinality: Cardinality::{cardinality}, oneof: {oneof}, rules: {rules}, \
             is_deprecated: {is_deprecated}, is_disallowed: {is_disallowed}, is_sensitive: {is_sensitive} }},",
            field.number()
        )
        .ok();
    }

    fn add_enum(&mut self, descriptor: &EnumDescriptor) {
        let name = self.texts.add(descriptor.full_name());
        let values: Vec<_> = descriptor.values().collect();
        writeln!(
            self.enums,
            "    EnumRow {{ name: {name}, first_value: {}, value_count: {} }},",
            self.value_count,
            values.len()
        )
        .ok();
        for value in &values {
            let name = self.texts.add(value.name());
            let is_disallowed =
                self.extensions.flag(&value.options(), "envoy.annotations.disallowed_by_default_enum");
            let number = value.number();
            writeln!(
                self.values,
                "    ValueRow {{ name: {name}, number: {number}, is_disallowed: {is_disallowed} }},"
            )
            .ok();
        }
        self.value_count += values.len();
    }

    fn finish(self, message_count: usize, enum_count: usize) -> String {
        let mut rules: Vec<(&String, &u16)> = self.rules.iter().collect();
        rules.sort_by_key(|(_, index)| **index);
        let rules: String = rules.iter().map(|(rules, _)| format!("    {rules},\n")).collect();
        let mut out = String::new();
        let mut table = |name: &str, r#type: &str, count: usize, rows: &str| {
            writeln!(out, "pub(super) static {name}: [{type}; {count}] = [\n{rows}];").ok();
        };
        table("MESSAGES", "MessageRow", message_count, &self.messages);
        table("FIELDS", "FieldRow", self.field_count, &self.fields);
        table("ONEOFS", "OneofRow", self.oneof_count, &self.oneofs);
        table("ENUMS", "EnumRow", enum_count, &self.enums);
        table("VALUES", "ValueRow", self.value_count, &self.values);
        table("RULES", "Rules", self.rules.len(), &rules);
        writeln!(out, "pub(super) static TEXTS: &str = {:?};", self.texts.all).ok();
        out
    }
}

/// Every distinct text once, in one string.
#[derive(Default)]
struct Texts {
    all: String,
    known: HashMap<String, usize>,
}

impl Texts {
    fn add(&mut self, text: &str) -> String {
        let start = *self.known.entry(text.to_owned()).or_insert_with(|| {
            self.all.push_str(text);
            self.all.len() - text.len()
        });
        format!("Text {{ start: {start}, len: {} }}", text.len())
    }
}

/// Reads the extension fields of options.
struct Extensions(DescriptorPool);

impl Extensions {
    fn new(pool: &DescriptorPool) -> Extensions {
        Extensions(pool.clone())
    }

    fn get(&self, options: &DynamicMessage, name: &str) -> Option<Value> {
        let extension =
            self.0.get_extension_by_name(name).unwrap_or_else(|| panic!("no extension named {name}"));
        options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
    }

    fn flag(&self, options: &DynamicMessage, name: &str) -> bool {
        self.get(options, name).is_some_and(|value| value.as_bool() == Some(true))
    }

    fn message(&self, options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
        self.get(options, name).and_then(|value| value.as_message().cloned())
    }
}
