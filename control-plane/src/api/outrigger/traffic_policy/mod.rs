//! TrafficPolicy -> [`TrafficPolicy`]. One file for each part of it.
//!
//! Each part is a type that is read and that the schema is made of, and a function that checks what the type alone does not say.
//! What the schema can say stands in the type's attributes, by the constants that the function checks.

mod interval;
mod query_parameters;
mod rate_limit;
mod readmission;
mod retry_after;
mod retry_budget;
mod status;
mod target;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{Refusal, Strict, name_of, read};
use crate::model::{TargetKind, TrafficPolicy, TrafficSettings};
use crate::source::Object;
pub(super) use status::status_schema;

/// What holds for the traffic to the targets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.rateLimit) || has(self.queryParameters) || has(self.retryBudget) || has(self.retryAfter) || has(self.readmission)",
        "message": "must say rateLimit, queryParameters, retryBudget, retryAfter or readmission",
    },
    {
        "rule": "!has(self.retryBudget) || self.targetRefs.all(target, target.kind == 'Service')",
        "message": "retryBudget is for Services only",
    },
    {
        "rule": "!has(self.readmission) || self.targetRefs.all(target, target.kind == 'Service')",
        "message": "readmission is for Services only",
    },
]))]
pub(super) struct Spec {
    /// What the policy is attached to, in its own namespace.
    #[schemars(length(min = 1, max = target::MOST))]
    target_refs: Vec<target::Spec>,
    rate_limit: Option<rate_limit::Spec>,
    query_parameters: Option<query_parameters::Spec>,
    retry_budget: Option<retry_budget::Spec>,
    retry_after: Option<retry_after::Spec>,
    readmission: Option<readmission::Spec>,
}

/// Decodes a TrafficPolicy.
pub(in crate::api) fn traffic_policy(object: &Object) -> Result<TrafficPolicy, Refusal> {
    let Strict { metadata, spec, .. }: Strict<Spec> = read(object)?;
    let name = name_of(object);
    let targets = target::read(spec.target_refs, &name.namespace)?;
    let settings = TrafficSettings {
        rate_limit: spec.rate_limit.map(rate_limit::read).transpose()?,
        query_parameters: spec.query_parameters.map(query_parameters::read).transpose()?,
        retry_budget: spec.retry_budget.map(retry_budget::read).transpose()?,
        retry_after: spec.retry_after.as_ref().map(retry_after::read).transpose()?,
        readmission: spec.readmission.as_ref().map(readmission::read).transpose()?,
    };
    if settings == TrafficSettings::default() {
        let reason = "must say rateLimit, queryParameters, retryBudget, retryAfter or readmission";
        return Err(Refusal::new("spec", reason));
    }
    let route = targets.iter().find(|target| target.object.kind != TargetKind::Service);
    let of_services =
        [(settings.retry_budget.is_some(), "retryBudget"), (settings.readmission.is_some(), "readmission")];
    for (_, field) in of_services.into_iter().filter(|(is_said, _)| *is_said) {
        if let Some(route) = route {
            let reason = format!("is for Services only, and {} is {}", route.field, route.object);
            return Err(Refusal::new(format!("spec.{field}"), reason));
        }
    }
    let created = metadata.creation_timestamp.unwrap_or_default();
    Ok(TrafficPolicy { name, targets, settings, created, origin: object.origin.clone() })
}
