//! What a webhook answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::status::Status;

/// An answer that could be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) patch: Option<json_patch::Patch>,
    pub(super) warnings: Vec<String>,
    /// `status`, null if there is none.
    pub(super) status: Value,
}

/// Reads an `AdmissionReview` that answers the request `uid`.
pub(super) fn read(review: &Value, uid: &str) -> Result<Answer, String> {
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != "admission.k8s.io/v1" {
        return invalid(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            review["apiVersion"].as_str().unwrap_or("/"),
            review["kind"].as_str().unwrap_or_default()
        ));
    }
    let response = &review["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".to_owned());
    }
    let answered = response["uid"].as_str().unwrap_or_default();
    if answered != uid {
        return invalid(format!("expected response.uid={uid:?}, got {answered:?}"));
    }
    let text = response["patch"].as_str().unwrap_or_default();
    let patch = match (text, response["patchType"].as_str()) {
        ("", None) => None,
        ("", Some(_)) => {
            return invalid("webhook returned response.patchType but not response.patch".to_owned());
        }
        (_, None) => {
            return invalid("webhook returned response.patch but not response.patchType".to_owned());
        }
        (text, Some("JSONPatch")) => {
            let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
            Some(serde_json::from_slice(&bytes).map_err(|error| error.to_string())?)
        }
        (_, Some(other)) => {
            return invalid(format!("webhook returned invalid response.patchType of {other:?}"));
        }
    };
    let warnings = response["warnings"].as_array().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"] == true,
        patch,
        warnings: warnings.filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        status: response["status"].clone(),
    })
}

/// What the client gets when the webhook `name` says no.
pub(super) fn denial(name: &str, status: &Value) -> Status {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let why = if text("message").is_empty() { text("reason") } else { text("message") };
    let message = match why {
        "" => format!("admission webhook {name:?} denied the request without explanation"),
        why => format!("admission webhook {name:?} denied the request: {why}"),
    };
    let code = status["code"].as_u64().filter(|code| (400..600).contains(code)).unwrap_or(400);
    let mut denial = Status::new(u16::try_from(code).unwrap_or(400), text("reason"), message);
    denial.details = status.get("details").map(|details| Box::new(details.clone()));
    denial
}

/// Applies a patch; the error is what a real server says.
pub(super) fn apply(patch: &json_patch::Patch, object: &mut Value) -> Result<(), String> {
    json_patch::patch(object, patch).map_err(|error| {
        let operation = patch.get(error.operation).and_then(|one| serde_json::to_value(one).ok());
        let operation = operation.unwrap_or_default();
        let (name, path) = (operation["op"].as_str().unwrap_or_default(), operation["path"].as_str());
        let path = path.unwrap_or_default();
        match name {
            "test" => format!("testing value {path} failed: test failed"),
            name => format!("{name} operation does not apply: doc is missing path: {path}: missing value"),
        }
    })
}
