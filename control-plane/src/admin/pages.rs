//! The JSON pages. Times are RFC 3339; ages are in milliseconds.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ads::proxies::{Proxy, TypeStatus};
use crate::model::Finding;
use crate::snapshot::Snapshot;

/// The streams of the connected proxies with the state of each resource type.
pub(super) fn proxies(proxies: &[Arc<Proxy>]) -> Value {
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Value> = proxies
        .iter()
        .map(|proxy| {
            let types: Map<String, Value> = proxy
                .types()
                .into_iter()
                .map(|(of, status)| (of.short_name().to_owned(), type_status(&status, now)))
                .collect();
            json!({
                "id": proxy.node_id,
                "identity": proxy.identity,
                "address": proxy.address.to_string(),
                "service": proxy.service,
                "variant": proxy.variant,
                "since": timestamp(proxy.since),
                "types": types,
            })
        })
        .collect();
    json!({ "proxies": rows })
}

fn type_status(status: &TypeStatus, now: OffsetDateTime) -> Value {
    json!({
        "state": status.state,
        "generation": status.sent_generation,
        "nonce": status.nonce,
        "accepted": status.accepted,
        "rejected": status.rejected,
        "last_ack_age_ms": status.last_ack.map(|at| age_ms(at, now)),
        "last_nack": status.last_nack.as_ref().map(|nack| json!({
            "age_ms": age_ms(nack.at, now),
            "resources": nack.names,
            "error": nack.message,
        })),
    })
}

/// What is wrong with the source's objects.
pub(super) fn rejections(snapshot: &Snapshot) -> Value {
    let rows = |list: &[Finding]| list.iter().map(finding).collect::<Vec<_>>();
    json!({ "rejections": rows(snapshot.rejections()), "problems": rows(snapshot.problems()) })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "file": finding.file.as_deref(),
        "line": finding.position.map(|position| position.line),
        "column": finding.position.map(|position| position.column),
        "object": finding.object.as_ref().map(|object| json!({
            "group": object.group,
            "kind": object.kind,
            "namespace": object.namespace,
            "name": object.name,
        })),
        "field": finding.field,
        "reason": finding.reason,
    })
}

/// What is running.
pub(super) fn version() -> Value {
    json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") })
}

fn timestamp(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

fn age_ms(at: OffsetDateTime, now: OffsetDateTime) -> i64 {
    i64::try_from((now - at).whole_milliseconds()).unwrap_or(i64::MAX).max(0)
}
