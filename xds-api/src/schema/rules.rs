//! The shapes of protoc-gen-validate's rules, as Envoy's protos use them.

/// The rules of one field.
#[derive(Debug, PartialEq)]
pub struct Rules {
    /// The field must be set.
    pub required: bool,
    /// What is inside the field's message is not checked.
    pub skip: bool,
    /// The rule for the value.
    pub check: Check,
}

/// The rule for one value; it fits the field's type, or what the wrapper message in it holds.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the rule for the type of its name")]
pub enum Check {
    None,
    Bool {
        constant: bool,
    },
    Integer(Bounds<i128>),
    Float(Bounds<f64>),
    /// In nanoseconds.
    Duration(Bounds<i128>),
    String(StringRules),
    Bytes(BytesRules),
    Enum(EnumRules),
    Repeated(RepeatedRules),
    Map(MapRules),
    /// The type URLs allowed.
    Any {
        among: &'static [&'static str],
    },
}

/// An interval and lists of values.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the rules' names in validate.proto")]
pub struct Bounds<T: 'static> {
    pub gt: Option<T>,
    pub gte: Option<T>,
    pub lt: Option<T>,
    pub lte: Option<T>,
    /// Empty allows everything.
    pub among: &'static [T],
    pub not_among: &'static [T],
    pub ignore_empty: bool,
}

impl<T> Bounds<T> {
    /// Allows everything.
    pub const ANY: Bounds<T> =
        Bounds { gt: None, gte: None, lt: None, lte: None, among: &[], not_among: &[], ignore_empty: false };
}

/// Rules for a string. Lengths are in characters, `_bytes` in bytes of UTF-8.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the rules' names in validate.proto")]
pub struct StringRules {
    pub min_len: Option<usize>,
    pub max_len: Option<usize>,
    pub min_bytes: Option<usize>,
    pub max_bytes: Option<usize>,
    pub pattern: Option<&'static str>,
    pub prefix: Option<&'static str>,
    pub suffix: Option<&'static str>,
    pub contains: Option<&'static str>,
    pub not_contains: Option<&'static str>,
    pub format: Option<Format>,
    /// Empty allows everything.
    pub among: &'static [&'static str],
    pub not_among: &'static [&'static str],
    pub ignore_empty: bool,
}

impl StringRules {
    /// Allows everything.
    pub const ANY: StringRules = StringRules {
        min_len: None,
        max_len: None,
        min_bytes: None,
        max_bytes: None,
        pattern: None,
        prefix: None,
        suffix: None,
        contains: None,
        not_contains: None,
        format: None,
        among: &[],
        not_among: &[],
        ignore_empty: false,
    };
}

/// A format that a string must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the formats' names in validate.proto")]
pub enum Format {
    HttpHeaderName { strict: bool },
    HttpHeaderValue { strict: bool },
}

/// Rules for bytes.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the rules' names in validate.proto")]
pub struct BytesRules {
    pub min_bytes: Option<usize>,
    pub max_bytes: Option<usize>,
}

impl BytesRules {
    /// Allows everything.
    pub const ANY: BytesRules = BytesRules { min_bytes: None, max_bytes: None };
}

/// Rules for an enum.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the rules' names in validate.proto")]
pub struct EnumRules {
    pub defined_only: bool,
    /// Empty allows everything.
    pub among: &'static [i32],
    pub not_among: &'static [i32],
}

impl EnumRules {
    /// Allows everything.
    pub const ANY: EnumRules = EnumRules { defined_only: false, among: &[], not_among: &[] };
}

/// Rules for a list.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the rules' names in validate.proto")]
pub struct RepeatedRules {
    pub min_items: Option<usize>,
    pub max_items: Option<usize>,
    pub unique: bool,
    pub items: Option<&'static Rules>,
    pub ignore_empty: bool,
}

impl RepeatedRules {
    /// Allows everything.
    pub const ANY: RepeatedRules =
        RepeatedRules { min_items: None, max_items: None, unique: false, items: None, ignore_empty: false };
}

/// Rules for a map.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the rules' names in validate.proto")]
pub struct MapRules {
    pub min_pairs: Option<usize>,
    pub max_pairs: Option<usize>,
    pub keys: Option<&'static Rules>,
    pub values: Option<&'static Rules>,
    pub ignore_empty: bool,
}

impl MapRules {
    /// Allows everything.
    pub const ANY: MapRules =
        MapRules { min_pairs: None, max_pairs: None, keys: None, values: None, ignore_empty: false };
}
