//! `AdmissionReview` of `admission.k8s.io/v1`: the question and the answer.
//!
//! The question is read as far as the webhooks need it; the API server adds fields over time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Refusal;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What the API server asks (`AdmissionReview.request`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    /// Identifies the question; the answer carries it.
    pub(crate) uid: String,
    pub(crate) kind: Kind,
    /// The part of the object that changes, for example `status`; empty for the object itself.
    #[serde(default)]
    pub(crate) sub_resource: String,
    /// Empty for objects without one.
    #[serde(default)]
    pub(crate) namespace: String,
    pub(crate) operation: Operation,
    /// Null for a deletion.
    #[serde(default)]
    pub(crate) object: Value,
    /// Null for a creation.
    #[serde(default)]
    pub(crate) old_object: Value,
}

/// The object's kind, in the version of `object`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

/// Reads a question.
///
/// # Errors
/// What is wrong with it, for the API server's log. The text does not show the object.
pub(crate) fn read(body: &[u8]) -> Result<Request, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let review: Review = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| format!("is no {KIND}: {}: {}", error.path(), without_values(error.inner())))?;
    json.end().map_err(|_| format!("is no {KIND}: something follows it"))?;
    if (review.api_version.as_str(), review.kind.as_str()) != (API_VERSION, KIND) {
        return Err(format!("is no {KIND} of {API_VERSION}"));
    }
    if review.request.uid.is_empty() {
        return Err("request.uid: is empty".to_owned());
    }
    Ok(review.request)
}

/// serde's messages quote what they found; an object may hold secrets.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match error.classify() {
        serde_json::error::Category::Data if text.starts_with("missing field") => text,
        serde_json::error::Category::Data => {
            format!("has the wrong type or value at line {} column {}", error.line(), error.column())
        }
        _ => text,
    }
}

/// What the API server is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The object may be stored as it is.
    Allowed,
    /// The object may be stored with these changes, and the user is to be told.
    Patched {
        /// JSON Patch.
        patch: Value,
        warnings: Vec<String>,
    },
    /// The object may not be stored: 422, with the field.
    Refused(Refusal),
}

impl Answer {
    /// The whole `AdmissionReview`.
    pub(crate) fn review(self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": true});
        match self {
            Self::Allowed => {}
            Self::Patched { patch, warnings } => {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(patch.to_string()).into();
                if !warnings.is_empty() {
                    response["warnings"] = warnings.into();
                }
            }
            Self::Refused(Refusal { field, reason }) => {
                let message = match field.as_str() {
                    "" => reason.clone(),
                    field => format!("{field}: {reason}"),
                };
                let cause = json!({"reason": "FieldValueInvalid", "message": reason, "field": field});
                response["allowed"] = false.into();
                response["status"] = json!({
                    "code": 422, "reason": "Invalid", "message": message, "details": {"causes": [cause]},
                });
            }
        }
        json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
    }
}
