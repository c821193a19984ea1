//! Reading the object in a request's body: JSON, or YAML where a client may send it.

use serde_json::Value;

use crate::kinds::Resource;
use crate::status::{Result, Status};

/// The media types that a patch comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// A merge that knows which lists are keyed.
    Strategic,
    /// Server-side apply.
    Apply,
}

fn media_type(header: &str) -> &str {
    header.split(';').next().unwrap_or_default().trim()
}

/// Reads a JSON or YAML text, whatever it is.
pub(crate) fn parse(content_type: &str, body: &[u8]) -> std::result::Result<Value, String> {
    let is_json =
        body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"{[".contains(byte));
    if is_json || !media_type(content_type).contains("yaml") {
        return serde_json::from_slice(body).map_err(|error| match error.is_eof() {
            true => "json parse error: unexpected end of JSON input".to_owned(),
            false => format!("json parse error: {error}"),
        });
    }
    let text = std::str::from_utf8(body).map_err(|error| format!("yaml: {error}"))?;
    outrigger_xds_api::json::parse_one(text)
        .map(|node| node.to_json())
        .map_err(|error| format!("yaml: {error}"))
}

/// Reads the object of a POST or PUT.
pub(crate) fn object(resource: &Resource, content_type: &str, body: &[u8]) -> Result<Value> {
    match media_type(content_type) {
        "" | "application/json" | "application/yaml" | "*/*" => {}
        _ => {
            let protobuf =
                if resource.custom.is_some() { "" } else { ", application/vnd.kubernetes.protobuf" };
            let accepted = format!("application/json, application/yaml{protobuf}");
            return Err(Status::unsupported_media_type(&accepted));
        }
    }
    let unrecognized = |why: &str| {
        let text = String::from_utf8_lossy(body);
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; {why} ({text})",
            resource.kind
        ))
    };
    let mut object = parse(content_type, body).map_err(|why| unrecognized(&why))?;
    if !object.is_object() {
        return Err(unrecognized("json parse error: the body is no object"));
    }
    check_type(resource, &mut object)?;
    Ok(object)
}

/// The type in the body must be that of the path; what is left out is filled in.
pub(crate) fn check_type(resource: &Resource, object: &mut Value) -> Result<()> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let expected = resource.api_version();
    if !api_version.is_empty() && api_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        let message = if resource.custom.is_some() {
            format!(
                "{kind} in version {:?} cannot be handled as a {}: expected a {}",
                resource.version, resource.kind, resource.kind
            )
        } else {
            let internal = if resource.group.is_empty() { "core" } else { &resource.group };
            format!(
                "{kind} in version {:?} cannot be handled as a {}: converting ({}.{kind}) to ({internal}.{}): \
                 unknown conversion",
                resource.version, resource.kind, resource.version, resource.kind
            )
        };
        return Err(Status::bad_request(message));
    }
    object["apiVersion"] = expected.into();
    object["kind"] = resource.kind.as_str().into();
    Ok(())
}

/// The type of a patch, by its content type.
pub(crate) fn patch_type(resource: &Resource, content_type: &str) -> Result<PatchType> {
    let custom = resource.custom.is_some();
    match media_type(content_type) {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" if !custom => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => {
            let strategic = if custom { "" } else { "application/strategic-merge-patch+json, " };
            Err(Status::unsupported_media_type(&format!(
                "application/json-patch+json, application/merge-patch+json, {strategic}application/apply-patch+yaml"
            )))
        }
    }
}
