//! Intervals: one whole number with a unit.

use std::time::Duration;

use crate::api::{Refusal, duration};

/// From 100 ms (Envoy wants 50 ms or more for its buckets) to something over a year.
pub(super) const FORM: &str = "^([1-9][0-9]{0,4}[sm]|[1-9][0-9]{0,3}h|[1-9][0-9]{2,4}ms)$";

pub(super) fn read(text: &str, field: impl Into<String>) -> Result<Duration, Refusal> {
    let has_form = regex::Regex::new(FORM).is_ok_and(|form| form.is_match(text));
    match duration::parse_gateway_api(text) {
        Ok(interval) if has_form => Ok(interval),
        _ => {
            let reason = format!("{text:?} is not a whole number with ms, s, m or h, from 100ms");
            Err(Refusal::new(field, reason))
        }
    }
}
