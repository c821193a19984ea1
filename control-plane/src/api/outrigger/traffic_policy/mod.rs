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

/// A part of a policy.
struct Part {
    field: &'static str,
    /// It is about endpoints, which only a Service has.
    is_of_services: bool,
    is_said: bool,
}

/// All parts.
fn parts(of: &TrafficSettings) -> [Part; 10] {
    let of_requests = |field, is_said| Part { field, is_of_services: false, is_said };
    let of_services = |field, is_said| Part { field, is_of_services: true, is_said };
    [
        of_requests("rateLimit", of.rate_limit.is_some()),
        of_requests("queryParameters", of.query_parameters.is_some()),
        of_services("retryBudget", of.retry_budget.is_some()),
        of_requests("retryAfter", of.retry_after.is_some()),
        of_services("ejection", of.ejection.is_some()),
        of_services("readmission", of.readmission.is_some()),
        of_services("loadBalancing", of.load_balancing.is_some()),
        of_services("panicThreshold", of.panic_percent.is_some()),
        of_services("healthCheck", of.health_check.is_some()),
        of_services("endpointLimits", of.connections_per_endpoint.is_some()),
    ]
}

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
    let parts = parts(&TrafficSettings::default());
    let says: Vec<String> = parts.iter().map(|part| format!("has(self.{})", part.field)).collect();
    let something = serde_json::json!({ "rule": says.join(" || "), "message": says_nothing() });
    let of_services = parts.iter().filter(|part| part.is_of_services).map(|Part { field, .. }| {
        serde_json::json!({
            "rule": format!("!has(self.{field}) || self.targetRefs.all(target, target.kind == 'Service')"),
            "message": format!("{field} is for Services only"),
        })
    });
    iter::once(something).chain(of_services).collect()
}

fn says_nothing() -> String {
    let [first @ .., last] = parts(&TrafficSettings::default()).map(|part| part.field);
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
    let parts = parts(&settings);
    if parts.iter().all(|part| !part.is_said) {
        return Err(Refusal::new("spec", says_nothing()));
    }
    let route = targets.iter().find(|target| target.object.kind != TargetKind::Service);
    let of_services = parts.iter().find(|part| part.is_of_services && part.is_said);
    if let (Some(Part { field, .. }), Some(route)) = (of_services, route) {
        let reason = format!("is for Services only, and {} is {}", route.field, route.object);
        return Err(Refusal::new(format!("spec.{field}"), reason));
    }
    let created = metadata.creation_timestamp.unwrap_or_default();
    Ok(TrafficPolicy { name, targets, settings, created, origin: object.origin.clone() })
}
