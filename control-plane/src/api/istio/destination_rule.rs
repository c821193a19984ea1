//! DestinationRule -> [`DestinationPolicy`]: subsets, outlier detection, load balancing and the limits of `connectionPool`.
//!
//! It holds for all clients of a Service, so it must be in the Service's own namespace or in the root namespace. (Istio
//! also lets a client's namespace have its own.)

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{hash, hosts};
use crate::api::values::{number, positive};
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{
    ConnectionPool, DestinationPolicy, DestinationSettings, LoadBalancing, MeshSettings, OutlierDetection,
    ServiceRef, Subset,
};
use crate::source::Object;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    host: String,
    #[serde(default)]
    traffic_policy: TrafficPolicySpec,
    #[serde(default)]
    subsets: Vec<SubsetSpec>,
    #[serde(default)]
    export_to: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SubsetSpec {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    traffic_policy: TrafficPolicySpec,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrafficPolicySpec {
    load_balancer: Option<LoadBalancerSpec>,
    connection_pool: Option<ConnectionPoolSpec>,
    outlier_detection: Option<OutlierDetectionSpec>,
    tls: Option<TlsSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadBalancerSpec {
    simple: Option<String>,
    consistent_hash: Option<hash::Spec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TlsSpec {
    mode: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionPoolSpec {
    #[serde(default)]
    tcp: TcpSpec,
    #[serde(default)]
    http: HttpSpec,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TcpSpec {
    max_connections: Option<i64>,
    connect_timeout: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct HttpSpec {
    http1_max_pending_requests: Option<i64>,
    http2_max_requests: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
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
) -> Result<DestinationPolicy, Refusal> {
    let Strict { metadata, spec, .. }: Strict<Spec> = read(object)?;
    let name = name_of(object);
    if spec.host.contains('*') {
        return Err(Refusal::new("spec.host", "a DestinationRule for many hosts is not supported"));
    }
    let service = hosts::service_ref(&spec.host, &name.namespace, &settings.cluster_domain, "spec.host")?;
    if let ServiceRef::Name(service) = &service
        && name.namespace != service.namespace
        && name.namespace != settings.root_namespace
    {
        let reason = format!(
            "a DestinationRule for {service} must be in namespace {} or {}",
            service.namespace, settings.root_namespace
        );
        return Err(Refusal::new("spec.host", reason));
    }
    if spec.export_to.iter().any(|to| to != "*") {
        let reason = "is not supported: a DestinationRule holds for all clients; supported: *";
        return Err(Refusal::new("spec.exportTo", reason));
    }
    let mut subsets: Vec<Subset> = Vec::new();
    for (index, subset) in spec.subsets.into_iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        names::label(&format!("{field}.name"), &subset.name)?;
        // It stands in the place of a subset in the name of a cluster (see `translate::names`).
        if subset.name == "tcp" {
            return Err(Refusal::new(format!("{field}.name"), "tcp cannot be the name of a subset"));
        }
        if subsets.iter().any(|other| other.name == subset.name) {
            let reason = format!("subset {} is there twice", subset.name);
            return Err(Refusal::new(format!("{field}.name"), reason));
        }
        let inherited = spec.traffic_policy.clone();
        let own = subset.traffic_policy;
        // Istio: what a subset says of a part replaces all that the rule says of that part.
        let at = |is_own: bool| {
            if is_own { format!("{field}.trafficPolicy") } else { "spec.trafficPolicy".to_owned() }
        };
        let settings = DestinationSettings {
            load_balancing: match own.load_balancer {
                Some(own) => load_balancing(Some(own), &at(true))?,
                None => load_balancing(inherited.load_balancer, &at(false))?,
            },
            outlier_detection: match own.outlier_detection {
                Some(own) => outlier_detection(Some(own), &at(true))?,
                None => outlier_detection(inherited.outlier_detection, &at(false))?,
            },
            connection_pool: match own.connection_pool {
                Some(own) => connection_pool(Some(own), &at(true))?,
                None => connection_pool(inherited.connection_pool, &at(false))?,
            },
            requires_mutual_tls: match own.tls {
                Some(own) => mutual_tls(Some(own), &at(true))?,
                None => mutual_tls(inherited.tls, &at(false))?,
            },
        };
        subsets.push(Subset { name: subset.name, labels: subset.labels, settings, field });
    }
    let (policy, field) = (spec.traffic_policy, "spec.trafficPolicy");
    Ok(DestinationPolicy {
        name,
        service,
        settings: DestinationSettings {
            load_balancing: load_balancing(policy.load_balancer, field)?,
            outlier_detection: outlier_detection(policy.outlier_detection, field)?,
            connection_pool: connection_pool(policy.connection_pool, field)?,
            requires_mutual_tls: mutual_tls(policy.tls, field)?,
        },
        subsets,
        created: metadata.creation_timestamp.unwrap_or_default(),
        origin: object.origin.clone(),
    })
}

fn load_balancing(spec: Option<LoadBalancerSpec>, field: &str) -> Result<LoadBalancing, Refusal> {
    let Some(spec) = spec else { return Ok(LoadBalancing::default()) };
    let field = format!("{field}.loadBalancer");
    match (spec.simple.as_deref(), spec.consistent_hash) {
        (Some(_), Some(_)) => Err(Refusal::new(field, "only one of simple and consistentHash can apply")),
        (None, Some(spec)) => {
            let hash = hash::consistent_hash(spec, &format!("{field}.consistentHash"))?;
            Ok(LoadBalancing::ConsistentHash(hash))
        }
        (simple, None) => simple_load_balancing(simple, &field),
    }
}

fn simple_load_balancing(simple: Option<&str>, field: &str) -> Result<LoadBalancing, Refusal> {
    match simple {
        None | Some("UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN") => Ok(LoadBalancing::LeastRequest),
        Some("ROUND_ROBIN") => Ok(LoadBalancing::RoundRobin),
        Some("RANDOM") => Ok(LoadBalancing::Random),
        Some(other) => {
            let reason = format!("{other:?} is not supported; supported: LEAST_REQUEST, ROUND_ROBIN, RANDOM");
            Err(Refusal::new(format!("{field}.simple"), reason))
        }
    }
}

/// Mutual TLS is what the mesh does wherever it can; saying so forbids plaintext.
fn mutual_tls(spec: Option<TlsSpec>, field: &str) -> Result<bool, Refusal> {
    match spec.as_ref().map(|tls| tls.mode.as_str()) {
        None => Ok(false),
        Some("ISTIO_MUTUAL") => Ok(true),
        Some(other) => {
            let reason = format!("{other:?} is not supported; supported: ISTIO_MUTUAL");
            Err(Refusal::new(format!("{field}.tls.mode"), reason))
        }
    }
}

fn outlier_detection(
    spec: Option<OutlierDetectionSpec>,
    field: &str,
) -> Result<Option<OutlierDetection>, Refusal> {
    let Some(spec) = spec else { return Ok(None) };
    let field = |name: &str| format!("{field}.outlierDetection.{name}");
    let default = OutlierDetection::default();
    Ok(Some(OutlierDetection {
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
    }))
}

fn connection_pool(spec: Option<ConnectionPoolSpec>, field: &str) -> Result<ConnectionPool, Refusal> {
    let spec = spec.unwrap_or_default();
    let limit = |value: Option<i64>, name: &str| {
        let field = format!("{field}.connectionPool.{name}");
        value.map(|value| number(value, 1, u32::MAX, field)).transpose()
    };
    Ok(ConnectionPool {
        max_connections: limit(spec.tcp.max_connections, "tcp.maxConnections")?,
        connect_timeout: positive(
            spec.tcp.connect_timeout,
            format!("{field}.connectionPool.tcp.connectTimeout"),
        )?,
        max_pending_requests: limit(spec.http.http1_max_pending_requests, "http.http1MaxPendingRequests")?,
        max_requests: limit(spec.http.http2_max_requests, "http.http2MaxRequests")?,
    })
}
