//! Create.

use serde_json::Value;

use crate::admission::{self, Operation};
use crate::apply::{self, Ownership};
use crate::cluster::Cluster;
use crate::dispatch::Call;
use crate::http::body;
use crate::http::respond::Reply;
use crate::kinds::{Collection, Resource};
use crate::object;
use crate::schema::fields;
use crate::status::{Result, Status};
use crate::strategy;

pub(crate) async fn create(call: &Call) -> Result<Reply> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let validation = call.query.field_validation("CreateOptions")?;
    let mut object = body::object(&call.resource, &call.content_type, &call.body)?;
    let warnings = fields::check(&call.cluster, &call.resource, &mut object, validation)?;
    let created = store_new(call, object, dry_run, warnings, Ownership::ByUpdate).await?;
    Ok(created)
}

/// The rest of a create, from the decoded object on. Server-side apply comes this way too.
pub(crate) async fn store_new(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    mut warnings: Vec<String>,
    ownership: Ownership,
) -> Result<Reply> {
    let resource = &call.resource;
    place(resource, call.namespace(), &mut object)?;
    check_namespace(&call.cluster, resource, call.namespace())?;
    strategy::default(resource, &mut object);
    admit(resource, &mut object);
    if ownership == Ownership::ByUpdate {
        apply::record_update(call, &mut object, None);
    }
    warnings.extend(admission::mutate(call, Operation::Create, Some(&mut object), None, dry_run).await?);
    strategy::default(resource, &mut object);
    admit(resource, &mut object);
    if ownership == Ownership::ByUpdate {
        apply::record_update(call, &mut object, None);
    }
    strategy::before_create(&call.cluster, resource, &mut object)?;
    strategy::validate(&call.cluster, resource, &object, None)?;
    warnings.extend(admission::validate(call, Operation::Create, Some(&object), None, dry_run).await?);
    let stored = if dry_run {
        let name = object::name(&object);
        if call.cluster.get(&resource.collection(), call.namespace(), name).is_some() {
            return Err(Status::already_exists(&resource.group, &resource.plural, name));
        }
        object
    } else {
        (*call.cluster.create(resource, object)?).clone()
    };
    Ok(Reply { answer: call.object(201, stored), warnings })
}

/// The built-in admission plugins.
fn admit(resource: &Resource, object: &mut Value) {
    if resource.is("", "pods") {
        strategy::mount_service_account_token(object);
    }
}

/// The namespace of the path and that of the object are one.
pub(crate) fn place(resource: &Resource, namespace: &str, object: &mut Value) -> Result<()> {
    if !resource.namespaced {
        object::remove_meta(object, "namespace");
        return Ok(());
    }
    let own = object::namespace(object);
    if !own.is_empty() && own != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    object::set_meta(object, "namespace", namespace.into());
    Ok(())
}

fn check_namespace(cluster: &Cluster, resource: &Resource, namespace: &str) -> Result<()> {
    if !resource.namespaced {
        return Ok(());
    }
    let Some(stored) = cluster.get(&Collection::new("", "namespaces"), "", namespace) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if object::terminating(&stored) {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Status::forbidden(&resource.group, &resource.plural, "", &why));
    }
    Ok(())
}
