//! `spec.endpointLimits`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::Refusal;
use crate::api::values::number;

const MOST: u32 = 1_000_000;

/// Limits of one sidecar towards each endpoint. Those towards all endpoints together are `connectionPool` of a DestinationRule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// Connections at a time.
    #[schemars(range(min = 1, max = MOST))]
    connections: i64,
}

pub(super) fn read(spec: &Spec) -> Result<u32, Refusal> {
    number(spec.connections, 1, MOST, "spec.endpointLimits.connections".to_owned())
}
