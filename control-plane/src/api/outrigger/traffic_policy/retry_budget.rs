//! `spec.retryBudget`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::Refusal;
use crate::api::values::number;
use crate::model::RetryBudget;

/// Envoy's defaults.
const PERCENT: i64 = 20;
const MIN_RETRY_CONCURRENCY: i64 = 3;

const MOST_PERCENT: u32 = 100;
const MOST_CONCURRENCY: u32 = 1_000_000;

/// How many of the requests that are on their way from one sidecar to a port of the Service may be retries. What is beyond is not
/// tried again. It says how often at most, not whether: that is what `retry` and `retries` of routes say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// This share of them, in percent.
    #[serde(default = "percent")]
    #[schemars(range(min = 0, max = MOST_PERCENT))]
    percent: i64,
    /// So many in any case, or nothing could be tried again where there is little traffic.
    #[serde(default = "min_retry_concurrency")]
    #[schemars(range(min = 0, max = MOST_CONCURRENCY))]
    min_retry_concurrency: i64,
}

fn percent() -> i64 {
    PERCENT
}

fn min_retry_concurrency() -> i64 {
    MIN_RETRY_CONCURRENCY
}

pub(super) fn read(spec: Spec) -> Result<RetryBudget, Refusal> {
    let at = |name: &str| format!("spec.retryBudget.{name}");
    Ok(RetryBudget {
        percent: number(spec.percent, 0, MOST_PERCENT, at("percent"))?,
        min_retry_concurrency: number(
            spec.min_retry_concurrency,
            0,
            MOST_CONCURRENCY,
            at("minRetryConcurrency"),
        )?,
    })
}
