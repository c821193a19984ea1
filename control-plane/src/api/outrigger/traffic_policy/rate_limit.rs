//! `spec.rateLimit`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::interval;
use crate::api::Refusal;
use crate::api::values::number;
use crate::model::{LimitPer, RateLimit};

/// The most requests in an interval.
const MOST: u32 = 100_000_000;

/// Statuses that say no, of those that Envoy knows (`envoy.type.v3.StatusCode`).
const STATUSES: &[i64] = &[
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423,
    424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

const TOO_MANY_REQUESTS: i64 = 429;

/// Requests beyond the limit are answered at once. Those to a Service are counted where they arrive, by the sidecar of each of its
/// Pods; those along a route where they begin, by the sidecar of the caller.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// So many requests are let through in each interval, evenly.
    #[schemars(range(min = 1, max = MOST))]
    requests: i64,
    /// The interval: a whole number with the unit ms, s, m or h, from 100ms.
    #[serde(default = "second")]
    #[schemars(regex(pattern = interval::FORM))]
    interval: String,
    /// Requests that may come at once after a pause. As many as in an interval, if it is not said.
    #[schemars(range(min = 1, max = MOST))]
    burst: Option<i64>,
    #[serde(default)]
    per: Per,
    /// HTTP status of the answer to requests beyond the limit. A gRPC call gets what stands for it: UNAVAILABLE for 429, 502, 503 and 504.
    #[serde(default = "too_many_requests")]
    #[schemars(extend("enum" = STATUSES))]
    status: i64,
}

/// Whose requests are counted together: Instance, all requests that one sidecar counts; Caller, those of each caller for themselves, by
/// the identity that its certificate proves. Callers without a certificate are counted together. On a route, where the caller's own
/// sidecar counts, both are the same.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
enum Per {
    #[default]
    Instance,
    Caller,
}

fn second() -> String {
    "1s".to_owned()
}

fn too_many_requests() -> i64 {
    TOO_MANY_REQUESTS
}

pub(super) fn read(spec: Spec) -> Result<RateLimit, Refusal> {
    let at = |name: &str| format!("spec.rateLimit.{name}");
    let requests = number(spec.requests, 1, MOST, at("requests"))?;
    let burst = spec.burst.map(|burst| number(burst, 1, MOST, at("burst"))).transpose()?;
    let status = match u16::try_from(spec.status) {
        Ok(status) if STATUSES.contains(&spec.status) => status,
        _ => {
            let reason = format!("{} is not a registered status from 400 to 511", spec.status);
            return Err(Refusal::new(at("status"), reason));
        }
    };
    let interval = interval::read(&spec.interval, at("interval"))?;
    Ok(RateLimit {
        requests,
        interval,
        burst: burst.unwrap_or(requests),
        per: match spec.per {
            Per::Instance => LimitPer::Instance,
            Per::Caller => LimitPer::Caller,
        },
        status,
    })
}
