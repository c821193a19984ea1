//! An API server with the objects of a [`mesh`](crate::mesh), in the place of a directory.

use std::fs;
use std::path::Path;

use outrigger_kube_api::{ApiServer, TokenSpec};
use outrigger_xds_api::json;
use serde_json::{Value, json};

/// Kinds of rules, with plural and group.
const RULES: [(&str, &str, &str); 9] = [
    ("HTTPRoute", "httproutes", "gateway.networking.k8s.io"),
    ("GRPCRoute", "grpcroutes", "gateway.networking.k8s.io"),
    ("ReferenceGrant", "referencegrants", "gateway.networking.k8s.io"),
    ("VirtualService", "virtualservices", "networking.istio.io"),
    ("DestinationRule", "destinationrules", "networking.istio.io"),
    ("ServiceEntry", "serviceentries", "networking.istio.io"),
    ("WorkloadEntry", "workloadentries", "networking.istio.io"),
    ("WorkloadGroup", "workloadgroups", "networking.istio.io"),
    ("PeerAuthentication", "peerauthentications", "security.istio.io"),
];

/// The definitions of our own kinds, as the chart installs them.
const OWN_KINDS: &str = include_str!("../../charts/outrigger/crds/outrigger.dev.yaml");

/// A running API server that knows every kind that a mesh reads.
#[derive(Debug)]
pub struct Cluster {
    /// The API server, with its switches.
    pub server: ApiServer,
}

impl Cluster {
    /// Starts one, and writes an administrator's kubeconfig to `kubeconfig`.
    #[track_caller]
    pub fn start(kubeconfig: &Path) -> Self {
        let cluster = Self::on(ApiServer::start());
        fs::write(kubeconfig, cluster.server.kubeconfig()).expect("write the kubeconfig");
        cluster
    }

    /// Installs the kinds on a running one.
    #[track_caller]
    pub fn on(server: ApiServer) -> Self {
        for (kind, plural, group) in RULES {
            server.put(definition(kind, plural, group)).expect("install a kind");
        }
        for own in json::parse(OWN_KINDS).expect("YAML") {
            server.put(own.to_json()).expect("install a kind of ours");
        }
        Cluster { server }
    }

    /// Creates or replaces the objects of a YAML text.
    #[track_caller]
    pub fn put(&self, text: &str) {
        for document in json::parse(text).expect("YAML") {
            let object = document.to_json();
            if object.is_null() {
                continue;
            }
            self.server.put(object.clone()).unwrap_or_else(|error| panic!("{object}: {error:?}"));
        }
    }

    /// Writes the token that the kubelet would project into a Pod of the namespace `default`.
    #[track_caller]
    pub fn write_token(&self, file: &Path, pod: &str, service_account: &str) {
        let spec = TokenSpec {
            namespace: "default".into(),
            service_account: service_account.into(),
            audiences: vec!["istio-ca".into()],
            expires_in: 43_200,
            pod: Some(pod.into()),
        };
        let token = self.server.token(&spec).unwrap_or_else(|error| panic!("{pod}: {error:?}"));
        fs::write(file, token).expect("write the token");
    }
}

fn definition(kind: &str, plural: &str, group: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}
