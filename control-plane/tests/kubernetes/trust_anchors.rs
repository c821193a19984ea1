//! The root certificate reaches namespaces and webhook configurations, with no right but those of the chart.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_kube_api::{ApiServer, Collection, TokenSpec};
use serde_json::{Value, json};

use crate::world::{control_plane, put, server, until};

const NAME: &str = "outrigger-control-plane-outrigger-system";

/// The rights that the chart gives for this, beside the ones to read the mesh.
const CLUSTER: &str = "
{apiVersion: v1, kind: ServiceAccount, metadata: {name: outrigger-control-plane, namespace: outrigger-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: outrigger}
rules:
- {apiGroups: [''], resources: [namespaces], verbs: [get, list, watch]}
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  resourceNames: [outrigger-control-plane-outrigger-system]
  verbs: [get, update, patch]
- {apiGroups: [''], resources: [configmaps], verbs: [create]}
- apiGroups: ['']
  resources: [configmaps]
  resourceNames: [outrigger-ca-root-cert]
  verbs: [get, update, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: outrigger}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: outrigger}
subjects: [{kind: ServiceAccount, name: outrigger-control-plane, namespace: outrigger-system}]
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
";

fn webhooks(kind: &str, names: &[&str]) -> Value {
    let webhook = |name: &&str| {
        json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
            "clientConfig": {"service": {"name": "x", "namespace": "outrigger-system"}}})
    };
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": NAME},
        "webhooks": names.iter().map(webhook).collect::<Vec<_>>()})
}

/// The root certificate that a namespace has.
fn root_of(server: &ApiServer, namespace: &str) -> Option<String> {
    let found = server.get(&Collection::new("", "configmaps"), namespace, "outrigger-ca-root-cert")?;
    found["data"]["root-cert.pem"].as_str().map(str::to_owned)
}

fn bundles(server: &ApiServer, plural: &str) -> Vec<Value> {
    let collection = Collection::new("admissionregistration.k8s.io", plural);
    let found = server.get(&collection, "", NAME).unwrap();
    let webhooks = found["webhooks"].as_array().unwrap().iter();
    webhooks.map(|webhook| webhook["clientConfig"]["caBundle"].clone()).collect()
}

#[tokio::test]
async fn the_root_certificate_is_written_and_kept() {
    let server = server();
    put(&server, CLUSTER);
    server.put(webhooks("MutatingWebhookConfiguration", &["a.outrigger.dev", "b.outrigger.dev"])).unwrap();
    let token = server.token(&TokenSpec {
        namespace: "outrigger-system".into(),
        service_account: "outrigger-control-plane".into(),
        audiences: Vec::new(),
        expires_in: 3600,
        pod: None,
    });
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig_with(&server.url(), &token.unwrap())).unwrap();
    let webhook = ["--webhook-address=127.0.0.1:0"];
    let _control_plane = control_plane(&kubeconfig, &folder.path().join("data"), &webhook).await;
    let root = std::fs::read_to_string(folder.path().join("data/root-cert.pem")).unwrap();
    let is_right = |namespace: &str| root_of(&server, namespace).as_deref() == Some(root.as_str());

    for namespace in ["default", "shop", "outrigger-system"] {
        until(namespace, || is_right(namespace)).await;
    }
    assert_eq!(root_of(&server, "kube-system"), None);
    server.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}})).unwrap();
    until("a namespace that comes later", || is_right("late")).await;
    // Taken away, and looked at again with the next change of its namespace.
    assert!(server.remove(&Collection::new("", "configmaps"), "shop", "outrigger-ca-root-cert"));
    let labels = json!({"istio-injection": "enabled"});
    server
        .put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}))
        .unwrap();
    until("the ConfigMap is back", || is_right("shop")).await;

    let bundle = Value::from(STANDARD.encode(&root));
    let mutating = || bundles(&server, "mutatingwebhookconfigurations") == [bundle.clone(), bundle.clone()];
    until("caBundle of both webhooks", mutating).await;
    // The chart is upgraded: it has none; and another kind is installed later.
    server.put(webhooks("MutatingWebhookConfiguration", &["b.outrigger.dev", "c.outrigger.dev"])).unwrap();
    server.put(webhooks("ValidatingWebhookConfiguration", &["a.outrigger.dev"])).unwrap();
    until("caBundle of new webhooks", mutating).await;
    let validating = || bundles(&server, "validatingwebhookconfigurations") == [bundle.clone()];
    until("caBundle of the other kind", validating).await;
}
