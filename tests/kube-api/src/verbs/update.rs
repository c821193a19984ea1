//! Update: PUT, and the common end of every patch.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission::{self, Operation};
use crate::apply::{self, Ownership};
use crate::dispatch::Call;
use crate::http::body;
use crate::http::respond::Reply;
use crate::kinds::custom;
use crate::object;
use crate::schema::fields;
use crate::status::{Cause, Result, Status};
use crate::strategy;
use crate::verbs::create::place;

pub(crate) async fn put(call: &Call) -> Result<Reply> {
    let dry_run = call.query.dry_run("UpdateOptions")?;
    let validation = call.query.field_validation("UpdateOptions")?;
    let mut sent = body::object(&call.resource, &call.content_type, &call.body)?;
    let warnings = fields::check(&call.cluster, &call.resource, &mut sent, validation)?;
    place(&call.resource, call.namespace(), &mut sent)?;
    let name = object::name(&sent);
    if name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if name != call.name() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name()
        )));
    }
    let resource = &call.resource;
    if object::version(&sent) == 0 && !resource.unconditional_update() {
        let cause = Cause::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
        return Err(Status::invalid(&resource.group, &resource.plural, name, &[cause]));
    }
    change(call, dry_run, warnings, Ownership::ByUpdate, |_| Ok(sent.clone())).await
}

/// Changes the stored object; `make` says what into. It runs again when another change came in between.
pub(crate) async fn change(
    call: &Call,
    dry_run: bool,
    warnings: Vec<String>,
    ownership: Ownership,
    make: impl Fn(&Value) -> Result<Value>,
) -> Result<Reply> {
    loop {
        let collection = call.resource.collection();
        let current = call.cluster.get(&collection, call.namespace(), call.name());
        let current = current.ok_or_else(|| call.not_found())?;
        let made = make(&current)?;
        if let Some(mut reply) = attempt(call, dry_run, ownership, current, made).await? {
            reply.warnings.splice(0..0, warnings);
            return Ok(reply);
        }
    }
}

/// One attempt; `None`: the object has changed meanwhile, and the client does not insist on a version.
async fn attempt(
    call: &Call,
    dry_run: bool,
    ownership: Ownership,
    current: Arc<Value>,
    mut made: Value,
) -> Result<Option<Reply>> {
    let resource = &call.resource;
    let subresource = call.target.subresource.as_deref();
    check_preconditions(call, &current, &made)?;
    keep(call, &current, &mut made)?;
    strategy::default(resource, &mut made);
    if subresource.is_none() {
        count_generation(call, &current, &mut made);
    }
    if ownership == Ownership::ByUpdate {
        apply::record_update(call, &mut made, Some(&current));
    }
    let mut warnings =
        admission::mutate(call, Operation::Update, Some(&mut made), Some(&current), dry_run).await?;
    strategy::default(resource, &mut made);
    if ownership == Ownership::ByUpdate {
        apply::record_update(call, &mut made, Some(&current));
    }
    strategy::validate(&call.cluster, resource, &made, Some(&current))?;
    warnings
        .extend(admission::validate(call, Operation::Update, Some(&made), Some(&current), dry_run).await?);
    let from = object::version(&current);
    object::set_version(&mut made, from);
    if made == *current {
        return Ok(Some(Reply { answer: call.object(200, (*current).clone()), warnings }));
    }
    if dry_run {
        return Ok(Some(Reply { answer: call.object(200, made), warnings }));
    }
    let is_last_finalizer = object::terminating(&made)
        && !object::has_finalizers(&made)
        && made["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0;
    if is_last_finalizer {
        let name = (object::namespace(&made).to_owned(), object::name(&made).to_owned());
        call.cluster.remove(&resource.collection(), &name);
        return Ok(Some(Reply { answer: call.object(200, made), warnings }));
    }
    Ok(call
        .cluster
        .replace(resource, from, made)
        .map(|stored| Reply { answer: call.object(200, (*stored).clone()), warnings }))
}

fn check_preconditions(call: &Call, current: &Value, made: &Value) -> Result<()> {
    let resource = &call.resource;
    let uid = object::uid(made);
    if !uid.is_empty() && uid != object::uid(current) {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{}/{}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            resource.plural,
            call.namespace(),
            call.name(),
            object::uid(current)
        );
        return Err(Status::conflict(&resource.group, &resource.plural, call.name(), &why));
    }
    let version = object::version(made);
    if version != 0 && version != object::version(current) {
        return Err(Status::modified(&resource.group, &resource.plural, call.name()));
    }
    Ok(())
}

/// Puts back what this request may not change.
fn keep(call: &Call, current: &Value, made: &mut Value) -> Result<()> {
    let resource = &call.resource;
    let subresource = call.target.subresource.as_deref();
    match subresource {
        Some("status" | "finalize") if resource.custom.is_some() => {
            let mut kept = current.clone();
            match made.get("status") {
                Some(status) => kept["status"] = status.clone(),
                None => {
                    object::root(&mut kept).shift_remove("status");
                }
            }
            if let Some(managed) = made["metadata"].get("managedFields") {
                kept["metadata"]["managedFields"] = managed.clone();
            }
            *made = kept;
        }
        Some("status") => {
            let status = made["status"].clone();
            let metadata = made["metadata"].clone();
            *made = current.clone();
            made["status"] = status;
            made["metadata"] = metadata;
        }
        Some("ephemeralcontainers") => {
            let containers = made["spec"]["ephemeralContainers"].clone();
            *made = current.clone();
            made["spec"]["ephemeralContainers"] = containers;
        }
        Some("finalize") => {}
        _ if resource.status => match current.get("status") {
            Some(status) => made["status"] = status.clone(),
            None => {
                object::root(made).shift_remove("status");
            }
        },
        _ => {}
    }
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match current["metadata"].get(key) {
            Some(value) => object::set_meta(made, key, value.clone()),
            None => object::remove_meta(made, key),
        }
    }
    for key in ["name", "namespace"] {
        if object::meta(made, key) != object::meta(current, key) {
            let cause =
                Cause::invalid(format!("metadata.{key}"), &made["metadata"][key], "field is immutable");
            return Err(Status::invalid(&resource.group, &resource.kind, call.name(), &[cause]));
        }
    }
    if object::terminating(current) {
        let old = current["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let new = made["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if new.iter().any(|finalizer| !old.contains(finalizer)) {
            let why = "no new finalizers can be added if the object is being deleted";
            let cause = Cause::forbidden("metadata.finalizers", why);
            return Err(Status::invalid(&resource.group, &resource.kind, call.name(), &[cause]));
        }
    }
    if resource.is("", "services") {
        keep_addresses(current, made);
    }
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") && !made["status"].is_object() {
        custom::default(made);
    }
    Ok(())
}

/// A PUT of a service that leaves its addresses out keeps them.
fn keep_addresses(current: &Value, made: &mut Value) {
    if made["spec"]["type"] == "ExternalName" || !made["spec"].is_object() {
        return;
    }
    let spec = object::child(object::root(made), "spec");
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = current["spec"].get(key) {
            object::default(spec, key, value.clone());
        }
    }
    let ports = current["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in object::items(spec, "ports") {
        let old = ports.iter().find(|old| {
            old.get("port") == port.get("port")
                && old.get("protocol").unwrap_or(&json!("TCP"))
                    == port.get("protocol").unwrap_or(&json!("TCP"))
        });
        if let Some(number) = old.and_then(|old| old.get("nodePort")) {
            object::default(port, "nodePort", number.clone());
        }
    }
}

/// A change of anything but metadata and status raises the generation.
fn count_generation(call: &Call, current: &Value, made: &mut Value) {
    if !call.resource.counts_generations() {
        return;
    }
    let content = |object: &Value| {
        let mut content = object.clone();
        let root = object::root(&mut content);
        root.shift_remove("metadata");
        if call.resource.status {
            root.shift_remove("status");
        }
        content
    };
    if content(current) != content(made) {
        let generation = current["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
        object::set_meta(made, "generation", generation.into());
    }
}
