//! Workloads: Pods, and what WorkloadEntries stand for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Entry, Name};
use crate::source::Origin;

/// How traffic gets to a sidecar: annotation `sidecar.istio.io/interceptionMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interception {
    /// `NONE`: applications call the sidecar by configuration (`http_proxy`), peers dial its port.
    #[default]
    None,
    /// `REDIRECT`: the Pod's connections are captured by the kernel.
    Redirect,
}

/// A Pod, or what a WorkloadEntry stands for.
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
    /// Whether it is being deleted.
    pub is_ending: bool,
    /// Whether it has a sidecar; see [`Sidecars`](crate::model::Sidecars).
    pub sidecar: bool,
    /// Whether gRPC clients in it speak xDS themselves; then it has no sidecar. Annotation `inject.istio.io/templates` with
    /// `grpc-agent` or `grpc-simple`.
    pub proxyless: bool,
    /// How its traffic gets to the sidecar.
    pub interception: Interception,
    /// What a WorkloadEntry says of it; none of a Pod.
    pub entry: Option<Entry>,
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

    /// Istio's description of it, which proxies read for their metrics:
    /// `name;namespace;canonical name;canonical revision;cluster`.
    pub fn description(&self, cluster_name: &str) -> String {
        format!(
            "{};{};{};{};{cluster_name}",
            self.controller,
            self.name.namespace,
            self.canonical_name(),
            self.canonical_revision()
        )
    }

    /// Its SPIFFE identity in `trust_domain`.
    pub fn spiffe_id(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.name.namespace, self.service_account)
    }

    /// Whether its connections are captured for its sidecar.
    pub fn is_captured(&self) -> bool {
        self.sidecar && self.interception == Interception::Redirect
    }

    fn first_label(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.labels.get(*key)).map(String::as_str)
    }
}
