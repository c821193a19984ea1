//! TrafficPolicy -> [`TrafficPolicy`]. One file for each part of it.
//!
//! Each part is a type that is read and that the schema is made of, and a function that checks what the type alone does not say.
//! What the schema can say stands in the type's attributes, by the constants that the function checks.

mod ejection;
mod endpoint_limits;
mod health_check;
mod interval;
mod load_balancing;
mod panic_threshold;
mod query_parameters;
mod rate_limit;
mod readmission;
mod retry_after;
mod retry_budget;
mod status;
mod statuses;
mod target;

use std::iter;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{Refusal, Strict, name_of, read};
use crate::model::{TargetKind, TrafficPolicy, TrafficSettings};
use crate::source::Object;
pub(super) use status::status_schema;

/// The parts, by their fields.
const PARTS: [&str; 10] = [
    "rateLimit",
    "queryParameters",
    "retryBudget",
    "retryAfter",
    "ejection",
    "readmission",
    "loadBalancing",
    "panicThreshold",
    "healthCheck",
    "endpointLimits",
];

/// Those of them that are about endpoints, which only a Service has.
const OF_SERVICES: [&str; 7] = [
    "retryBudget",
    "ejection",
    "readmission",
    "loadBalancing",
    "panicThreshold",
    "healthCheck",
    "endpointLimits",
];

/// What holds for the traffic to the targets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = validations()))]
pub(super) struct Spec {
    /// What the policy is attached to, in its own namespace.
    #[schemars(length(min = 1, max = target::MOST))]
    target_refs: Vec<target::Spec>,
    rate_limit: Option<rate_limit::Spec>,
    query_parameters: Option<query_parameters::Spec>,
    retry_budget: Option<retry_budget::Spec>,
    retry_after: Option<retry_after::Spec>,
    ejection: Option<ejection::Spec>,
    readmission: Option<readmission::Spec>,
    load_balancing: Option<load_balancing::Spec>,
    panic_threshold: Option<panic_threshold::Spec>,
    health_check: Option<health_check::Spec>,
    endpoint_limits: Option<endpoint_limits::Spec>,
}

/// What an API server checks by itself.
fn validations() -> Vec<serde_json::Value> {
    let says = |part: &str| format!("has(self.{part})");
    let something = serde_json::json!({ "rule": PARTS.map(says).join(" || "), "message": says_nothing() });
    let of_services = OF_SERVICES.map(|part| {
        serde_json::json!({
            "rule": format!("!has(self.{part}) || self.targetRefs.all(target, target.kind == 'Service')"),
            "message": format!("{part} is for Services only"),
        })
    });
    iter::once(something).chain(of_services).collect()
}

fn says_nothing() -> String {
    let [first @ .., last] = PARTS;
    format!("must say {} or {last}", first.join(", "))
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
        ejection: spec.ejection.map(ejection::read).transpose()?,
        readmission: spec.readmission.as_ref().map(readmission::read).transpose()?,
        load_balancing: spec.load_balancing.as_ref().map(load_balancing::read).transpose()?,
        panic_percent: spec.panic_threshold.as_ref().map(panic_threshold::read).transpose()?,
        health_check: spec.health_check.map(health_check::read).transpose()?,
        connections_per_endpoint: spec.endpoint_limits.as_ref().map(endpoint_limits::read).transpose()?,
    };
    if settings == TrafficSettings::default() {
        return Err(Refusal::new("spec", says_nothing()));
    }
    let route = targets.iter().find(|target| target.object.kind != TargetKind::Service);
    let said = [
        settings.retry_budget.is_some(),
        settings.ejection.is_some(),
        settings.readmission.is_some(),
        settings.load_balancing.is_some(),
        settings.panic_percent.is_some(),
        settings.health_check.is_some(),
        settings.connections_per_endpoint.is_some(),
    ];
    let said = OF_SERVICES.into_iter().zip(said).find(|(_, is_said)| *is_said);
    if let (Some((field, _)), Some(route)) = (said, route) {
        let reason = format!("is for Services only, and {} is {}", route.field, route.object);
        return Err(Refusal::new(format!("spec.{field}"), reason));
    }
    let created = metadata.creation_timestamp.unwrap_or_default();
    Ok(TrafficPolicy { name, targets, settings, created, origin: object.origin.clone() })
}
