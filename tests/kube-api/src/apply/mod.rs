//! Server-side apply: the fields of an object belong to those who set them.
//!
//! A manager that applies owns exactly the fields in its configuration. What it leaves out it gives up, and the field
//! goes when nobody else owns it; what somebody else owns with another value is a conflict, unless it is forced.

pub(crate) mod lists;
mod managers;
mod merge;
pub(crate) mod paths;
mod types;

use serde_json::Value;

use crate::dispatch::Call;
use crate::http::body;
use crate::http::query::FieldValidation;
use crate::http::respond::Reply;
use crate::object;
use crate::schema::fields;
use crate::status::{Cause, Result, Status};
use crate::verbs::{create, update};
use managers::Manager;
use paths::Paths;
use types::Type;

pub(crate) use managers::record_update;

/// Who notes the owners of what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The update itself: what changes belongs to whoever asks.
    ByUpdate,
    /// Apply has done it already.
    ByApply,
}

pub(crate) async fn apply(call: &Call, mut patch: Value, dry_run: bool) -> Result<Reply> {
    if call.query.get("fieldManager").is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    let validation = call.query.field_validation("PatchOptions")?;
    let warnings = check(call, &mut patch, validation)?;
    let force = call.query.flag("force");
    let current = call.cluster.get(&call.resource.collection(), call.namespace(), call.name());
    if current.is_none() {
        if call.target.subresource.is_some() {
            return Err(call.not_found());
        }
        if call.resource.status {
            object::root(&mut patch).shift_remove("status");
        }
        let mut manager = Manager::of(call, true);
        manager.fields = fields_of(call, &patch);
        manager.time = Some(object::now());
        managers::write(&mut patch, vec![manager]);
        return create::store_new(call, patch, dry_run, warnings, Ownership::ByApply).await;
    }
    update::change(call, dry_run, warnings, Ownership::ByApply, |current| {
        applied(call, current, &patch, force)
    })
    .await
}

/// Looks at the configuration before it is merged with anything.
fn check(call: &Call, patch: &mut Value, validation: FieldValidation) -> Result<Vec<String>> {
    let resource = &call.resource;
    let text = |key: &str| patch[key].as_str().unwrap_or_default();
    if text("apiVersion").is_empty() || text("kind").is_empty() {
        let message = format!("invalid object type: {}/, Kind={}", text("apiVersion"), text("kind"));
        return Err(Status::bad_request(message));
    }
    body::check_type(resource, patch)?;
    if patch["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    object::remove_meta(patch, "managedFields");
    object::drop_nulls(patch);
    let place = format!("{}/{}", object::namespace(patch), call.name());
    create::place(resource, call.namespace(), patch)?;
    match object::name(patch) {
        "" => object::set_meta(patch, "name", call.name().into()),
        name if name != call.name() => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.name()
            )));
        }
        _ => {}
    }
    if resource.custom.is_none() {
        return fields::check(&call.cluster, resource, patch, validation);
    }
    match fields::check(&call.cluster, resource, &mut patch.clone(), FieldValidation::Warn)?.first() {
        None => Ok(Vec::new()),
        Some(unknown) => {
            let field = unknown.trim_start_matches("unknown field ").trim_matches('"');
            let message = format!(
                "failed to create typed patch object ({place}; {}, Kind={}): .{field}: field not declared in schema",
                resource.api_version(),
                resource.kind
            );
            Err(Status::new(500, "", message))
        }
    }
}

fn fields_of(call: &Call, configuration: &Value) -> Paths {
    paths::of_object(&Type::of(&call.resource), configuration, managers::scope(call), false)
}

/// The stored object with the configuration applied.
fn applied(call: &Call, current: &Value, patch: &Value, force: bool) -> Result<Value> {
    let kind = Type::of(&call.resource);
    let fields = fields_of(call, patch);
    let mut others = managers::read(current);
    let mut own = Manager::of(call, true);
    let before = others.iter().position(|manager| manager.is_same(&own)).map(|index| others.remove(index));

    let changed: Paths = fields
        .iter()
        .filter(|path| {
            let is_container =
                fields.range((*path).clone()..).nth(1).is_some_and(|next| next.starts_with(path));
            !is_container && paths::get(&kind, current, path) != paths::get(&kind, patch, path)
        })
        .cloned()
        .collect();
    let conflicts: Vec<(String, Vec<String>)> = others
        .iter()
        .map(|other| {
            (other.describe(), other.fields.intersection(&changed).map(|path| paths::display(path)).collect())
        })
        .filter(|(_, fields): &(String, Vec<String>)| !fields.is_empty())
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(Status::apply_conflicts(&conflicts));
    }
    others.iter_mut().for_each(|other| other.fields.retain(|path| !changed.contains(path)));

    let mut made = current.clone();
    merge::merge(&kind, &mut made, patch, managers::scope(call));
    let given_up = before.iter().flat_map(|before| before.fields.difference(&fields));
    // An item goes before what is in it: its keys find it.
    for path in given_up {
        let is_owned = others.iter().any(|other| other.fields.iter().any(|owned| owned.starts_with(path)))
            || fields.iter().any(|owned| owned.starts_with(path));
        if !is_owned {
            paths::remove(&kind, &mut made, path);
        }
    }
    if let Some(version) = patch["metadata"].get("resourceVersion") {
        object::set_meta(&mut made, "resourceVersion", version.clone());
    }

    let is_unchanged = made == *current;
    own.fields = fields;
    own.time = match before {
        // Nothing has happened, or only ownership is shared now.
        Some(before) if is_unchanged && before.fields == own.fields => before.time,
        None if is_unchanged => None,
        _ => Some(object::now()),
    };
    others.push(own);
    managers::write(&mut made, others);
    Ok(made)
}
