//! Patch: JSON patch, merge patch, strategic merge patch; server-side apply goes its own way.

use serde_json::Value;

use crate::apply::{self, Ownership};
use crate::dispatch::Call;
use crate::http::body::{self, PatchType};
use crate::http::respond::Reply;
use crate::object;
use crate::schema::fields;
use crate::status::{Result, Status};
use crate::verbs::{strategic, update};

pub(crate) async fn patch(call: &Call) -> Result<Reply> {
    let dry_run = call.query.dry_run("PatchOptions")?;
    let validation = call.query.field_validation("PatchOptions")?;
    let kind = body::patch_type(&call.resource, &call.content_type)?;
    let patch = body::parse(&call.content_type, &call.body)
        .map_err(|why| Status::bad_request(format!("error decoding patch: {why}")))?;
    if kind == PatchType::Apply {
        return apply::apply(call, patch, dry_run).await;
    }
    let patched = |current: &Value| apply_patch(call, kind, current, &patch);
    // Unknown fields are told once; the patched object is checked again in each attempt.
    let current = call.cluster.get(&call.resource.collection(), call.namespace(), call.name());
    let current = current.ok_or_else(|| call.not_found())?;
    let mut preview = patched(&current)?;
    let warnings = fields::check(&call.cluster, &call.resource, &mut preview, validation)?;
    update::change(call, dry_run, warnings, Ownership::ByUpdate, |current| {
        let mut made = patched(current)?;
        body::check_type(&call.resource, &mut made)?;
        fields::check(&call.cluster, &call.resource, &mut made, crate::http::query::FieldValidation::Ignore)?;
        Ok(made)
    })
    .await
}

fn apply_patch(call: &Call, kind: PatchType, current: &Value, patch: &Value) -> Result<Value> {
    let mut made = call.resource.present(current);
    match kind {
        PatchType::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut made, &operations).map_err(|_| Status::patch_rejected())?;
        }
        PatchType::Merge => json_patch::merge(&mut made, patch),
        PatchType::Strategic => strategic::merge(&mut made, patch, &call.resource.kind),
        PatchType::Apply => {}
    }
    if !made.is_object() {
        return Err(Status::patch_rejected());
    }
    if object::name(&made) != call.name() {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(&made),
            call.name()
        )));
    }
    Ok(made)
}
