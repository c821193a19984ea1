//! Answers: what a handler found, put into the form that the client accepts.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE, VARY, WARNING,
};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::accept::{Accept, Form};
use crate::kinds::Resource;
use crate::object;
use crate::status::Status;
use crate::table;

/// The body of every answer. It fails only where a test cuts a watch.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// What a handler found.
#[derive(Debug)]
pub(crate) enum Answer {
    /// One object.
    Object { code: u16, resource: Arc<Resource>, object: Value },
    /// A list; `metadata` is that of the list.
    List { resource: Arc<Resource>, metadata: Value, items: Vec<Arc<Value>> },
    /// Something that has only one form: a review, a `Status`, discovery.
    Json { code: u16, value: Value },
    /// Discovery in one document.
    Discovery(Value),
    /// Plain text.
    Text { code: u16, text: String },
    /// A stream of events, already in their form.
    Watch(WatchBody),
    /// From here on the connection is a WebSocket.
    WebSocket { accept: String, protocol: &'static str },
}

/// The body of a watch.
pub(crate) struct WatchBody(pub(crate) Body);

impl std::fmt::Debug for WatchBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WatchBody")
    }
}

/// An answer and the warnings that go with it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) warnings: Vec<String>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply { answer, warnings: Vec::new() }
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The whole response.
pub(crate) fn respond(reply: Reply, accept: Accept) -> Response<Body> {
    let (code, value) = match reply.answer {
        Answer::Object { code, resource, object } => (code, present(&resource, &object, accept.form)),
        Answer::List { resource, metadata, items } => {
            (200, present_list(&resource, &metadata, &items, accept.form))
        }
        Answer::Json { code, value } => (code, value),
        Answer::Discovery(value) => return discovery(&value),
        Answer::Text { code, text } => return plain(code, text),
        Answer::WebSocket { accept, protocol } => return websocket(&accept, protocol),
        Answer::Watch(body) => {
            let mut response = Response::new(body.0);
            set(&mut response, CONTENT_TYPE, "application/json");
            set(&mut response, CACHE_CONTROL, "no-cache, private");
            return response;
        }
    };
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    // JSON is YAML.
    set(&mut response, CONTENT_TYPE, if accept.yaml { "application/yaml" } else { "application/json" });
    set(&mut response, CACHE_CONTROL, "no-cache, private");
    for warning in reply.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// A failure. It has the same form whatever the client accepts.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let mut response = Response::new(full(status.to_json().to_string()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, CONTENT_TYPE, "application/json");
    set(&mut response, CACHE_CONTROL, "no-cache, private");
    if let Some(seconds) = status.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// `404 page not found`, as Go's HTTP server says it.
pub(crate) fn no_such_page() -> Answer {
    Answer::Text { code: 404, text: "404 page not found\n".to_owned() }
}

fn websocket(accept: &str, protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    set(&mut response, CONNECTION, "Upgrade");
    set(&mut response, UPGRADE, "websocket");
    set(&mut response, SEC_WEBSOCKET_PROTOCOL, protocol);
    if let Ok(accept) = HeaderValue::from_str(accept) {
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn plain(code: u16, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, CACHE_CONTROL, "no-cache, private");
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn discovery(value: &Value) -> Response<Body> {
    let text = value.to_string();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, text.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let mut response = Response::new(full(text));
    set(&mut response, CONTENT_TYPE, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    set(&mut response, CACHE_CONTROL, "public");
    set(&mut response, VARY, "Accept");
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        response.headers_mut().insert(http::header::ETAG, tag);
    }
    response
}

fn set(response: &mut Response<Body>, name: http::HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// An object in a form.
pub(crate) fn present(resource: &Resource, stored: &Value, form: Form) -> Value {
    match form {
        Form::Plain => resource.present(stored),
        Form::Metadata => metadata_only(stored),
        Form::Table => {
            let metadata = json!({"resourceVersion": object::meta(stored, "resourceVersion")});
            table::table(resource, &metadata, &[stored], true)
        }
    }
}

fn present_list(resource: &Resource, metadata: &Value, items: &[Arc<Value>], form: Form) -> Value {
    match form {
        Form::Plain => {
            let items: Vec<Value> = items.iter().map(|item| resource.present_item(item)).collect();
            json!({"kind": resource.list_kind(), "apiVersion": resource.api_version(), "metadata": metadata,
                   "items": items})
        }
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(|item| metadata_only(item)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                   "items": items})
        }
        Form::Table => {
            let items: Vec<&Value> = items.iter().map(|item| &**item).collect();
            table::table(resource, metadata, &items, true)
        }
    }
}

/// `PartialObjectMetadata`.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
