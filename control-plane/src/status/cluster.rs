//! Conditions in the status of objects on an API server, written by the one control plane that leads.
//!
//! Routes have them for each parent and policies for each target, under the name of this controller, beside those of other controllers;
//! Istio's kinds have one list, in which conditions of other types are left alone. Only what changes is written, with the version that was read. A
//! failure is told and tried again, and stops nothing else. Runs on the main runtime.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::conditions::{Condition, TYPES, conditions};
use super::lease::{Lease, RENEW};
use super::{SETTLE, policies, timestamp};
use crate::model::{Finding, Name, RouteKind};
use crate::snapshot::Snapshot;
use crate::source::ObjectKey;
use crate::source::kubernetes::rule_kind;

/// The name by which a route's status tells controllers apart.
const CONTROLLER: &str = "outrigger.dev/mesh";

/// What is known of an object.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    generation: i64,
    rejections: Vec<Finding>,
    problems: Vec<Finding>,
}

/// Keeps the statuses.
pub struct InCluster {
    client: Client,
    lease: Lease,
    /// What the objects say since this process leads.
    written: BTreeMap<ObjectKey, Known>,
}

impl InCluster {
    /// Nothing is written yet. `lease` says who leads, `identity` is this process.
    pub fn new(client: Client, lease: Name, identity: Option<String>) -> Self {
        let identity = identity.unwrap_or_else(|| format!("control-plane-{:016x}", fastrand::u64(..)));
        let lease = Lease::new(client.clone(), &lease, identity);
        Self { client, lease, written: BTreeMap::new() }
    }

    /// Keeps the statuses equal to what is known, while this process leads and until the source is gone.
    pub async fn keep(mut self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut leads = false;
        let mut renew_at = Instant::now();
        loop {
            if Instant::now() >= renew_at {
                leads = self.renew(leads).await;
                renew_at = Instant::now() + RENEW;
            }
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            if leads && snapshot.generation() > 0 && !self.write(&snapshot, renew_at).await {
                // The Lease must be renewed first.
                continue;
            }
            tokio::select! {
                () = sleep_until(renew_at) => {}
                changed = snapshots.changed() => match changed {
                    Ok(()) => sleep(SETTLE).await,
                    Err(_) => return,
                },
            }
        }
    }

    async fn renew(&mut self, led: bool) -> bool {
        let leads = self.lease.hold().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell who writes the status of objects");
            false
        });
        if leads != led {
            tracing::info!(leads, "the status of objects: who writes it changed");
            self.written.clear();
        }
        leads
    }

    /// Writes what changed; `false` when there was no time for all of it.
    async fn write(&mut self, snapshot: &Snapshot, until: Instant) -> bool {
        let all = known(snapshot);
        let mut failed = false;
        self.written.retain(|key, _| all.contains_key(key));
        for (key, known) in all {
            if self.written.get(&key) == Some(&known) {
                continue;
            }
            if Instant::now() >= until {
                return false;
            }
            match write_one(&self.client, &key, &known).await {
                Ok(()) => drop(self.written.insert(key, known)),
                // Its kind is defined without a status.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    tracing::debug!(object = %key, "there is no status to write");
                    self.written.insert(key, known);
                }
                // Mostly others fail alike.
                Err(error) if failed => tracing::debug!(object = %key, %error, "the status is not written"),
                Err(error) => {
                    tracing::warn!(object = %key, %error, "the status is not written");
                    failed = true;
                }
            }
        }
        true
    }
}

/// What is known of each object whose kind has a status of ours.
fn known(snapshot: &Snapshot) -> BTreeMap<ObjectKey, Known> {
    let has_status =
        |key: &ObjectKey| key.kind != "ReferenceGrant" && rule_kind(&key.group, &key.kind).is_some();
    let mut all: BTreeMap<ObjectKey, Known> = BTreeMap::new();
    for origin in snapshot.origins().iter().filter(|origin| has_status(&origin.object)) {
        all.entry(origin.object.clone()).or_default().generation = origin.generation;
    }
    let mut add = |findings: &[Finding], list: fn(&mut Known) -> &mut Vec<Finding>| {
        for finding in findings {
            if let Some(known) = finding.object.as_ref().and_then(|object| all.get_mut(object)) {
                list(known).push(finding.clone());
            }
        }
    };
    add(snapshot.rejections(), |known| &mut known.rejections);
    add(snapshot.problems(), |known| &mut known.problems);
    all
}

/// Writes the status of one object, if it is there and says something else.
async fn write_one(client: &Client, key: &ObjectKey, known: &Known) -> Result<(), kube::Error> {
    let Some(kind) = rule_kind(&key.group, &key.kind) else { return Ok(()) };
    for version in kind.versions {
        let resource = kind.resource(version);
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, &resource);
        // A version that is not served has no objects either.
        let Some(object) = api.get_opt(&key.name).await? else { continue };
        let before = &object.data["status"];
        let mut status = before.clone();
        if RouteKind::of(&key.kind).is_some() {
            status["parents"] = parents(&object.data, known);
        } else if key.kind == "TrafficPolicy" {
            let timed = |found: &Condition, old: &Value| timed(found, old, known.generation);
            let (data, rejections, problems) = (&object.data, &known.rejections, &known.problems);
            status["ancestors"] =
                policies::ancestors(data, &key.namespace, CONTROLLER, rejections, problems, timed);
        } else {
            let ours = conditions(&known.rejections, &known.problems, None);
            let others = before["conditions"].as_array().into_iter().flatten();
            let others = others.filter(|other| TYPES.iter().all(|of| other["type"] != *of)).cloned();
            let old = &before["conditions"];
            status["conditions"] =
                others.chain(ours.iter().map(|found| timed(found, old, known.generation))).collect();
        }
        if status == *before || (before.is_null() && status["parents"] == json!([])) {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "status": status,
        });
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        return Ok(());
    }
    Ok(())
}

/// `status.parents` of a route: other controllers' as they are, and ours, one for each Service in `spec.parentRefs`.
fn parents(object: &Value, known: &Known) -> Value {
    let before = object["status"]["parents"].as_array().map_or(&[][..], Vec::as_slice);
    let is_ours = |parent: &&Value| parent["controllerName"] == CONTROLLER;
    let mut all: Vec<Value> = before.iter().filter(|parent| !is_ours(parent)).cloned().collect();
    let refs = object["spec"]["parentRefs"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, parent_ref) in refs.iter().enumerate().filter(|(_, parent)| parent["kind"] == "Service") {
        let old = before.iter().filter(is_ours).find(|parent| parent["parentRef"] == *parent_ref);
        let old = old.map_or(&Value::Null, |parent| &parent["conditions"]);
        let found = conditions(&known.rejections, &known.problems, Some(index));
        let conditions: Vec<Value> = found.iter().map(|found| timed(found, old, known.generation)).collect();
        all.push(json!({"parentRef": parent_ref, "controllerName": CONTROLLER, "conditions": conditions}));
    }
    all.into()
}

/// A condition with its times: that of its last change is kept from `old` conditions while its status is the same.
fn timed(condition: &Condition, old: &Value, generation: i64) -> Value {
    let mut shown = condition.shown();
    let same = old
        .as_array()
        .into_iter()
        .flatten()
        .find(|other| other["type"] == shown["type"] && other["status"] == shown["status"]);
    shown["lastTransitionTime"] = match same.map(|other| &other["lastTransitionTime"]) {
        Some(time @ Value::String(_)) => time.clone(),
        _ => timestamp(OffsetDateTime::now_utc()).into(),
    };
    shown["observedGeneration"] = generation.into();
    shown
}
