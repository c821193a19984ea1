//! The file of what changed, one JSON object a line: `envoy.data.core.v3.HealthCheckEvent`, with all fields, as Envoy writes it.

use std::fmt;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::decide::{Event, Failure};
use crate::cluster::Host;
use crate::net::Address;

/// An open event log.
pub struct EventLog(Box<dyn Fn(Vec<u8>) + Send + Sync>);

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventLog")
    }
}

impl EventLog {
    /// Hands each line to `write`.
    pub fn new(write: impl Fn(Vec<u8>) + Send + Sync + 'static) -> Self {
        Self(Box::new(write))
    }

    pub(super) fn write(&self, line: &[u8]) {
        (self.0)(line.to_vec());
    }
}

/// The line of an event, now.
pub(super) fn line(checker: &'static str, cluster: &str, host: &Host, event: Event) -> Vec<u8> {
    let (name, value) = content(event);
    let locality = host.locality.load();
    let mut line = json!({
        "health_checker_type": checker,
        "host": address(&host.address),
        "cluster_name": cluster,
        "timestamp": timestamp(),
        name: value,
        "locality": {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone},
    });
    if let Some(metadata) = host.metadata.load_full() {
        line["metadata"] = json!({"filter_metadata": *metadata, "typed_filter_metadata": {}});
    }
    let mut text = line.to_string().into_bytes();
    text.push(b'\n');
    text
}

/// The event's own field.
fn content(event: Event) -> (&'static str, Value) {
    match event {
        Event::AddHealthy { first_check } => ("add_healthy_event", json!({"first_check": first_check})),
        Event::Successful => ("successful_health_check_event", json!({})),
        Event::Degraded => ("degraded_healthy_host", json!({})),
        Event::NoLongerDegraded => ("no_longer_degraded_host", json!({})),
        Event::EjectUnhealthy { failure } => (
            "eject_unhealthy_event",
            json!({"failure_type": kind(failure), "http_status_code": status(failure)}),
        ),
        Event::Failed { failure, first_check } => (
            "health_check_failure_event",
            json!({
                "failure_type": kind(failure),
                "first_check": first_check,
                "http_status_code": status(failure),
            }),
        ),
    }
}

/// `HealthCheckFailureType`.
fn kind(failure: Failure) -> &'static str {
    match failure {
        Failure::Active { .. } => "ACTIVE",
        Failure::Passive => "PASSIVE",
        Failure::Network => "NETWORK",
        Failure::NetworkTimeout => "NETWORK_TIMEOUT",
    }
}

fn status(failure: Failure) -> u16 {
    match failure {
        Failure::Active { status, .. } => status,
        Failure::Passive | Failure::Network | Failure::NetworkTimeout => 0,
    }
}

fn address(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => json!({"socket_address": {
            "protocol": "TCP",
            "address": ip.ip().to_string(),
            "port_value": ip.port(),
            "resolver_name": "",
            "ipv4_compat": false,
            "network_namespace_filepath": "",
        }}),
        Address::Pipe(path) => json!({"pipe": {"path": path.to_string_lossy(), "mode": 0}}),
    }
}

/// Milliseconds are enough.
fn timestamp() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
