//! Kubernetes' `Status` object: how every request that fails is answered.
//!
//! The texts are those of a real API server, because clients (and people) look at them.

use serde_json::{Value, json};

/// The result of everything that a request may do.
pub(crate) type Result<T> = std::result::Result<T, Status>;

/// A failure, as `meta/v1 Status` tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// `reason`: one word for machines; empty when the server gives none.
    pub reason: String,
    /// `message`: for people.
    pub message: String,
    /// `details`, as it goes out.
    pub details: Option<Box<Value>>,
    /// `metadata.continue`: how an expired list may go on all the same.
    pub go_on: Option<String>,
}

/// One entry of `details.causes`: what is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    /// For instance `FieldValueInvalid`.
    pub(crate) reason: &'static str,
    /// The text after the field's path.
    pub(crate) message: String,
    /// Path of the field.
    pub(crate) field: String,
}

impl Cause {
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {value}: {}", why.as_ref());
        Cause { reason: "FieldValueInvalid", message, field: field.into() }
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Cause { reason: "FieldValueRequired", message, field: field.into() }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Cause { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Cause { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    fn to_json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

/// `configmaps`, `leases.coordination.k8s.io`: how messages name a resource or a kind of a group.
pub(crate) fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// `details` with only the keys that have a value.
fn details(name: &str, group: &str, kind: &str, causes: &[Cause]) -> Value {
    let mut details = serde_json::Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(key.into(), value.into());
        }
    }
    if !causes.is_empty() {
        details.insert("causes".into(), causes.iter().map(Cause::to_json).collect());
    }
    Value::Object(details)
}

impl Status {
    pub(crate) fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Status { code, reason: reason.into(), message: message.into(), details: None, go_on: None }
    }

    fn detailed(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Status::new(400, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    /// What an authorizer refuses: `what` is for instance `services is forbidden: User …`.
    pub(crate) fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = qualified(resource, group);
        let subject = if name.is_empty() { subject } else { format!("{subject} {name:?}") };
        Status::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).detailed(details(
            name,
            group,
            resource,
            &[],
        ))
    }

    pub(crate) fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Status::new(404, "NotFound", format!("{} {name:?} not found", qualified(resource, group)))
            .detailed(details(name, group, resource, &[]))
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Status::new(405, "MethodNotAllowed", message).detailed(json!({}))
    }

    pub(crate) fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Status::new(409, "AlreadyExists", format!("{} {name:?} already exists", qualified(resource, group)))
            .detailed(details(name, group, resource, &[]))
    }

    pub(crate) fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = qualified(resource, group);
        Status::new(409, "Conflict", format!("Operation cannot be fulfilled on {subject} {name:?}: {why}"))
            .detailed(details(name, group, resource, &[]))
    }

    /// A stale `resourceVersion`.
    pub(crate) fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(group, resource, name, why)
    }

    /// Server-side apply met other owners. Each owner comes with its fields.
    pub(crate) fn apply_conflicts(owners: &[(String, Vec<String>)]) -> Self {
        let count: usize = owners.iter().map(|(_, fields)| fields.len()).sum();
        let noun = if count == 1 { "conflict" } else { "conflicts" };
        let mut parts = Vec::new();
        let mut causes = Vec::new();
        for (owner, fields) in owners {
            match fields.as_slice() {
                [one] if count == 1 => parts.push(format!("conflict with {owner}: {one}")),
                fields => parts.push(format!(
                    "conflicts with {owner}:{}",
                    fields.iter().map(|field| format!("\n- {field}")).collect::<String>()
                )),
            }
            causes.extend(fields.iter().map(|field| Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {owner}"),
                field: field.clone(),
            }));
        }
        let message = format!("Apply failed with {count} {noun}: {}", parts.join("\n"));
        Status::new(409, "Conflict", message).detailed(details("", "", "", &causes))
    }

    /// A version of the past that is not kept any more.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Status::new(410, "Expired", message)
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Status::new(415, "UnsupportedMediaType", message)
    }

    /// `kind` is the kind (for an object) or the resource (for a precondition); `causes` must not be empty.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let texts = match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        Status::new(422, "Invalid", format!("{} {name:?} is invalid: {texts}", qualified(kind, group)))
            .detailed(details(name, group, kind, causes))
    }

    /// A patch that cannot be applied to what is stored.
    pub(crate) fn patch_rejected() -> Self {
        Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
            .detailed(json!({}))
    }

    pub(crate) fn storage_initializing() -> Self {
        Status::new(429, "TooManyRequests", "storage is (re)initializing")
            .detailed(json!({"retryAfterSeconds": 1}))
    }

    /// An error of the server itself.
    pub(crate) fn internal(message: &str) -> Self {
        Status::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .detailed(json!({"causes": [{"message": message}]}))
    }

    /// A list at a version that does not exist yet.
    pub(crate) fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        Status::new(504, "Timeout", message).detailed(json!({"causes": causes, "retryAfterSeconds": 1}))
    }

    /// The value of the header `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }

    /// The object as it goes out.
    pub fn to_json(&self) -> Value {
        let mut object = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"});
        if let Some(token) = &self.go_on {
            object["metadata"]["continue"] = token.as_str().into();
        }
        object["message"] = self.message.as_str().into();
        if !self.reason.is_empty() {
            object["reason"] = self.reason.as_str().into();
        }
        if let Some(details) = &self.details {
            object["details"] = (**details).clone();
        }
        object["code"] = self.code.into();
        object
    }
}

/// The answer to a delete that leaves nothing to show.
pub(crate) fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = details(name, group, resource, &[]);
    details["uid"] = uid.into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
