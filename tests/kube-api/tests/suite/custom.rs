//! CustomResourceDefinitions and their objects.

use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

use crate::client::Client;

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const POLICIES: &str = "/apis/mesh.example.dev/v1/namespaces/default/trafficpolicies";

/// The kind of these tests.
pub fn definition() -> Value {
    let condition = json!({"type": "object", "required": ["type", "status"], "properties": {
        "type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"}}});
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["target"], "properties": {
            "target": {"type": "string", "minLength": 1},
            "retries": {"type": "integer", "minimum": 0, "maximum": 5, "default": 1},
            "mode": {"type": "string", "enum": ["Strict", "Permissive"]},
            "weights": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "weight": {"type": "integer"}}}}}},
        "status": {"type": "object", "properties": {
            "observedGeneration": {"type": "integer"},
            "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "items": condition}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "trafficpolicies.mesh.example.dev"},
        "spec": {"group": "mesh.example.dev", "scope": "Namespaced",
            "names": {"kind": "TrafficPolicy", "plural": "trafficpolicies", "shortNames": ["tp"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Retries", "type": "integer", "jsonPath": ".spec.retries"}],
                "schema": {"openAPIV3Schema": schema}}]}})
}

pub fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "mesh.example.dev/v1", "kind": "TrafficPolicy", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_definition_makes_its_kind_served() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    assert_eq!(client.get(POLICIES).await.text, "404 page not found\n");
    let created = client.post(DEFINITIONS, &definition()).await.ok();
    assert_eq!(created["spec"]["names"]["singular"], "trafficpolicy");
    assert_eq!(created["spec"]["names"]["listKind"], "TrafficPolicyList");
    assert_eq!(created["status"]["storedVersions"], json!(["v1"]));
    let path = format!("{DEFINITIONS}/trafficpolicies.mesh.example.dev");
    let established = client.get(&path).await.ok();
    assert_eq!(established["status"]["conditions"][1]["type"], "Established");
    let empty = client.get(POLICIES).await.ok();
    assert_eq!(empty["kind"], "TrafficPolicyList");
    assert_eq!(empty["metadata"]["continue"], "");
    let resources = client.get("/apis/mesh.example.dev/v1").await.ok();
    assert_eq!(resources["resources"][1]["name"], "trafficpolicies/status");

    client.post(POLICIES, &policy("one", json!({"target": "web"}))).await.ok();
    let mut events = client.watch(&format!("{POLICIES}?watch=1")).await;
    assert_eq!(events.next_name().await.0, "ADDED");
    let deleted = client.delete(&path).await.ok();
    assert_eq!(deleted["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(events.next_name().await, ("DELETED".to_owned(), "one".to_owned()));
    assert_eq!(events.next().await, Ok(None));
    assert_eq!(client.get(POLICIES).await.text, "404 page not found\n");
    assert_eq!(client.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_definition_must_be_structural() {
    let server = ApiServer::start();
    let mut broken = definition();
    let spec = &mut broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec.as_object_mut().unwrap().remove("type");
    let answer = Client::new(&server).post(DEFINITIONS, &broken).await;
    assert_eq!(
        answer.causes(),
        [(
            "spec.validation.openAPIV3Schema.properties[spec].type",
            "Required value: must not be empty for specified object fields"
        )]
    );
}

#[tokio::test]
async fn objects_follow_their_schema() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(DEFINITIONS, &definition()).await.ok();
    let created = client.post(POLICIES, &policy("ok", json!({"target": "web"}))).await.ok();
    assert_eq!(created["spec"], json!({"target": "web", "retries": 1}));
    assert_eq!(created["metadata"]["generation"], 1);
    let bad = client.post(POLICIES, &policy("bad", json!({"target": "", "retries": 9}))).await;
    assert_eq!(bad.causes().len(), 2);
    assert_eq!(bad.failure().1, "Invalid");

    let mut unknown =
        policy("pruned", json!({"target": "web", "bogus": 1, "weights": [{"name": "a", "color": "red"}]}));
    unknown["metadata"]["nope"] = "x".into();
    unknown["toplevel"] = 1.into();
    let pruned = client.post(POLICIES, &unknown).await;
    assert_eq!(
        pruned.warnings(),
        [
            "299 - \"unknown field \\\"metadata.nope\\\"\"",
            "299 - \"unknown field \\\"spec.bogus\\\"\"",
            "299 - \"unknown field \\\"spec.weights[0].color\\\"\"",
            "299 - \"unknown field \\\"toplevel\\\"\""
        ]
    );
    assert_eq!(pruned.ok()["spec"], json!({"target": "web", "retries": 1, "weights": [{"name": "a"}]}));
    unknown["metadata"]["name"] = "strict".into();
    let strict = client.post(&format!("{POLICIES}?fieldValidation=Strict"), &unknown).await;
    assert_eq!(
        strict.failure().2,
        "TrafficPolicy in version \"v1\" cannot be handled as a TrafficPolicy: strict decoding error: unknown field \
         \"metadata.nope\", unknown field \"spec.bogus\", unknown field \"spec.weights[0].color\", unknown field \
         \"toplevel\""
    );
    let mut version = policy("v", json!({"target": "web"}));
    version["apiVersion"] = "mesh.example.dev/v2".into();
    assert_eq!(
        client.post(POLICIES, &version).await.failure().2,
        "the API version in the data (mesh.example.dev/v2) does not match the expected API version \
         (mesh.example.dev/v1)"
    );
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(DEFINITIONS, &definition()).await.ok();
    let mut new = policy("one", json!({"target": "web", "retries": 2}));
    new["status"] = json!({"observedGeneration": 9});
    let created = client.post(POLICIES, &new).await.ok();
    assert!(created.get("status").is_none());
    let one = format!("{POLICIES}/one");
    let status_path = format!("{one}/status");

    let mut body = created.clone();
    body["metadata"]["labels"] = json!({"ignored": "yes"});
    body["spec"]["retries"] = 4.into();
    body["status"] = json!({"observedGeneration": 2});
    let put = client.put(&status_path, &body).await.ok();
    assert_eq!((&put["spec"]["retries"], &put["status"]["observedGeneration"]), (&json!(2), &json!(2)));
    assert!(put["metadata"].get("labels").is_none());
    assert_eq!(put["metadata"]["generation"], 1);
    assert_eq!(client.put(&status_path, &body).await.failure().1, "Conflict");
    body["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(client.put(&status_path, &body).await.causes()[0].0, "metadata.resourceVersion");
    assert_eq!(client.put(&one, &policy("one", json!({"target": "web"}))).await.status, 422);

    let patch = json!({"spec": {"retries": 3}, "status": {"observedGeneration": 77}});
    let status = client.merge(&status_path, &patch).await.ok();
    assert_eq!(
        (&status["spec"]["retries"], &status["status"]["observedGeneration"]),
        (&json!(2), &json!(77))
    );
    let main =
        client.merge(&one, &json!({"spec": {"retries": 3}, "status": {"observedGeneration": 1}})).await.ok();
    assert_eq!((&main["spec"]["retries"], &main["status"]["observedGeneration"]), (&json!(3), &json!(77)));
    assert_eq!(main["metadata"]["generation"], 2);
    let labelled = client.merge(&one, &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(labelled["metadata"]["generation"], 2);
    let dry = client.merge(&format!("{one}?dryRun=All"), &json!({"spec": {"retries": 0}})).await.ok();
    assert_eq!(dry["metadata"]["generation"], 3);
    assert_eq!(dry["metadata"]["resourceVersion"], labelled["metadata"]["resourceVersion"]);
    assert_eq!(client.get(&status_path).await.ok(), client.get(&one).await.ok());
    let strategic = client.patch(&one, "strategic-merge-patch+json", &patch).await;
    assert_eq!(
        strategic.failure().2,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    );
    let wrong = client.merge(&status_path, &json!({"status": {"observedGeneration": "four"}})).await;
    assert_eq!(
        wrong.causes()[0].1,
        "Invalid value: \"string\": observedGeneration in body must be of type integer: \"string\""
    );
}

#[tokio::test]
async fn a_table_has_the_columns_of_the_definition() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(DEFINITIONS, &definition()).await.ok();
    client.post(POLICIES, &policy("ok", json!({"target": "web", "retries": 2}))).await.ok();
    let table = Client::new(&server)
        .accepting("application/json;as=Table;g=meta.k8s.io;v=v1")
        .get(POLICIES)
        .await
        .ok();
    assert_eq!(table["columnDefinitions"][1]["name"], "Retries");
    assert_eq!(table["rows"][0]["cells"], json!(["ok", 2]));
}
