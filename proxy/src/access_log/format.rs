//! Access log formats: text or JSON, compiled to parts that are appended one after the other.

use super::CapturePlan;
use super::json::JsonFormat;
use super::operator::{Appended, Operator};
use super::time::Clock;
use crate::stream_info::StreamInfo;

/// Envoy's default text format.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
     \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A compiled format.
#[derive(Debug, Clone, PartialEq)]
pub struct Format(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text { template: Template, empty: &'static str },
    Json(JsonFormat),
}

impl Format {
    /// Compiles a text format (`log_format.text_format_source`, `text_format`, `format`): values that are not known print `-`.
    /// A text format says itself where a line ends. The headers that it prints are added to `plan`.
    ///
    /// # Errors
    /// In Envoy's words: an operator that does not exist or that is not well-formed.
    pub fn compile(text: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        Self::compile_text(text, false, plan)
    }

    /// The same with `omit_empty_values`: values that are not known print nothing.
    ///
    /// # Errors
    /// As [`Format::compile`].
    pub fn compile_text(text: &str, omit_empty_values: bool, plan: &mut CapturePlan) -> Result<Self, String> {
        let template = Template::compile(text, plan)?;
        Ok(Self(Kind::Text { template, empty: if omit_empty_values { "" } else { "-" } }))
    }

    /// Compiles a JSON format (`log_format.json_format`): one object a line, keys in order. A value that is one operator has the
    /// operator's type; what is not known is `null`, or left out with `omit_empty_values`.
    ///
    /// # Errors
    /// As [`Format::compile`], behind the key's path.
    pub fn compile_json(
        object: &serde_json::Map<String, serde_json::Value>,
        omit_empty_values: bool,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        JsonFormat::compile(object, omit_empty_values, plan).map(|json| Self(Kind::Json(json)))
    }

    /// Appends one line.
    pub(super) fn append(&self, info: &StreamInfo, clock: &mut Clock, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Text { template, empty } => template.append(info, clock, empty, out),
            Kind::Json(json) => json.append(info, clock, out),
        }
    }
}

/// Text with operators in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(Box<[u8]>),
    Operator(Operator),
}

impl Template {
    pub(super) fn compile(text: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find('%') {
            literal.push_str(&text[at..at + found]);
            at += found;
            if text[at..].starts_with("%%") {
                literal.push('%');
                at += 2;
                continue;
            }
            let command = Command::parse(&text[at..]).ok_or_else(|| {
                format!("Incorrect configuration: {text}. Couldn't find valid command at position {at}")
            })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes().into()));
            }
            parts.push(Part::Operator(Operator::compile(command.name, command.parameters, command.length, plan)?));
            at += command.consumed;
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_bytes().into()));
        }
        Ok(Self(parts))
    }

    /// The operator, when the template is nothing else.
    pub(super) fn single_operator(&self) -> Option<&Operator> {
        match self.0.as_slice() {
            [Part::Operator(operator)] => Some(operator),
            _ => None,
        }
    }

    pub(super) fn append(&self, info: &StreamInfo, clock: &mut Clock, empty: &str, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Operator(operator) => {
                    if operator.append(info, clock, out) == Appended::Empty {
                        out.extend_from_slice(empty.as_bytes());
                    }
                }
            }
        }
    }
}

/// `%NAME(parameters):length%`, taken apart.
struct Command<'a> {
    name: &'a str,
    parameters: Option<&'a str>,
    length: Option<usize>,
    /// Bytes from the first `%` to behind the last.
    consumed: usize,
}

impl<'a> Command<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let body = text.strip_prefix('%')?;
        let name_len = body.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let (name, rest) = body.split_at(name_len);
        if name.is_empty() {
            return None;
        }
        let Some(inner) = rest.strip_prefix('(') else {
            let (length, rest) = Self::end(rest)?;
            return Some(Self { name, parameters: None, length, consumed: text.len() - rest.len() });
        };
        // Parameters may have brackets and percent signs: they end at the first bracket that a command can end behind.
        inner.match_indices(')').find_map(|(close, _)| {
            let (length, rest) = Self::end(&inner[close + 1..])?;
            Some(Self { name, parameters: Some(&inner[..close]), length, consumed: text.len() - rest.len() })
        })
    }

    /// `:length%` or `%`.
    fn end(text: &str) -> Option<(Option<usize>, &str)> {
        let Some(length) = text.strip_prefix(':') else { return text.strip_prefix('%').map(|rest| (None, rest)) };
        let (digits, rest) = length.split_at(length.find('%')?);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some((Some(digits.parse().ok()?), &rest[1..]))
    }
}
