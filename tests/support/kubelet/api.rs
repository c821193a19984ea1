//! Requests to the API server, as the administrator: over HTTPS, so that they are admitted as everybody's are.

use std::net::SocketAddr;
use std::path::Path;

use outrigger_kube_api::ApiServer;
use serde_json::Value;

use super::sandbox::text;
use super::workload;
use crate::client::{RawClient, Tls};
use crate::netns::NetPod;

/// A client of the API server.
#[derive(Debug, Clone)]
pub struct ApiClient {
    /// Where it calls from.
    node: NetPod,
    address: SocketAddr,
    token: String,
    tls: Tls,
}

impl ApiClient {
    /// A client in `node`; a file with the API server's certificate is left in `folder`.
    pub fn new(server: &ApiServer, node: &NetPod, folder: &Path) -> Self {
        let roots = folder.join("api-server.pem");
        std::fs::write(&roots, server.authority()).expect("write the certificate");
        let address = server.address();
        let tls = Tls::trusting_file(&roots, &address.ip().to_string());
        ApiClient { node: node.clone(), address, token: server.administrator_token().to_owned(), tls }
    }

    /// `POST`: what was created.
    ///
    /// # Errors
    /// The API server's message.
    pub fn create(&self, collection: &str, object: &Value) -> Result<Value, String> {
        self.call("POST", collection, "application/json", object)?.done()
    }

    /// Creates an object, or replaces the one of its name, unless its namespace is gone or somebody else is quicker: a controller
    /// looks again.
    ///
    /// # Errors
    /// Another of the API server's messages.
    pub(crate) fn put(&self, collection: &str, object: &Value, is_there: bool) -> Result<(), String> {
        let path = format!("{collection}/{}", text(&object["metadata"]["name"]));
        let (method, path) = if is_there { ("PUT", path.as_str()) } else { ("POST", collection) };
        let answer = self.call(method, path, "application/json", object)?;
        if matches!(answer.status, 404 | 409) { Ok(()) } else { answer.done().map(drop) }
    }

    /// Creates a Pod of an owner's template: what was admitted.
    ///
    /// # Errors
    /// The API server's message.
    pub(crate) fn create_pod(&self, owner: &Value) -> Result<Value, String> {
        let pod = workload::pod_of(owner);
        self.create(&format!("/api/v1/namespaces/{}/pods", text(&pod["metadata"]["namespace"])), &pod)
    }

    /// `PATCH` of the status.
    ///
    /// # Errors
    /// The API server's message.
    pub fn patch_status(&self, path: &str, status: &Value) -> Result<Value, String> {
        let patch = serde_json::json!({"status": status});
        self.call("PATCH", &format!("{path}/status"), "application/merge-patch+json", &patch)?.done()
    }

    /// `DELETE`; without a time it is the object's own.
    ///
    /// # Errors
    /// The API server's message.
    pub fn delete(&self, path: &str, grace_period_s: Option<u64>) -> Result<Value, String> {
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace_period_s});
        self.call("DELETE", path, "application/json", &options)?.done()
    }

    fn call(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Answer, String> {
        let (address, token, body) = (self.address, &self.token, body.to_string());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             accept: application/json\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.node.enter(0, || {
            let mut client = RawClient::connect_tls(address, &self.tls)?;
            client.send(request.as_bytes());
            client.response()
        });
        let answer = answer.map_err(|error| format!("{method} {path}: {error}"))?;
        let object = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(Answer { request: format!("{method} {path}"), status: answer.status, object })
    }
}

/// What the API server answers.
struct Answer {
    request: String,
    status: u16,
    object: Value,
}

impl Answer {
    fn done(self) -> Result<Value, String> {
        match self.status {
            200..300 => Ok(self.object),
            status => Err(format!("{}: {status} {}", self.request, self.object["message"])),
        }
    }
}
