//! What the server does to an object of each kind before it is stored: defaults, fields that only the server writes,
//! validation.

mod pod;
mod service;
mod validate;
mod webhook;
mod workload;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kinds::{Resource, custom};
use crate::object;
use crate::schema::custom as custom_schema;
use crate::status::{Result, Status};

pub(crate) use pod::mount_service_account_token;

/// Fills in what the kind fills in. Safe to run again, as after a webhook has changed the object.
pub(crate) fn default(resource: &Resource, object: &mut Value) {
    if let Some(definition) = &resource.custom {
        custom_schema::default(&definition.schema, object);
        return;
    }
    if !matches!(resource.plural.as_str(), "customresourcedefinitions") {
        object::drop_nulls(object);
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod::default_pod(object),
        ("", "services") => service::default(object),
        ("", "namespaces") => {
            let name = object::name(object).to_owned();
            if !name.is_empty() {
                let labels = object::child(object::metadata(object), "labels");
                labels.insert("kubernetes.io/metadata.name".into(), name.into());
            }
            let root = object::root(object);
            object::default(object::child(root, "spec"), "finalizers", json!(["kubernetes"]));
            object::default(object::child(root, "status"), "phase", "Active");
        }
        ("", "secrets") => {
            object::default(object::root(object), "type", "Opaque");
            merge_string_data(object);
        }
        ("apps" | "batch", _) => workload::default(&resource.plural, object),
        ("discovery.k8s.io", "endpointslices") => {
            for port in object::items(object::root(object), "ports") {
                object::default(port, "protocol", "TCP");
                object::default(port, "name", "");
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            for subject in object::items(object::root(object), "subjects") {
                if subject.get("kind").is_some_and(|kind| kind != "ServiceAccount") {
                    object::default(subject, "apiGroup", "rbac.authorization.k8s.io");
                }
            }
            let root = object::root(object);
            object::default(object::child(root, "roleRef"), "apiGroup", "rbac.authorization.k8s.io");
        }
        ("admissionregistration.k8s.io", _) => webhook::default(&resource.plural, object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => custom::default(object),
        ("networking.k8s.io", "networkpolicies") => default_network_policy(object),
        _ => {}
    }
}

/// `stringData` is how people write a secret; it is stored in `data`.
fn merge_string_data(secret: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(plain)) = object::root(secret).shift_remove("stringData") else { return };
    let data = object::child(object::root(secret), "data");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

fn default_network_policy(policy: &mut Value) {
    let spec = object::child(object::root(policy), "spec");
    object::default(spec, "podSelector", json!({}));
    let mut types = vec!["Ingress"];
    if spec.get("egress").is_some() {
        types.push("Egress");
    }
    object::default(spec, "policyTypes", json!(types));
    for direction in ["ingress", "egress"] {
        for rule in object::items(spec, direction) {
            for port in object::items(rule, "ports") {
                object::default(port, "protocol", "TCP");
            }
        }
    }
}

/// Writes what only the server writes into a new object, and gives it a name if it has none.
pub(crate) fn before_create(cluster: &Cluster, resource: &Resource, object: &mut Value) -> Result<()> {
    if object::name(object).is_empty() {
        let prefix = object::meta(object, "generateName").to_owned();
        if prefix.is_empty() {
            let cause = crate::status::Cause::required("metadata.name", "name or generateName is required");
            return Err(Status::invalid(&resource.group, &resource.kind, "", &[cause]));
        }
        let name = format!("{prefix}{}", object::random_suffix());
        object::set_meta(object, "name", name.into());
    }
    for key in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        object::remove_meta(object, key);
    }
    object::set_meta(object, "uid", object::random_uid().into());
    object::set_meta(object, "creationTimestamp", object::now().into());
    object::remove_meta(object, "generation");
    if resource.counts_generations() {
        object::set_meta(object, "generation", 1.into());
    }
    if resource.status {
        reset_status(resource, object);
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => service::allocate(cluster, object),
        // The name may be new.
        ("", "namespaces") => default(resource, object),
        _ => {}
    }
    Ok(())
}

/// A status in the body of a create is not taken.
fn reset_status(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces" | "nodes") | ("apiextensions.k8s.io", _) => {}
        ("", "pods") => {
            let class = pod::quality_of_service(object);
            object["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        _ if resource.custom.is_some() => {
            object::root(object).shift_remove("status");
        }
        _ => object["status"] = json!({}),
    }
}

/// Checks an object that is about to be stored; `old` is what it replaces.
pub(crate) fn validate(
    cluster: &Cluster,
    resource: &Resource,
    object: &Value,
    old: Option<&Value>,
) -> Result<()> {
    let mut causes = validate::metadata(resource, object);
    match &resource.custom {
        Some(definition) => causes.extend(custom_schema::validate(&definition.schema, object)),
        None => {
            causes.extend(validate::built_in(resource, object, old));
            if causes.is_empty() {
                cluster.schemas.check(resource, object)?;
            }
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&resource.group, &resource.kind, object::name(object), &causes))
}
