//! `spec.readmission`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::Readmission;

/// How an endpoint that `outlierDetection` took out comes back, instead of by itself after its time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// What decides. `Probe`: one request, the first that comes after its time. When it succeeds the endpoint is back; when it fails,
    /// the endpoint is out for longer. Other requests go elsewhere meanwhile.
    by: By,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum By {
    Probe,
}

pub(super) fn read(spec: &Spec) -> Readmission {
    match spec.by {
        By::Probe => Readmission::Probe,
    }
}
