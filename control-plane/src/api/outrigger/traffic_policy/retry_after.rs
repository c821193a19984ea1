//! `spec.retryAfter`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::interval;
use crate::api::Refusal;
use crate::model::RetryAfter;

/// A response that is tried again and has a header Retry-After in seconds is tried again after that time and up to a half more, by
/// the sidecar of the caller, instead of after the back-off of the route. What is tried again is said by `retry` and `retries` of
/// routes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// What asks for more is passed over: a whole number with the unit ms, s, m or h, from 100ms.
    #[serde(default = "five_minutes")]
    #[schemars(regex(pattern = interval::FORM))]
    max_interval: String,
}

/// Envoy's default.
fn five_minutes() -> String {
    "5m".to_owned()
}

pub(super) fn read(spec: &Spec) -> Result<RetryAfter, Refusal> {
    Ok(RetryAfter { max_interval: interval::read(&spec.max_interval, "spec.retryAfter.maxInterval")? })
}
