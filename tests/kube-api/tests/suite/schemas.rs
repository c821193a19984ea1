//! Kubernetes' own kinds, checked with their own schemas (`scripts/install-tools.sh` installs them).

use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

use crate::client::{Client, config_map};
use crate::tools;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that checks fields; `None`, with a word about it, when it cannot.
fn start() -> Option<ApiServer> {
    let server = ApiServer::start();
    if !server.checks_fields() {
        tools::skip("Kubernetes' schemas are not installed; run scripts/install-tools.sh");
        return None;
    }
    Some(server)
}

#[tokio::test]
async fn unknown_fields_are_dropped_warned_about_or_refused() {
    let Some(server) = start() else { return };
    let client = Client::new(&server);
    let mut map = config_map("unk", json!({"key": "x"}));
    map["metadata"]["nope"] = true.into();
    map["bogus"] = 1.into();
    let strict = client.post(&format!("{MAPS}?fieldValidation=Strict"), &map).await;
    assert_eq!(
        strict.failure(),
        (
            400,
            "BadRequest",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \
             \"metadata.nope\", unknown field \"bogus\""
        )
    );
    for query in ["", "&fieldValidation=Warn"] {
        let warned = client.post(&format!("{MAPS}?dryRun=All{query}"), &map).await;
        assert_eq!(
            warned.warnings(),
            ["299 - \"unknown field \\\"metadata.nope\\\"\"", "299 - \"unknown field \\\"bogus\\\"\""]
        );
        assert!(warned.ok().get("bogus").is_none());
    }
    let ignored = client.post(&format!("{MAPS}?dryRun=All&fieldValidation=Ignore"), &map).await;
    assert!(ignored.warnings().is_empty());
    assert!(ignored.ok()["metadata"].get("nope").is_none());
}

#[tokio::test]
async fn a_wrong_type_is_told_as_go_tells_it() {
    let Some(server) = start() else { return };
    let client = Client::new(&server);
    assert_eq!(
        client.post(MAPS, &config_map("wt", json!({"a": 1}))).await.failure().2,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct \
         field ConfigMap.data of type string"
    );
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": "x"}});
    let message = client.post("/api/v1/namespaces/default/pods", &pod).await.failure().2.to_owned();
    assert!(
        message.ends_with("json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"),
        "{message}"
    );
}

#[tokio::test]
async fn a_field_that_must_be_there_is_asked_for() {
    let Some(server) = start() else { return };
    let service = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}]}});
    let answer = Client::new(&server).post("/api/v1/namespaces/default/pods", &service).await;
    assert_eq!(answer.causes(), [("spec.containers[0].volumeMounts[0].mountPath", "Required value")]);
}

#[tokio::test]
async fn what_a_webhook_makes_of_an_object_is_checked() {
    use crate::webhook::{Webhook, patch, respond};
    let Some(server) = start() else { return };
    let client = Client::new(&server);
    let create = async |operation: Value| {
        let webhook = Webhook::start(move |review| respond(review, patch(&json!([operation.clone()])))).await;
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration", "metadata": {"generateName": "w-"},
            "webhooks": [{"name": "w.mesh.example.dev", "clientConfig": webhook.client_config(),
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                "sideEffects": "None", "admissionReviewVersions": ["v1"]}]});
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        client.post(path, &configuration).await.ok();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let answer = client.post("/api/v1/namespaces/default/pods", &pod).await;
        client.delete(path).await.ok();
        answer
    };
    let wrong = create(json!({"op": "replace", "path": "/spec/containers", "value": "x"})).await;
    assert_eq!(
        wrong.failure(),
        (
            500,
            "InternalError",
            "Internal error occurred: json: cannot unmarshal string into Go struct field PodSpec.spec.containers of \
             type []v1.Container"
        )
    );
    let unknown = create(json!({"op": "add", "path": "/spec/bogus", "value": "x"})).await;
    assert!(unknown.warnings().is_empty());
    assert!(unknown.ok()["spec"].get("bogus").is_none());
}

#[tokio::test]
async fn times_of_a_lease_have_six_digits_with_or_without_schemas() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |time: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
               "spec": {"holderIdentity": "a", "renewTime": time}})
    };
    assert_eq!(
        client.post(leases, &lease("2026-11-21T04:00:00Z")).await.failure(),
        (
            400,
            "BadRequest",
            "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"2026-11-21T04:00:00Z\" as \
             \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\""
        )
    );
    client.post(leases, &lease("2026-11-21T04:00:00.000000Z")).await.ok();
    let patched =
        client.merge(&format!("{leases}/l"), &json!({"spec": {"renewTime": "2026-11-21T04:00:04Z"}})).await;
    let (code, reason, message) = patched.failure();
    assert_eq!((code, reason), (422, "Invalid"));
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{message}");
    assert!(message.ends_with("cannot parse \"Z\" as \".000000\""), "{message}");
    assert_eq!(patched.causes()[0].0, "patch");
}
