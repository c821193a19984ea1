//! `spec.healthCheck`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{interval, statuses};
use crate::api::Refusal;
use crate::api::values::number;
use crate::model::{HealthCheck, HealthCheckKind};

const MOST_CHECKS: u32 = 100;
const PATH: &str = "^/[!-~]*$";

/// The sidecars of the callers ask each endpoint whether it is well, and leave out those that are not. Each sidecar asks for itself, so that
/// many callers make many checks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.http), has(self.grpc), has(self.tcp)].filter(said, said).size() == 1",
    "message": "must say exactly one of http, grpc and tcp",
}]))]
pub(super) struct Spec {
    http: Option<HttpSpec>,
    grpc: Option<GrpcSpec>,
    tcp: Option<TcpSpec>,
    /// From one check to the next: a whole number with the unit ms, s, m or h, from 100ms.
    #[serde(default = "interval")]
    #[schemars(regex(pattern = interval::FORM))]
    interval: String,
    /// An answer must be there within.
    #[serde(default = "timeout")]
    #[schemars(regex(pattern = interval::FORM))]
    timeout: String,
    /// So many checks in a row must pass before an endpoint that was not well is.
    #[serde(default = "success_threshold")]
    #[schemars(range(min = 1, max = MOST_CHECKS))]
    success_threshold: i64,
    /// So many in a row must fail before it is not.
    #[serde(default = "failure_threshold")]
    #[schemars(range(min = 1, max = MOST_CHECKS))]
    failure_threshold: i64,
}

/// A GET request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpSpec {
    /// Path, and query.
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    path: String,
    /// Statuses of an endpoint that is well, like 204, or all of a hundred like 2xx.
    #[serde(default = "ok")]
    #[schemars(length(min = 1, max = statuses::MOST), inner(regex(pattern = statuses::FORM)))]
    statuses: Vec<String>,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GrpcSpec {
    /// The service that is asked about; empty: the server as a whole.
    #[serde(default)]
    #[schemars(length(max = 253))]
    service: String,
}

/// A connection is enough.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TcpSpec {}

fn interval() -> String {
    "10s".to_owned()
}

fn timeout() -> String {
    "1s".to_owned()
}

fn success_threshold() -> i64 {
    1
}

fn failure_threshold() -> i64 {
    3
}

fn ok() -> Vec<String> {
    vec!["200".to_owned()]
}

pub(super) fn read(spec: Spec) -> Result<HealthCheck, Refusal> {
    let at = |name: &str| format!("spec.healthCheck.{name}");
    let time = |text: &str, name: &str| -> Result<Duration, Refusal> { interval::read(text, at(name)) };
    let kind = match (spec.http, spec.grpc, spec.tcp) {
        (Some(http), None, None) => http_check(http, &at("http"))?,
        (None, Some(GrpcSpec { service }), None) => HealthCheckKind::Grpc { service },
        (None, None, Some(TcpSpec {})) => HealthCheckKind::Tcp,
        _ => return Err(Refusal::new("spec.healthCheck", "must say exactly one of http, grpc and tcp")),
    };
    Ok(HealthCheck {
        kind,
        interval: time(&spec.interval, "interval")?,
        timeout: time(&spec.timeout, "timeout")?,
        success_threshold: number(spec.success_threshold, 1, MOST_CHECKS, at("successThreshold"))?,
        failure_threshold: number(spec.failure_threshold, 1, MOST_CHECKS, at("failureThreshold"))?,
    })
}

fn http_check(spec: HttpSpec, field: &str) -> Result<HealthCheckKind, Refusal> {
    let has_form = regex::Regex::new(PATH).is_ok_and(|form| form.is_match(&spec.path));
    if !has_form {
        return Err(Refusal::new(format!("{field}.path"), format!("{:?} is not a path", spec.path)));
    }
    let statuses = statuses::read(&spec.statuses, &format!("{field}.statuses"))?;
    Ok(HealthCheckKind::Http { path: spec.path, statuses })
}
