//! The JSON pages. Times are RFC 3339; ages are in milliseconds.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ads::proxies::{Proxy, TypeStatus};
use crate::model::Finding;
use crate::snapshot::Snapshot;
use crate::status::by_proxies::{self as status, RefusedByProxies};

/// The streams of the connected proxies with the state of each resource type.
pub(super) fn proxies(proxies: &[Arc<Proxy>], snapshot: &Snapshot) -> Value {
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Value> = proxies
        .iter()
        .map(|proxy| {
            let types: Map<String, Value> = proxy
                .types()
                .into_iter()
                .map(|(of, status)| (of.short_name().to_owned(), type_status(&status, snapshot, now)))
                .collect();
            json!({
                "id": proxy.node_id,
                "agent": proxy.agent,
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

fn type_status(status: &TypeStatus, snapshot: &Snapshot, now: OffsetDateTime) -> Value {
    let refusals = status.refusals.iter().map(|refusal| {
        let objects = refusal
            .objects
            .iter()
            .map(|cause| place(&status::finding(snapshot, Some(cause.clone()), refusal.reason.clone())));
        json!({
            "resource": refusal.resource,
            "field": refusal.field,
            "reason": refusal.reason,
            "age_ms": age_ms(refusal.at, now),
            "objects": objects.collect::<Vec<_>>(),
        })
    });
    json!({
        "state": status.state,
        "generation": status.sent_generation,
        "nonce": status.nonce,
        "accepted": status.accepted,
        "rejected": status.rejected,
        "refusals": refusals.collect::<Vec<_>>(),
        "last_sent_age_ms": status.sent.map(|at| age_ms(at, now)),
        "last_ack_age_ms": status.last_ack.map(|at| age_ms(at, now)),
        "last_nack": status.last_nack.as_ref().map(|nack| json!({
            "age_ms": age_ms(nack.at, now),
            "resources": nack.names,
            "error": nack.message,
        })),
    })
}

/// What is wrong with the source's objects: refused here, without their whole effect, or refused by proxies.
pub(super) fn rejections(snapshot: &Snapshot, proxies: &[Arc<Proxy>]) -> Value {
    let rows = |list: &[Finding]| list.iter().map(finding).collect::<Vec<_>>();
    let by_proxies = status::refused_by_proxies(snapshot, proxies);
    json!({
        "rejections": rows(snapshot.rejections()),
        "problems": rows(snapshot.problems()),
        "refused_by_proxies": by_proxies.iter().map(refused_by_proxies).collect::<Vec<_>>(),
    })
}

fn refused_by_proxies(refused: &RefusedByProxies) -> Value {
    let mut row = finding(&refused.finding);
    row["resource"] = json!({
        "type": refused.of.short_name(),
        "name": refused.resource,
        "field": refused.resource_field,
    });
    row["proxies"] = refused.proxies.iter().cloned().collect();
    row["since"] = timestamp(refused.since).into();
    row
}

fn finding(finding: &Finding) -> Value {
    let mut row = place(finding);
    row["reason"] = finding.reason.as_str().into();
    row
}

/// What a finding is about.
fn place(finding: &Finding) -> Value {
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
