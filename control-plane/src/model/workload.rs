//! Workloads: Pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Name;
use crate::source::Origin;

/// A Pod.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: Name,
    /// Its addresses; the first is its INSTANCE_IP. Empty until Kubernetes gave it one.
    pub ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The Node that it runs on, once it is scheduled.
    pub node: Option<String>,
    /// The service account it runs as.
    pub service_account: String,
    /// Container ports that have a name.
    pub named_ports: BTreeMap<String, u16>,
    /// Whether it is ready for traffic.
    pub ready: bool,
    /// Whether it has a sidecar; see [`Sidecars`](crate::model::Sidecars).
    pub sidecar: bool,
    /// Name of the Deployment, StatefulSet or the like that it belongs to; its own when there is none.
    pub controller: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl Workload {
    /// Istio's canonical name: label `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, else the name of
    /// the controller.
    pub fn canonical_name(&self) -> &str {
        self.first_label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
            .unwrap_or(&self.controller)
    }

    /// Istio's canonical revision: label `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`,
    /// else `latest`.
    pub fn canonical_revision(&self) -> &str {
        self.first_label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
            .unwrap_or("latest")
    }

    /// Its SPIFFE identity in `trust_domain`.
    pub fn spiffe_id(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.name.namespace, self.service_account)
    }

    fn first_label(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.labels.get(*key)).map(String::as_str)
    }
}
