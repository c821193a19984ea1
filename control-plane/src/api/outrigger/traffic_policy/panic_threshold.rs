//! `spec.panicThreshold`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::Refusal;
use crate::api::values::number;

const MOST_PERCENT: u32 = 100;

/// When so many endpoints are not healthy that the others would be overrun, all of them get requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// With less than this share of healthy endpoints, in percent. 0: never.
    #[schemars(range(min = 0, max = MOST_PERCENT))]
    percent: i64,
}

pub(super) fn read(spec: &Spec) -> Result<u32, Refusal> {
    number(spec.percent, 0, MOST_PERCENT, "spec.panicThreshold.percent".to_owned())
}
