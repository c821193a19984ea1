//! `loadBalancer` of a traffic policy.

use serde::Deserialize;

use super::{hash, locality};
use crate::api::Refusal;
use crate::api::values::positive;
use crate::model::{LoadBalancing, LocalityBalancing, SlowStart};

/// Istio's share of an endpoint that has just come, in percent.
const LEAST_PERCENT: f64 = 10.0;

/// What is said of it.
#[derive(Debug, Default, Clone)]
pub(super) struct LoadBalancer {
    /// None: nothing is said, so a Service may say it.
    pub(super) policy: Option<LoadBalancing>,
    pub(super) locality: Option<LocalityBalancing>,
    pub(super) slow_start: Option<SlowStart>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    simple: Option<String>,
    consistent_hash: Option<hash::Spec>,
    locality_lb_setting: Option<locality::Spec>,
    warmup_duration_secs: Option<String>,
    warmup: Option<WarmupSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WarmupSpec {
    duration: Option<String>,
    minimum_percent: Option<f64>,
    aggression: Option<f64>,
}

/// Reads it; `policy` is the path of the policy.
pub(super) fn load_balancer(spec: Spec, policy: &str) -> Result<LoadBalancer, Refusal> {
    let field = format!("{policy}.loadBalancer");
    let Spec { simple, consistent_hash, locality_lb_setting, warmup_duration_secs, warmup } = spec;
    let policy = match (simple.as_deref(), consistent_hash) {
        (Some(_), Some(_)) => {
            return Err(Refusal::new(field, "only one of simple and consistentHash can apply"));
        }
        (None, Some(spec)) => {
            let hash = hash::consistent_hash(spec, &format!("{field}.consistentHash"))?;
            Some(LoadBalancing::ConsistentHash(hash))
        }
        (simple, None) => simple_policy(simple, &field)?,
    };
    let slow_start = match (warmup, warmup_duration_secs) {
        (Some(_), Some(_)) => {
            let reason = "only one of warmup and warmupDurationSecs can apply";
            return Err(Refusal::new(format!("{field}.warmup"), reason));
        }
        (Some(spec), None) => Some((self::warmup(spec, &format!("{field}.warmup"))?, "warmup")),
        (None, Some(window)) => {
            let name = "warmupDurationSecs";
            let spec = WarmupSpec { duration: Some(window), minimum_percent: None, aggression: None };
            Some((warmup_lasting(spec, format!("{field}.{name}"), &field)?, name))
        }
        (None, None) => None,
    };
    if let Some((_, name)) = slow_start
        && !matches!(policy, None | Some(LoadBalancing::LeastRequest | LoadBalancing::RoundRobin))
    {
        let reason = "is for LEAST_REQUEST and ROUND_ROBIN only: no other policy can give an endpoint a part of its share";
        return Err(Refusal::new(format!("{field}.{name}"), reason));
    }
    let locality = locality_lb_setting
        .map(|spec| locality::locality_balancing(spec, &format!("{field}.localityLbSetting")))
        .transpose()?;
    Ok(LoadBalancer { policy, locality, slow_start: slow_start.map(|(slow_start, _)| slow_start) })
}

fn simple_policy(simple: Option<&str>, field: &str) -> Result<Option<LoadBalancing>, Refusal> {
    match simple {
        None | Some("UNSPECIFIED") => Ok(None),
        Some("LEAST_REQUEST" | "LEAST_CONN") => Ok(Some(LoadBalancing::LeastRequest)),
        Some("ROUND_ROBIN") => Ok(Some(LoadBalancing::RoundRobin)),
        Some("RANDOM") => Ok(Some(LoadBalancing::Random)),
        Some("PASSTHROUGH") => {
            let reason = "PASSTHROUGH is not supported: only where connections are captured an address was dialled that they \
                          could be passed on to, and all clients share the cluster";
            Err(Refusal::new(format!("{field}.simple"), reason))
        }
        Some(other) => {
            let reason = format!("{other:?} is not supported; supported: LEAST_REQUEST, ROUND_ROBIN, RANDOM");
            Err(Refusal::new(format!("{field}.simple"), reason))
        }
    }
}

fn warmup(spec: WarmupSpec, field: &str) -> Result<SlowStart, Refusal> {
    warmup_lasting(spec, format!("{field}.duration"), field)
}

/// A warm-up whose duration stands at the path `duration`.
fn warmup_lasting(spec: WarmupSpec, duration: String, field: &str) -> Result<SlowStart, Refusal> {
    let WarmupSpec { duration: window, minimum_percent, aggression } = spec;
    let Some(window) = positive(window, duration.clone())? else {
        return Err(Refusal::new(duration, "must be said"));
    };
    let within = |value: Option<f64>, default: f64, least: f64, most: f64, name: &str| {
        let value = value.unwrap_or(default);
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(Refusal::new(format!("{field}.{name}"), format!("{value} is not between {least} and {most}")))
    };
    Ok(SlowStart {
        window,
        least_percent: within(minimum_percent, LEAST_PERCENT, 0.0, 100.0, "minimumPercent")?,
        aggression: within(aggression, 1.0, 1.0, f64::MAX, "aggression")?,
    })
}
