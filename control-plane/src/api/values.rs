//! Values that several kinds have: expressions, names of headers, numbers.

use std::time::Duration;

use crate::api::{Refusal, duration};

/// No duration is longer; what a proxy can represent ends somewhere beyond.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// An expression of RE2's syntax.
pub(super) fn expression(value: String, field: &str) -> Result<String, Refusal> {
    if value.is_empty() {
        return Err(Refusal::new(field, "an expression must not be empty"));
    }
    match outrigger_xds_api::expression::of_all(&value) {
        Ok(_) => Ok(value),
        Err(reason) => Err(Refusal::new(field, format!("{value:?} is not a valid expression: {reason}"))),
    }
}

/// What takes the place of what `expression` finds: `\0` to `\9` are its groups, `\\` is a backslash (RE2).
pub(super) fn substitution(value: &str, expression: &str, field: String) -> Result<(), Refusal> {
    let groups = outrigger_xds_api::expression::of_parts(expression).map_or(0, |found| found.captures_len());
    match outrigger_xds_api::expression::substitution(value, groups) {
        Ok(_) => Ok(()),
        Err(reason) => Err(Refusal::new(field, format!("{value:?} is not a valid substitution: {reason}"))),
    }
}

/// The lower-case name of a header.
pub(super) fn header_name(name: &str, field: &str) -> Result<String, Refusal> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(Refusal::new(field, format!("{name:?} is no header name"))),
    }
}

pub(super) fn number(value: i64, least: u32, most: u32, field: String) -> Result<u32, Refusal> {
    match u32::try_from(value) {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(Refusal::new(field, format!("{value} is not between {least} and {most}"))),
    }
}

pub(super) fn port(number: i64, field: impl Into<String>) -> Result<u16, Refusal> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Refusal::new(field, format!("{number} is not a port (1 to 65535)"))),
    }
}

/// A duration of Go's form that may be zero.
pub(super) fn go_duration(text: Option<String>, field: String) -> Result<Option<Duration>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse_go(&text) {
        Ok(value) if value > LONGEST => Err(Refusal::new(field, format!("{text} is more than a year"))),
        Ok(value) => Ok(Some(value)),
        Err(reason) => Err(Refusal::new(field, reason)),
    }
}

/// A duration of Go's form of a millisecond or more.
pub(super) fn positive(text: Option<String>, field: String) -> Result<Option<Duration>, Refusal> {
    match go_duration(text.clone(), field.clone())? {
        Some(value) if value < Duration::from_millis(1) => {
            Err(Refusal::new(field, format!("{} is less than 1ms", text.unwrap_or_default())))
        }
        value => Ok(value),
    }
}

/// A duration of Go's form of a number of seconds, 1 or more.
pub(super) fn whole_seconds(text: Option<String>, field: String) -> Result<Option<u32>, Refusal> {
    match go_duration(text.clone(), field.clone())? {
        None => Ok(None),
        Some(value) if value.as_secs() > 0 && value.subsec_nanos() == 0 => {
            // Within the longest duration.
            Ok(u32::try_from(value.as_secs()).ok())
        }
        Some(_) => {
            let reason = format!("{} is no number of seconds, 1 or more", text.unwrap_or_default());
            Err(Refusal::new(field, reason))
        }
    }
}
