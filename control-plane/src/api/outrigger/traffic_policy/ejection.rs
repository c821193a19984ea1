//! `spec.ejection`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{interval, statuses};
use crate::api::Refusal;
use crate::api::values::number;
use crate::model::{Ejection, FailurePercentage, SuccessRate};

const MOST_PERCENT: u32 = 100;
const MOST_REQUESTS: u32 = 1_000_000;
const MOST_ENDPOINTS: u32 = 10_000;
/// In thousandths, as Envoy counts.
const THOUSAND: f64 = 1_000.0;
const MOST_DEVIATIONS: u32 = 10;

/// When an endpoint that fails is taken out for a while. What is not said here is said by `outlierDetection` of a DestinationRule; where
/// there is none, the defaults hold, and the object alone is enough.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// So many failures in a row take it out; 0: none do. 5, if it is not said.
    #[schemars(range(min = 0, max = MOST_REQUESTS))]
    consecutive_errors: Option<i64>,
    /// How often rates are looked at, and endpoints may come back: a whole number with the unit ms, s, m or h, from 100ms. 10s, if it is not
    /// said.
    #[schemars(regex(pattern = interval::FORM))]
    interval: Option<String>,
    /// How long the first time out lasts, and how much longer each further one. 30s, if it is not said.
    #[schemars(regex(pattern = interval::FORM))]
    base_ejection_time: Option<String>,
    /// At most this share of the endpoints is out, in percent. 50, if it is not said.
    #[schemars(range(min = 0, max = MOST_PERCENT))]
    max_ejection_percent: Option<i64>,
    /// The responses that are failures: statuses like 429, or all of a hundred like 5xx. 5xx, if it is not said. No response (no connection, a
    /// reset, a timeout) is one always.
    #[schemars(length(min = 1, max = statuses::MOST), inner(regex(pattern = statuses::FORM)))]
    failures: Option<Vec<String>>,
    success_rate: Option<SuccessRateSpec>,
    failure_percentage: Option<FailurePercentageSpec>,
}

/// An endpoint is taken out whose share of successes lies far below that of the others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SuccessRateSpec {
    /// So many standard deviations below the mean.
    #[serde(default = "deviations")]
    #[schemars(range(min = 0, max = MOST_DEVIATIONS))]
    deviations: f64,
    /// An endpoint with fewer requests in an interval is not judged.
    #[serde(default = "success_rate_requests")]
    #[schemars(range(min = 1, max = MOST_REQUESTS))]
    requests: i64,
    /// With fewer endpoints that have so many requests none is judged.
    #[serde(default = "endpoints")]
    #[schemars(range(min = 1, max = MOST_ENDPOINTS))]
    endpoints: i64,
}

/// An endpoint is taken out of whose requests this share fails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FailurePercentageSpec {
    /// In percent.
    #[serde(default = "threshold")]
    #[schemars(range(min = 1, max = MOST_PERCENT))]
    threshold: i64,
    /// An endpoint with fewer requests in an interval is not judged.
    #[serde(default = "failure_percentage_requests")]
    #[schemars(range(min = 1, max = MOST_REQUESTS))]
    requests: i64,
    /// With fewer endpoints that have so many requests none is judged.
    #[serde(default = "endpoints")]
    #[schemars(range(min = 1, max = MOST_ENDPOINTS))]
    endpoints: i64,
}

// Envoy's defaults.

fn deviations() -> f64 {
    1.9
}

fn success_rate_requests() -> i64 {
    100
}

fn endpoints() -> i64 {
    5
}

fn threshold() -> i64 {
    85
}

fn failure_percentage_requests() -> i64 {
    50
}

pub(super) fn read(spec: Spec) -> Result<Ejection, Refusal> {
    let at = |name: &str| format!("spec.ejection.{name}");
    let time = |text: &Option<String>, name: &str| -> Result<Option<Duration>, Refusal> {
        text.as_ref().map(|text| interval::read(text, at(name))).transpose()
    };
    let whole = |value: Option<i64>, most: u32, name: &str| -> Result<Option<u32>, Refusal> {
        value.map(|value| number(value, 0, most, at(name))).transpose()
    };
    Ok(Ejection {
        consecutive_errors: whole(spec.consecutive_errors, MOST_REQUESTS, "consecutiveErrors")?,
        interval: time(&spec.interval, "interval")?,
        base_ejection_time: time(&spec.base_ejection_time, "baseEjectionTime")?,
        max_ejection_percent: whole(spec.max_ejection_percent, MOST_PERCENT, "maxEjectionPercent")?,
        failures: spec.failures.map(|failures| statuses::read(&failures, &at("failures"))).transpose()?,
        success_rate: spec.success_rate.map(|spec| success_rate(&spec, &at("successRate"))).transpose()?,
        failure_percentage: spec
            .failure_percentage
            .map(|spec| failure_percentage(&spec, &at("failurePercentage")))
            .transpose()?,
    })
}

fn success_rate(spec: &SuccessRateSpec, field: &str) -> Result<SuccessRate, Refusal> {
    let at = |name: &str| format!("{field}.{name}");
    if !(0.0..=f64::from(MOST_DEVIATIONS)).contains(&spec.deviations) {
        return Err(Refusal::new(at("deviations"), format!("must be from 0 to {MOST_DEVIATIONS}")));
    }
    Ok(SuccessRate {
        deviation_thousandths: (spec.deviations * THOUSAND).round() as u32,
        requests: number(spec.requests, 1, MOST_REQUESTS, at("requests"))?,
        endpoints: number(spec.endpoints, 1, MOST_ENDPOINTS, at("endpoints"))?,
    })
}

fn failure_percentage(spec: &FailurePercentageSpec, field: &str) -> Result<FailurePercentage, Refusal> {
    let at = |name: &str| format!("{field}.{name}");
    Ok(FailurePercentage {
        threshold: number(spec.threshold, 1, MOST_PERCENT, at("threshold"))?,
        requests: number(spec.requests, 1, MOST_REQUESTS, at("requests"))?,
        endpoints: number(spec.endpoints, 1, MOST_ENDPOINTS, at("endpoints"))?,
    })
}
