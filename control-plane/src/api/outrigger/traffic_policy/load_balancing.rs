//! `spec.loadBalancing`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::interval;
use crate::api::Refusal;
use crate::model::{LoadBalancing, PeakEwma};

/// How an endpoint is chosen, instead of by `loadBalancer` of a DestinationRule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    peak_ewma: PeakEwmaSpec,
}

/// Of two endpoints by chance the one that answers faster, requests in flight counted in. How long answers take is an average that forgets
/// old answers and jumps up to a slow one at once; an endpoint that fails counts as a slow one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PeakEwmaSpec {
    /// After so long an answer counts for a third: a whole number with the unit ms, s, m or h, from 100ms.
    #[serde(default = "decay")]
    #[schemars(regex(pattern = interval::FORM))]
    decay: String,
}

/// Linkerd's default.
fn decay() -> String {
    "10s".to_owned()
}

pub(super) fn read(spec: &Spec) -> Result<LoadBalancing, Refusal> {
    let decay = interval::read(&spec.peak_ewma.decay, "spec.loadBalancing.peakEwma.decay")?;
    Ok(LoadBalancing::PeakEwma(PeakEwma { decay }))
}
