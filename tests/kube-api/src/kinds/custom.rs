//! What a CustomResourceDefinition says: the resources that it adds, its schema, its life.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Resource;
use crate::object;
use crate::status::Cause;

/// What one version of a definition says about its objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub(crate) list_kind: String,
    /// `openAPIV3Schema`.
    pub(crate) schema: Value,
    /// `additionalPrinterColumns`.
    pub(crate) columns: Vec<Value>,
    /// Dotted paths of `selectableFields`.
    pub(crate) selectable_fields: Vec<String>,
}

/// One resource for each served version.
pub(crate) fn resources(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions
        .filter(|version| version["served"] == true)
        .map(|version| Resource {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            kind: text(&names["kind"]),
            plural: text(&names["plural"]),
            singular: text(&names["singular"]),
            namespaced: spec["scope"] == "Namespaced",
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            status: version["subresources"].get("status").is_some(),
            review: false,
            custom: Some(Arc::new(Definition {
                list_kind: text(&names["listKind"]),
                schema: version["schema"]["openAPIV3Schema"].clone(),
                columns: version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
                selectable_fields: version["selectableFields"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
                    .collect(),
            })),
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// Fills in what the server fills in, with a status that says nothing yet.
pub(crate) fn default(definition: &mut Value) {
    let spec = object::child(object::root(definition), "spec");
    object::default(spec, "conversion", json!({"strategy": "None"}));
    let names = object::child(spec, "names");
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    object::default(names, "singular", kind.to_lowercase());
    object::default(names, "listKind", format!("{kind}List"));
    let stored: Vec<Value> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    object::default(
        object::root(definition),
        "status",
        json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}),
    );
}

/// The conditions that say that the definition's resources are served now.
pub(crate) fn establish(definition: &mut Value) {
    let now = object::now();
    let names = definition["spec"]["names"].clone();
    definition["status"]["acceptedNames"] = names;
    definition["status"]["conditions"] = json!([
        {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now, "reason": "NoConflicts",
         "message": "no conflicts found"},
        {"type": "Established", "status": "True", "lastTransitionTime": now, "reason": "InitialNamesAccepted",
         "message": "the initial names have been accepted"},
    ]);
}

pub(crate) fn is_established(definition: &Value) -> bool {
    definition["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

/// Marks a definition that is being deleted.
pub(crate) fn terminate(definition: &mut Value) {
    let now = object::now();
    object::set_meta(definition, "deletionTimestamp", now.as_str().into());
    object::set_meta(definition, "finalizers", json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let terminating = json!({"type": "Terminating", "status": "True", "lastTransitionTime": now,
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"});
    if let Some(conditions) = definition["status"]["conditions"].as_array_mut() {
        conditions.push(terminating);
    }
}

/// What is wrong with a definition.
pub(crate) fn validate(definition: &Value) -> Vec<Cause> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if object::name(definition) != expected {
        let name = Value::from(object::name(definition));
        causes.push(Cause::invalid("metadata.name", &name, "must be spec.names.plural+\".\"+spec.group"));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let value = spec["versions"].clone();
        causes.push(Cause::invalid(
            "spec.versions",
            &value,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        // With one version the real server speaks of the field that its first API version had.
        let root = if versions.len() == 1 {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{index}].schema.openAPIV3Schema")
        };
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_object() {
            structural(schema, &root, true, &mut causes);
        } else {
            causes.push(Cause::required(
                format!("spec.versions[{index}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
        }
    }
    causes
}

/// A structural schema says the type of everything that it describes.
fn structural(schema: &Value, path: &str, is_root: bool, causes: &mut Vec<Cause>) {
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if text(&schema["type"]).is_empty() && !free {
        let why = match is_root {
            true => "must not be empty at the root",
            false if schema.get("items").is_some() => "must not be empty for specified array items",
            false => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(format!("{path}.type"), why));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        structural(property, &format!("{path}.properties[{name}]"), false, causes);
    }
    if schema["items"].is_object() {
        structural(&schema["items"], &format!("{path}.items"), false, causes);
    }
    if schema["additionalProperties"].is_object() {
        structural(&schema["additionalProperties"], &format!("{path}.additionalProperties"), false, causes);
    }
}
