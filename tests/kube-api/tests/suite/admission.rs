//! Admission webhooks: who is asked, what, and what becomes of the answer.

use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::custom::{DEFINITIONS, POLICIES, definition, policy};
use crate::webhook::{Webhook, patch, respond};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const PODS: &str = "/api/v1/namespaces/mesh/pods";

/// One webhook for the creation of pods in labelled namespaces; `extra` overrides.
fn mutating(name: &str, client_config: Value, extra: Value) -> Value {
    let mut webhook = json!({"name": format!("{name}.mesh.example.dev"), "clientConfig": client_config,
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"mesh-injection": "enabled"}},
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2});
    for (key, value) in extra.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": [webhook]})
}

fn validating(client_config: Value) -> Value {
    let rule = json!({"operations": ["*"], "apiGroups": ["mesh.example.dev"], "apiVersions": ["*"],
        "resources": ["trafficpolicies"]});
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "check"},
        "webhooks": [{"name": "check.mesh.example.dev", "clientConfig": client_config, "rules": [rule],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2}]})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
}

async fn mesh(server: &ApiServer) -> Client<'_> {
    let client = Client::new(server);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "mesh", "labels": {"mesh-injection": "enabled"}}});
    client.post("/api/v1/namespaces", &namespace).await.ok();
    client
}

/// The answer to the creation of a pod under a webhook that answers so.
async fn create_under(
    script: impl Fn(&Value) -> Option<(u16, String)> + Send + Sync + 'static,
    extra: Value,
) -> Answer {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let webhook = Webhook::start(script).await;
    client.post(MUTATING, &mutating("inject", webhook.client_config(), extra)).await.ok();
    client.post(PODS, &pod("app")).await
}

#[tokio::test]
async fn a_configuration_gets_its_defaults() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let created = client
        .post(MUTATING, &mutating("inject", json!({"url": "https://127.0.0.1:1/"}), json!({})))
        .await
        .ok();
    let webhook = &created["webhooks"][0];
    assert_eq!(
        (&webhook["matchPolicy"], &webhook["reinvocationPolicy"]),
        (&json!("Equivalent"), &json!("Never"))
    );
    assert_eq!((&webhook["objectSelector"], &webhook["failurePolicy"]), (&json!({}), &json!("Fail")));
    assert_eq!(webhook["rules"][0]["scope"], "*");
    let conditions =
        mutating("x", json!({"url": "https://127.0.0.1:1/"}), json!({"matchConditions": [{"name": "a"}]}));
    assert_eq!(client.post(MUTATING, &conditions).await.causes()[0].0, "webhooks[0].matchConditions");
}

#[tokio::test]
async fn a_mutating_webhook_sees_the_pod_and_changes_it() {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let webhook = Webhook::start(|review| {
        let mut response = patch(&json!([
            {"op": "add", "path": "/metadata/annotations", "value": {"injected": "true"}},
            {"op": "add", "path": "/spec/initContainers",
             "value": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}]}]));
        response["warnings"] = json!(["proxy injected by the mesh"]);
        respond(review, response)
    })
    .await;
    client.post(MUTATING, &mutating("inject", webhook.client_config(), json!({}))).await.ok();
    let created = client.post(&format!("{PODS}?fieldManager=test"), &pod("app")).await;
    assert_eq!(created.warnings(), ["299 - \"proxy injected by the mesh\""]);
    let created = created.ok();
    assert_eq!(created["metadata"]["annotations"]["injected"], "true");
    // What the webhook adds gets defaults and the account's token too.
    let proxy = &created["spec"]["initContainers"][0];
    assert_eq!(proxy["imagePullPolicy"], "IfNotPresent");
    assert_eq!(proxy["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(created["spec"]["volumes"].as_array().unwrap().len(), 1);

    let (target, review) = webhook.take().remove(0);
    assert_eq!(target, "/mutate?timeout=2s");
    assert_eq!(
        (&review["kind"], &review["apiVersion"]),
        (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
    );
    let request = &review["request"];
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "pods"}));
    assert_eq!(
        (&request["requestKind"], &request["requestResource"]),
        (&request["kind"], &request["resource"])
    );
    assert_eq!((&request["name"], &request["namespace"]), (&json!("app"), &json!("mesh")));
    assert_eq!((&request["operation"], &request["dryRun"]), (&json!("CREATE"), &json!(false)));
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["oldObject"], Value::Null);
    assert_eq!(
        request["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "test"})
    );
    let object = &request["object"];
    assert!(object["metadata"].get("uid").is_none() && object["metadata"].get("creationTimestamp").is_none());
    assert_eq!(object["status"], json!({}));
    assert_eq!(object["spec"]["restartPolicy"], "Always");
    assert_eq!(object["spec"]["serviceAccountName"], "default");

    let mut generated = pod("");
    generated["metadata"] = json!({"generateName": "app-"});
    client.post(&format!("{PODS}?dryRun=All"), &generated).await.ok();
    let (_, review) = webhook.take().remove(0);
    assert!(review["request"].get("name").is_none());
    assert!(review["request"]["object"]["metadata"].get("name").is_none());
    assert_eq!(review["request"]["dryRun"], true);
    assert_eq!(review["request"]["options"]["dryRun"], json!(["All"]));
}

#[tokio::test]
async fn only_what_the_selectors_pick_is_asked_about() {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let webhook = Webhook::allowing().await;
    let selector = json!({"objectSelector": {"matchExpressions": [
        {"key": "inject", "operator": "NotIn", "values": ["false"]}]}});
    client.post(MUTATING, &mutating("inject", webhook.client_config(), selector)).await.ok();
    client.post("/api/v1/namespaces/default/pods", &pod("outside")).await.ok();
    let mut excluded = pod("excluded");
    excluded["metadata"]["labels"]["inject"] = "false".into();
    client.post(PODS, &excluded).await.ok();
    client.post("/api/v1/namespaces/mesh/configmaps", &crate::client::config_map("a", json!({}))).await.ok();
    assert!(webhook.take().is_empty());
    client.post(PODS, &pod("picked")).await.ok();
    assert_eq!(webhook.take().len(), 1);
    // Neither updates nor subresources are in the rules.
    client.merge(&format!("{PODS}/picked"), &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    client.merge(&format!("{PODS}/picked/status"), &json!({"status": {"phase": "Running"}})).await.ok();
    assert!(webhook.take().is_empty());
}

#[tokio::test]
async fn a_denial_is_told_in_the_words_of_the_webhook() {
    let denied = create_under(
        |review| respond(review, json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "quota is used up"}})),
        json!({}),
    )
    .await;
    assert_eq!(
        denied.failure(),
        (
            403,
            "Forbidden",
            "admission webhook \"inject.mesh.example.dev\" denied the request: quota is used up"
        )
    );
    let plain = create_under(|review| respond(review, json!({"allowed": false})), json!({})).await;
    assert_eq!(
        plain.failure(),
        (400, "", "admission webhook \"inject.mesh.example.dev\" denied the request without explanation")
    );
}

#[tokio::test]
async fn a_broken_answer_is_an_internal_error() {
    let message = async |script: fn(&Value) -> Option<(u16, String)>| {
        let answer = create_under(script, json!({})).await;
        let (code, reason, message) = answer.failure();
        assert_eq!((code, reason), (500, "InternalError"));
        assert_eq!(
            answer.body["details"]["causes"][0]["message"],
            message.trim_start_matches("Internal error occurred: ")
        );
        message.to_owned()
    };
    let calling = "Internal error occurred: failed calling webhook \"inject.mesh.example.dev\": ";
    assert_eq!(
        message(|_| Some((500, "broken".into()))).await,
        format!(
            "{calling}failed to call webhook: an error on the server (\"unknown\") has prevented the request from succeeding"
        )
    );
    assert!(message(|_| Some((200, "\"text\"".into()))).await.starts_with(calling));
    assert_eq!(
        message(|review| respond(review, json!({"allowed": true, "patch": "W10="}))).await,
        format!(
            "{calling}received invalid webhook response: webhook returned response.patch but not response.patchType"
        )
    );
    let uid = message(|review| respond(review, json!({"allowed": true, "uid": "0"}))).await;
    assert!(uid.contains("received invalid webhook response: expected response.uid="), "{uid}");
    assert_eq!(
        message(|review| {
            respond(review, patch(&json!([{"op": "replace", "path": "/spec/doesNotExist/x", "value": 1}])))
        })
        .await,
        "Internal error occurred: replace operation does not apply: doc is missing path: /spec/doesNotExist/x: \
         missing value"
    );
}

#[tokio::test]
async fn a_patch_that_breaks_the_object_is_invalid() {
    let invalid = create_under(
        |review| {
            let container = json!({"name": "UPPER", "image": "a:1"});
            respond(review, patch(&json!([{"op": "add", "path": "/spec/containers/-", "value": container}])))
        },
        json!({}),
    )
    .await;
    assert_eq!(invalid.status, 422);
    assert_eq!(invalid.causes()[0].0, "spec.containers[1].name");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_reached() {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let authority = Webhook::allowing().await.authority.clone();
    let config = json!({"url": format!("https://{address}/mutate"), "caBundle": authority});
    client.post(MUTATING, &mutating("inject", config, json!({}))).await.ok();
    let refused = client.post(PODS, &pod("app")).await;
    assert_eq!(
        refused.failure().2,
        format!(
            "Internal error occurred: failed calling webhook \"inject.mesh.example.dev\": failed to call webhook: \
             Post \"https://{address}/mutate?timeout=2s\": dial tcp {address}: connect: connection refused"
        )
    );
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    client.patch(&format!("{MUTATING}/inject"), "json-patch+json", &ignore).await.ok();
    assert_eq!(client.post(PODS, &pod("app")).await.status, 201);
}

#[tokio::test]
async fn a_slow_webhook_is_given_up() {
    let slow = create_under(|_| None, json!({"timeoutSeconds": 1})).await;
    let (code, _, message) = slow.failure();
    assert_eq!(code, 500);
    assert!(message.ends_with("/mutate?timeout=1s\": context deadline exceeded"), "{message}");
}

#[tokio::test]
async fn the_certificate_of_a_webhook_is_checked() {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let (webhook, other) = (Webhook::allowing().await, Webhook::allowing().await);
    let mut config = webhook.client_config();
    config["caBundle"] = other.authority.as_str().into();
    client.post(MUTATING, &mutating("inject", config, json!({}))).await.ok();
    let message = client.post(PODS, &pod("app")).await.failure().2.to_owned();
    assert!(
        message.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{message}"
    );
    assert!(webhook.take().is_empty());
}

#[tokio::test]
async fn a_webhook_may_be_a_service() {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let webhook = Webhook::allowing().await;
    let config = json!({"service": {"namespace": "mesh", "name": "injector", "path": "/inject"},
        "caBundle": webhook.authority});
    client.post(MUTATING, &mutating("inject", config, json!({}))).await.ok();
    assert!(client.post(PODS, &pod("none")).await.failure().2.contains("service \"injector\" not found"));
    // Through its endpoints.
    server
        .put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "injector", "namespace": "mesh"},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": webhook.address.port()}]}}))
        .unwrap();
    server
        .put(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "injector-1", "namespace": "mesh",
                         "labels": {"kubernetes.io/service-name": "injector"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": webhook.address.port()}]}))
        .unwrap();
    client.post(PODS, &pod("by-endpoints")).await.ok();
    assert_eq!(webhook.take()[0].0, "/inject?timeout=2s");
    // Or where the test says that it is.
    server.remove(&outrigger_kube_api::Collection::new("", "services"), "mesh", "injector");
    server.route_service("mesh", "injector", webhook.address);
    client.post(PODS, &pod("by-route")).await.ok();
    assert_eq!(webhook.take().len(), 1);
}

#[tokio::test]
async fn a_webhook_is_asked_again_after_others() {
    let server = ApiServer::start();
    let client = mesh(&server).await;
    let first = Webhook::allowing().await;
    let second = Webhook::start(|review| {
        respond(review, patch(&json!([{"op": "add", "path": "/metadata/labels/late", "value": "yes"}])))
    })
    .await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    client.post(MUTATING, &mutating("a", first.client_config(), again)).await.ok();
    client.post(MUTATING, &mutating("b", second.client_config(), json!({}))).await.ok();
    client.post(PODS, &pod("app")).await.ok();
    let seen = first.take();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].1["request"]["object"]["metadata"]["labels"]["late"], "yes");
    assert_eq!(second.take().len(), 1);
}

#[tokio::test]
async fn a_validating_webhook_sees_creates_updates_and_deletes() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(DEFINITIONS, &definition()).await.ok();
    let webhook = Webhook::start(|review| {
        let request = &review["request"];
        if request["operation"] == "DELETE" {
            return respond(review, json!({"allowed": false}));
        }
        if request["object"]["spec"]["retries"] != 5 {
            return respond(review, json!({"allowed": true}));
        }
        let causes = json!([{"reason": "FieldValueInvalid", "message": "too many", "field": "spec.retries"}]);
        respond(
            review,
            json!({"allowed": false, "status": {"code": 422, "reason": "Invalid",
            "message": "spec.retries: too many", "details": {"causes": causes}}}),
        )
    })
    .await;
    client.post(VALIDATING, &validating(webhook.client_config())).await.ok();
    let denied = client.post(POLICIES, &policy("denied", json!({"target": "web", "retries": 5}))).await;
    assert_eq!(
        denied.failure(),
        (
            422,
            "Invalid",
            "admission webhook \"check.mesh.example.dev\" denied the request: spec.retries: too many"
        )
    );
    assert_eq!(denied.causes(), [("spec.retries", "too many")]);
    let (_, review) = webhook.take().remove(0);
    assert_eq!(review["request"]["object"]["metadata"]["generation"], 1);
    assert!(review["request"]["object"]["metadata"]["uid"].is_string());

    client.post(POLICIES, &policy("kept", json!({"target": "web"}))).await.ok();
    webhook.take();
    let kept = format!("{POLICIES}/kept");
    client.merge(&format!("{kept}?fieldManager=test"), &json!({"spec": {"retries": 2}})).await.ok();
    let (_, review) = webhook.take().remove(0);
    let request = &review["request"];
    assert_eq!(request["operation"], "UPDATE");
    assert_eq!(
        (&request["object"]["spec"]["retries"], &request["oldObject"]["spec"]["retries"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&request["object"]["metadata"]["generation"], &request["oldObject"]["metadata"]["generation"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(request["options"]["kind"], "UpdateOptions");
    assert_eq!(client.delete(&kept).await.failure().0, 400);
    let (_, review) = webhook.take().remove(0);
    assert_eq!(
        (&review["request"]["object"], &review["request"]["options"]["kind"]),
        (&Value::Null, &json!("DeleteOptions"))
    );
    assert_eq!(review["request"]["oldObject"]["metadata"]["name"], "kept");
    assert_eq!(client.get(&kept).await.status, 200);
}
