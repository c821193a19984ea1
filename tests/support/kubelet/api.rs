//! Requests to the API server, as the administrator: over HTTPS, so that they are admitted as everybody's are.

use std::net::SocketAddr;
use std::path::Path;

use outrigger_kube_api::ApiServer;
use serde_json::Value;

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
        self.call("POST", collection, "application/json", object)
    }

    /// `PATCH` of the status.
    ///
    /// # Errors
    /// The API server's message.
    pub fn patch_status(&self, path: &str, status: &Value) -> Result<Value, String> {
        let patch = serde_json::json!({"status": status});
        self.call("PATCH", &format!("{path}/status"), "application/merge-patch+json", &patch)
    }

    /// `DELETE`; without a time it is the object's own.
    ///
    /// # Errors
    /// The API server's message.
    pub fn delete(&self, path: &str, grace_period_s: Option<u64>) -> Result<Value, String> {
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace_period_s});
        self.call("DELETE", path, "application/json", &options)
    }

    fn call(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Value, String> {
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
        let object: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status {
            200..300 => Ok(object),
            status => Err(format!("{method} {path}: {status} {}", object["message"])),
        }
    }
}
