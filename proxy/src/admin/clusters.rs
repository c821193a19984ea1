//! `/clusters`: clusters and their hosts, as text and as JSON.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::{ClusterEntry, rfc3339};
use crate::cluster::outlier::{Average, HostMonitor};
use crate::cluster::{EdsHealth, HealthFlag, Host, Locality};
use crate::metadata::BALANCING;
use crate::net::Address;

/// A number of a host.
enum Number {
    Counter(u64),
    Gauge(u64),
}

/// What is counted for each host, by name.
fn numbers(host: &Host) -> [(&'static str, Number); 7] {
    let (total, error) = (host.requests_total.load(Relaxed), host.requests_error.load(Relaxed));
    let active = u64::from(host.active_requests.load(Relaxed));
    [
        ("cx_active", Number::Gauge(host.connections_active.load(Relaxed).into())),
        ("cx_connect_fail", Number::Counter(host.connect_failures.load(Relaxed))),
        ("cx_total", Number::Counter(host.connections_total.load(Relaxed))),
        ("rq_active", Number::Gauge(active)),
        ("rq_error", Number::Counter(error)),
        ("rq_success", Number::Counter(total.saturating_sub(error).saturating_sub(active))),
        ("rq_total", Number::Counter(total)),
    ]
}

/// `healthy`, or what is wrong.
fn health_flags(host: &Host) -> String {
    let eds = host.eds_health();
    // In the order of Envoy's bits.
    let flags: String = [
        (host.has(HealthFlag::Failed), "/failed_active_hc"),
        (host.ejected.load(Relaxed), "/failed_outlier_check"),
        (eds == EdsHealth::Unhealthy, "/failed_eds_health"),
        (host.has(HealthFlag::Degraded), "/degraded_active_hc"),
        (eds == EdsHealth::Degraded, "/degraded_eds_health"),
        (host.has(HealthFlag::PendingRemoval), "/pending_dynamic_removal"),
        (host.has(HealthFlag::PendingFirstCheck), "/pending_active_hc"),
        (host.has(HealthFlag::Excluded), "/excluded_via_immediate_hc_fail"),
        (host.has(HealthFlag::TimedOut), "/active_hc_timeout"),
        (eds == EdsHealth::Draining, "/eds_status_draining"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect();
    if flags.is_empty() { "healthy".into() } else { flags }
}

/// Envoy's text: `cluster::host::name::value`.
pub(super) fn text(entries: &[ClusterEntry]) -> String {
    let mut out = String::new();
    for ClusterEntry { cluster, added_via_api } in entries {
        let name = &cluster.name;
        let _ = writeln!(out, "{name}::observability_name::{}", cluster.stats.name());
        if let Some(detection) = &cluster.outlier {
            let (external, local_origin) = (&detection.state.external, &detection.state.local_origin);
            for (what, rate) in [
                ("success_rate_average", &external.mean),
                ("success_rate_ejection_threshold", &external.threshold),
                ("local_origin_success_rate_average", &local_origin.mean),
                ("local_origin_success_rate_ejection_threshold", &local_origin.threshold),
            ] {
                let _ = writeln!(out, "{name}::outlier::{what}::{}", printed(rate.get()));
            }
        }
        for (priority, limits) in
            ["default_priority", "high_priority"].iter().zip(cluster.circuit_breakers.limits())
        {
            for (limit, value) in
                ["max_connections", "max_pending_requests", "max_requests", "max_retries"].iter().zip(limits)
            {
                let _ = writeln!(out, "{name}::{priority}::{limit}::{value}");
            }
        }
        let _ = writeln!(out, "{name}::added_via_api::{added_via_api}");
        for (priority, host) in cluster.hosts() {
            let prefix = format!("{name}::{}", host.address);
            for (what, number) in numbers(&host) {
                let (Number::Counter(value) | Number::Gauge(value)) = number;
                let _ = writeln!(out, "{prefix}::{what}::{value}");
            }
            let _ = writeln!(out, "{prefix}::hostname::{}", host.hostname);
            let _ = writeln!(out, "{prefix}::health_flags::{}", health_flags(&host));
            let _ = writeln!(out, "{prefix}::weight::{}", host.weight.load(Relaxed));
            let locality = host.locality.load();
            let _ = writeln!(out, "{prefix}::region::{}", locality.region);
            let _ = writeln!(out, "{prefix}::zone::{}", locality.zone);
            let _ = writeln!(out, "{prefix}::sub_zone::{}", locality.sub_zone);
            let _ = writeln!(out, "{prefix}::canary::{}", is_canary(&host));
            let _ = writeln!(out, "{prefix}::priority::{priority}");
            let _ = writeln!(
                out,
                "{prefix}::success_rate::{}",
                printed(host.seen_outlier().and_then(HostMonitor::success_rate))
            );
            let local_origin = printed(host.seen_outlier().and_then(HostMonitor::local_origin_success_rate));
            let _ = writeln!(out, "{prefix}::local_origin_success_rate::{local_origin}");
            if let Some(ejection) = host.seen_outlier().and_then(HostMonitor::ejection) {
                let _ = writeln!(out, "{prefix}::ejected_for::{}", ejection.why);
                let _ = writeln!(out, "{prefix}::ejected_until::{}", rfc3339(ejection.at + ejection.time));
            }
        }
    }
    out
}

/// `canary` of the host's `envoy.lb` metadata.
fn is_canary(host: &Host) -> bool {
    let metadata = host.metadata.load();
    metadata.as_ref().and_then(|m| m.find(BALANCING, &["canary".into()])?.as_bool()).unwrap_or(false)
}

/// Envoy prints -1 for a rate that is not known.
fn printed(rate: Option<f64>) -> f64 {
    rate.unwrap_or(-1.0)
}

/// `envoy.admin.v3.Clusters`.
pub(super) fn json(entries: &[ClusterEntry]) -> Value {
    let statuses: Vec<Value> = entries
        .iter()
        .map(|ClusterEntry { cluster, added_via_api }| {
            let limits = cluster.circuit_breakers.limits();
            let thresholds: Vec<Value> = ["DEFAULT", "HIGH"]
                .iter()
                .zip(limits)
                .map(|(priority, [connections, pending, requests, retries])| {
                    json!({
                        "priority": priority,
                        "max_connections": connections,
                        "max_pending_requests": pending,
                        "max_requests": requests,
                        "max_retries": retries,
                    })
                })
                .collect();
            let hosts: Vec<Value> =
                cluster.hosts().iter().map(|(priority, host)| host_json(host, *priority)).collect();
            let mut status = json!({
                "name": &*cluster.name,
                "added_via_api": added_via_api,
                "host_statuses": hosts,
                "circuit_breakers": {"thresholds": thresholds},
                "observability_name": cluster.stats.name(),
            });
            if let Some(detection) = &cluster.outlier {
                let of = |average: &Average| json!({"value": printed(average.threshold.get())});
                status["success_rate_ejection_threshold"] = of(&detection.state.external);
                status["local_origin_success_rate_ejection_threshold"] = of(&detection.state.local_origin);
            }
            status
        })
        .collect();
    json!({ "cluster_statuses": statuses })
}

fn host_json(host: &Host, priority: usize) -> Value {
    let stats: Vec<Value> = numbers(host)
        .into_iter()
        .map(|(name, number)| match number {
            Number::Counter(value) => json!({"name": name, "value": value.to_string()}),
            Number::Gauge(value) => json!({"type": "GAUGE", "name": name, "value": value.to_string()}),
        })
        .collect();
    let mut health = json!({
        "eds_health_status": match host.eds_health() {
            EdsHealth::Healthy => "HEALTHY",
            EdsHealth::Degraded => "DEGRADED",
            EdsHealth::Unhealthy => "UNHEALTHY",
            EdsHealth::Draining => "DRAINING",
        },
    });
    for (is_set, name) in [
        (host.has(HealthFlag::Failed), "failed_active_health_check"),
        (host.ejected.load(Relaxed), "failed_outlier_check"),
        (host.has(HealthFlag::Degraded), "failed_active_degraded_check"),
        (host.has(HealthFlag::PendingRemoval), "pending_dynamic_removal"),
        (host.has(HealthFlag::PendingFirstCheck), "pending_active_hc"),
        (host.has(HealthFlag::Excluded), "excluded_via_immediate_hc_fail"),
        (host.has(HealthFlag::TimedOut), "active_hc_timeout"),
    ] {
        if is_set {
            health[name] = true.into();
        }
    }
    let mut status = json!({
        "address": address_json(&host.address),
        "stats": stats,
        "health_status": health,
        "weight": host.weight.load(Relaxed),
        "hostname": &*host.hostname,
        "priority": priority,
        "locality": locality_json(&host.locality.load()),
    });
    for (name, rate) in [
        ("success_rate", host.seen_outlier().and_then(HostMonitor::success_rate)),
        ("local_origin_success_rate", host.seen_outlier().and_then(HostMonitor::local_origin_success_rate)),
    ] {
        if let Some(rate) = rate {
            status[name] = json!({"value": rate});
        }
    }
    if let Some(ejection) = host.seen_outlier().and_then(HostMonitor::ejection) {
        let until = rfc3339(ejection.at + ejection.time);
        status["ejection"] = json!({
            "type": ejection.why.detector().name(),
            "reason": ejection.why.to_string(),
            "at": rfc3339(ejection.at),
            "until": until,
        });
    }
    status
}

/// `envoy.config.core.v3.Locality`.
fn locality_json(locality: &Locality) -> Value {
    let parts = [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)];
    let set = parts.into_iter().filter(|(_, part)| !part.is_empty());
    set.map(|(name, part)| (name.to_owned(), Value::from(&**part))).collect::<serde_json::Map<_, _>>().into()
}

/// `envoy.config.core.v3.Address`.
pub(super) fn address_json(address: &Address) -> Value {
    match address {
        Address::Ip(a) => json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}}),
        Address::Pipe(path) => json!({"pipe": {"path": path.to_string_lossy()}}),
    }
}
