//! Fields that the kind does not have: dropped, warned about or refused, as `fieldValidation` says.

use serde_json::Value;

use super::custom;
use crate::cluster::Cluster;
use crate::http::query::FieldValidation;
use crate::kinds::Resource;
use crate::object;
use crate::status::{Result, Status};

/// The fields of `ObjectMeta`.
const METADATA: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Takes unknown fields out of an object and gives back the warnings about them.
pub(crate) fn check(
    cluster: &Cluster,
    resource: &Resource,
    object: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    object::metadata(object).retain(|name, _| {
        let known = METADATA.contains(&name.as_str());
        if !known {
            unknown.push(format!("metadata.{name}"));
        }
        known
    });
    match &resource.custom {
        Some(definition) => {
            let mut schema = definition.schema.clone();
            let properties = object::child(object::root(&mut schema), "properties");
            for name in ["apiVersion", "kind", "metadata"] {
                properties
                    .insert(name.into(), serde_json::json!({"x-kubernetes-preserve-unknown-fields": true}));
            }
            custom::prune(&schema, object, "", &mut unknown);
        }
        None => cluster.schemas.prune(resource, object, &mut unknown)?,
    }
    let texts: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(texts),
        FieldValidation::Strict if texts.is_empty() => Ok(texts),
        FieldValidation::Strict => Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
            texts.join(", "),
            kind = resource.kind,
            version = resource.version,
        ))),
    }
}
