//! `spec.readmission`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::interval;
use crate::api::Refusal;
use crate::model::{Readmission, ReadmissionBy};

/// How an endpoint that `outlierDetection` took out comes back, instead of by itself after its time and at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.by != 'Time' || has(self.ramp)",
        "message": "must say by: Probe, by: Check or ramp",
    },
]))]
pub(super) struct Spec {
    /// What decides. `Time`: its time has passed. `Probe`: one request, the first that comes after its time. When it succeeds the endpoint
    /// is back; when it fails, the endpoint is out for longer. Other requests go elsewhere meanwhile.
    /// `Check`: `healthCheck`, which then asks only endpoints that are out. One that passes when the time has passed is back.
    #[serde(default)]
    by: By,
    /// For so long it gets more and more requests, from a tenth of its share on: a whole number with the unit ms, s, m or h, from 100ms.
    #[schemars(regex(pattern = interval::FORM))]
    ramp: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
enum By {
    #[default]
    Time,
    Probe,
    Check,
}

pub(super) fn read(spec: &Spec) -> Result<Readmission, Refusal> {
    let by = match spec.by {
        By::Time => ReadmissionBy::Time,
        By::Probe => ReadmissionBy::Probe,
        By::Check => ReadmissionBy::Check,
    };
    let ramp = spec.ramp.as_ref().map(|ramp| interval::read(ramp, "spec.readmission.ramp")).transpose()?;
    if by == ReadmissionBy::Time && ramp.is_none() {
        return Err(Refusal::new("spec.readmission", "must say by: Probe, by: Check or ramp"));
    }
    Ok(Readmission { by, ramp })
}
