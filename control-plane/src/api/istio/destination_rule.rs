//! DestinationRule -> [`TrafficPolicy`]: outlier detection, simple load balancing and the limits of `connectionPool`.
//!
//! It holds for all clients of a Service, so it must be in the Service's own namespace or in the root namespace. (Istio
//! also lets a client's namespace have its own.)

use std::time::Duration;

use serde::Deserialize;

use crate::api::{Refusal, Strict, duration, name_of, read};
use crate::model::{ConnectionPool, LoadBalancing, MeshSettings, Name, OutlierDetection, TrafficPolicy};
use crate::source::Object;

/// No duration of a policy is longer; what a proxy can represent ends somewhere beyond.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    host: String,
    #[serde(default)]
    traffic_policy: Option<TrafficPolicySpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrafficPolicySpec {
    load_balancer: Option<LoadBalancerSpec>,
    connection_pool: Option<ConnectionPoolSpec>,
    outlier_detection: Option<OutlierDetectionSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadBalancerSpec {
    simple: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionPoolSpec {
    #[serde(default)]
    tcp: TcpSpec,
    #[serde(default)]
    http: HttpSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TcpSpec {
    max_connections: Option<i64>,
    connect_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct HttpSpec {
    http1_max_pending_requests: Option<i64>,
    http2_max_requests: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutlierDetectionSpec {
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx_errors: Option<i64>,
    interval: Option<String>,
    base_ejection_time: Option<String>,
    max_ejection_percent: Option<i64>,
    min_health_percent: Option<i64>,
}

/// Decodes a DestinationRule.
pub(in crate::api) fn destination_rule(
    object: &Object,
    settings: &MeshSettings,
) -> Result<TrafficPolicy, Refusal> {
    let Strict { metadata, spec, .. }: Strict<Spec> = read(object)?;
    let name = name_of(object);
    let service = service_of(&spec.host, &name.namespace, &settings.cluster_domain)?;
    if name.namespace != service.namespace && name.namespace != settings.root_namespace {
        let reason = format!(
            "a DestinationRule for {service} must be in namespace {} or {}",
            service.namespace, settings.root_namespace
        );
        return Err(Refusal::new("spec.host", reason));
    }
    let policy = spec.traffic_policy.unwrap_or_default();
    let load_balancing = match policy.load_balancer.as_ref().map(|balancer| balancer.simple.as_str()) {
        None | Some("UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN") => LoadBalancing::LeastRequest,
        Some("ROUND_ROBIN") => LoadBalancing::RoundRobin,
        Some(other) => {
            let reason = format!("{other:?} is not supported; supported: LEAST_REQUEST, ROUND_ROBIN");
            return Err(Refusal::new("spec.trafficPolicy.loadBalancer.simple", reason));
        }
    };
    let outlier_detection = policy.outlier_detection.map(outlier_detection).transpose()?;
    Ok(TrafficPolicy {
        name,
        service,
        load_balancing,
        outlier_detection,
        connection_pool: connection_pool(policy.connection_pool.unwrap_or_default())?,
        created: metadata.creation_timestamp.unwrap_or_default(),
        origin: object.origin.clone(),
    })
}

/// The Service that `host` names: a short name in the rule's own namespace, or the full one (Istio).
fn service_of(host: &str, namespace: &str, domain: &str) -> Result<Name, Refusal> {
    if !host.contains(['.', '*']) && !host.is_empty() {
        return Ok(Name::new(namespace, host));
    }
    let full = host.strip_suffix(domain).and_then(|host| host.strip_suffix(".svc."));
    match full.and_then(|host| host.split_once('.')) {
        Some((name, namespace)) if !name.contains('*') && !namespace.contains('.') => {
            Ok(Name::new(namespace, name))
        }
        _ => {
            let reason = format!(
                "{host:?} is not supported: it must be the name of a Service in this namespace \
                 or NAME.NAMESPACE.svc.{domain}"
            );
            Err(Refusal::new("spec.host", reason))
        }
    }
}

fn outlier_detection(spec: OutlierDetectionSpec) -> Result<OutlierDetection, Refusal> {
    let field = |name: &str| format!("spec.trafficPolicy.outlierDetection.{name}");
    let default = OutlierDetection::default();
    Ok(OutlierDetection {
        consecutive_5xx: match spec.consecutive_5xx_errors {
            Some(count) => number(count, 0, u32::MAX, field("consecutive5xxErrors"))?,
            None => default.consecutive_5xx,
        },
        interval: positive(spec.interval, field("interval"))?.unwrap_or(default.interval),
        base_ejection_time: positive(spec.base_ejection_time, field("baseEjectionTime"))?
            .unwrap_or(default.base_ejection_time),
        max_ejection_percent: match spec.max_ejection_percent {
            Some(percent) => number(percent, 0, 100, field("maxEjectionPercent"))?,
            None => default.max_ejection_percent,
        },
        min_health_percent: match spec.min_health_percent {
            Some(percent) => number(percent, 0, 100, field("minHealthPercent"))?,
            None => default.min_health_percent,
        },
    })
}

fn connection_pool(spec: ConnectionPoolSpec) -> Result<ConnectionPool, Refusal> {
    let limit = |value: Option<i64>, name: &str| {
        let field = format!("spec.trafficPolicy.connectionPool.{name}");
        value.map(|value| number(value, 1, u32::MAX, field)).transpose()
    };
    Ok(ConnectionPool {
        max_connections: limit(spec.tcp.max_connections, "tcp.maxConnections")?,
        connect_timeout: positive(
            spec.tcp.connect_timeout,
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout".to_owned(),
        )?,
        max_pending_requests: limit(spec.http.http1_max_pending_requests, "http.http1MaxPendingRequests")?,
        max_requests: limit(spec.http.http2_max_requests, "http.http2MaxRequests")?,
    })
}

fn number(value: i64, least: u32, most: u32, field: String) -> Result<u32, Refusal> {
    match u32::try_from(value) {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(Refusal::new(field, format!("{value} is not between {least} and {most}"))),
    }
}

fn positive(text: Option<String>, field: String) -> Result<Option<Duration>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse_go(&text) {
        Ok(value) if value > LONGEST => Err(Refusal::new(field, format!("{text} is more than a year"))),
        Ok(value) if value >= Duration::from_millis(1) => Ok(Some(value)),
        Ok(_) => Err(Refusal::new(field, format!("{text} is less than 1ms"))),
        Err(reason) => Err(Refusal::new(field, reason)),
    }
}
