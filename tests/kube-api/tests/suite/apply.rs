//! Server-side apply: who owns which field.

use http::Method;
use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

use crate::client::{Answer, Client, config_map};
use crate::custom::{DEFINITIONS, POLICIES, definition, policy};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Applies to `path` as `manager`; `more` is added to the query.
async fn apply(client: &Client<'_>, path: &str, manager: &str, more: &str, configuration: &Value) -> Answer {
    client.patch(&format!("{path}?fieldManager={manager}{more}"), "apply-patch+yaml", configuration).await
}

async fn apply_map(client: &Client<'_>, manager: &str, data: Value) -> Answer {
    apply(client, &format!("{MAPS}/ssa"), manager, "", &config_map("ssa", data)).await
}

/// Manager, operation and fields of every entry.
fn owners(object: &Value) -> Vec<(&str, &str, &Value)> {
    let entries = object["metadata"]["managedFields"].as_array().expect("managedFields");
    entries
        .iter()
        .map(|entry| {
            assert_eq!(entry["fieldsType"], "FieldsV1");
            (entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap(), &entry["fieldsV1"])
        })
        .collect()
}

#[tokio::test]
async fn fields_belong_to_who_applies_them() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let created = apply_map(&client, "a", json!({"a": "1", "b": "1"})).await;
    assert_eq!(created.status, 201);
    let created = created.ok();
    assert_eq!(owners(&created), [("a", "Apply", &json!({"f:data": {"f:a": {}, "f:b": {}}}))]);
    // The same again is no change.
    let again = apply_map(&client, "a", json!({"a": "1", "b": "1"})).await;
    assert_eq!((again.status, &again.body), (200, &created));

    let conflict = apply_map(&client, "b", json!({"a": "2", "b": "2", "c": "2"})).await;
    assert_eq!(
        conflict.failure(),
        (409, "Conflict", "Apply failed with 2 conflicts: conflicts with \"a\":\n- .data.a\n- .data.b")
    );
    assert_eq!(conflict.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(conflict.causes(), [(".data.a", "conflict with \"a\""), (".data.b", "conflict with \"a\"")]);

    // The same value may have several owners; nothing happened to the object, so there is no time.
    let shared = apply_map(&client, "c", json!({"a": "1"})).await.ok();
    assert_eq!(owners(&shared)[0], ("c", "Apply", &json!({"f:data": {"f:a": {}}})));
    assert!(shared["metadata"]["managedFields"][0].get("time").is_none());
    assert!(shared["metadata"]["managedFields"][1].get("time").is_some());

    let forced = apply(
        &client,
        &format!("{MAPS}/ssa"),
        "b",
        "&force=true",
        &config_map("ssa", json!({"a": "2", "c": "2"})),
    )
    .await
    .ok();
    assert_eq!(forced["data"], json!({"a": "2", "b": "1", "c": "2"}));
    assert_eq!(
        owners(&forced),
        [
            ("a", "Apply", &json!({"f:data": {"f:b": {}}})),
            ("b", "Apply", &json!({"f:data": {"f:a": {}, "f:c": {}}}))
        ]
    );
    // What one owned alone and leaves out goes.
    let removed = apply_map(&client, "b", json!({"a": "2"})).await.ok();
    assert_eq!(removed["data"], json!({"a": "2", "b": "1"}));
}

#[tokio::test]
async fn an_update_owns_what_it_changes() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let created =
        client.post(&format!("{MAPS}?fieldManager=test"), &config_map("ssa", json!({"a": "1"}))).await.ok();
    assert_eq!(owners(&created), [("test", "Update", &json!({"f:data": {".": {}, "f:a": {}}}))]);
    let path = format!("{MAPS}/ssa?fieldManager=editor");
    let edited = client.merge(&path, &json!({"data": {"a": "3"}})).await.ok();
    assert_eq!(
        owners(&edited),
        [("editor", "Update", &json!({"f:data": {"f:a": {}}})), ("test", "Update", &json!({"f:data": {}}))]
    );
    let conflict = apply_map(&client, "b", json!({"a": "2"})).await;
    assert_eq!(
        conflict.failure().2,
        "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a"
    );
}

#[tokio::test]
async fn what_cannot_be_applied() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    apply_map(&client, "a", json!({"a": "1"})).await.ok();
    let path = format!("{MAPS}/ssa");
    let nobody = client.patch(&path, "apply-patch+yaml", &config_map("ssa", json!({}))).await;
    assert_eq!(
        nobody.failure().2,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let mut managed = config_map("ssa", json!({}));
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(
        apply(&client, &path, "a", "", &managed).await.failure(),
        (400, "BadRequest", "metadata.managedFields must be nil")
    );
    let mut stale = config_map("ssa", json!({"a": "2"}));
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(apply(&client, &path, "a", "", &stale).await.failure().1, "Conflict");
    let untyped = apply(&client, &path, "a", "", &json!({"metadata": {"name": "ssa"}})).await;
    assert_eq!(untyped.failure(), (400, "BadRequest", "invalid object type: /, Kind="));
    let unnamed = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}});
    assert_eq!(apply(&client, &path, "a", "", &unnamed).await.status, 200);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ssa\ndata:\n  x: \"1\"\n";
    let path = format!("{path}?fieldManager=y&dryRun=All");
    let dry = client.send(Method::PATCH, &path, "application/apply-patch+yaml", yaml).await.ok();
    assert_eq!(dry["data"], json!({"a": "1", "x": "1"}));
}

#[tokio::test]
async fn lists_with_keys_are_merged() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let path = "/api/v1/namespaces/default/services/web";
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
               "spec": {"selector": {"app": "x"}, "ports": ports}})
    };
    let created = apply(&client, path, "a", "", &service(json!([{"name": "http", "port": 80}]))).await;
    assert_eq!(created.status, 201);
    let key = "k:{\"port\":80,\"protocol\":\"TCP\"}";
    let fields =
        json!({"f:spec": {"f:ports": {key: {".": {}, "f:name": {}, "f:port": {}}}, "f:selector": {}}});
    assert_eq!(owners(&created.body), [("a", "Apply", &fields)]);
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "metrics", "port": 90}]}});
    let merged = apply(&client, path, "b", "", &other).await.ok();
    let names = |service: &Value| {
        let ports = service["spec"]["ports"].as_array().unwrap();
        ports.iter().map(|port| port["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&merged), ["http", "metrics"]);
    let moved = apply(&client, path, "a", "", &service(json!([{"name": "http", "port": 81}]))).await.ok();
    assert_eq!(names(&moved), ["metrics", "http"]);
    assert_eq!(moved["spec"]["ports"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn custom_resources_are_merged_by_their_schema() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(DEFINITIONS, &definition()).await.ok();
    let one = format!("{POLICIES}/one");
    let mut configuration =
        policy("one", json!({"target": "web", "retries": 2, "weights": [{"name": "v1", "weight": 90}]}));
    configuration["status"] = json!({"observedGeneration": 9});
    let created = apply(&client, &one, "user", "", &configuration).await;
    assert_eq!(created.status, 201);
    let created = created.ok();
    assert!(created.get("status").is_none());
    let weight = json!({".": {}, "f:name": {}, "f:weight": {}});
    assert_eq!(
        owners(&created)[0].2,
        &json!({"f:spec": {"f:retries": {}, "f:target": {}, "f:weights": {"k:{\"name\":\"v1\"}": weight}}})
    );

    let status_path = format!("{one}/status");
    let status = |conditions: Value| {
        json!({"apiVersion": "mesh.example.dev/v1", "kind": "TrafficPolicy", "metadata": {"name": "one"},
               "status": {"conditions": conditions}})
    };
    let accepted = |status: &str| json!({"type": "Accepted", "status": status});
    let programmed = json!({"type": "Programmed", "status": "True"});
    let first = apply(&client, &status_path, "mesh", "", &status(json!([accepted("True")]))).await.ok();
    assert_eq!(first["metadata"]["generation"], 1);
    let entry = &first["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["subresource"]), (&json!("mesh"), &json!("status")));
    assert_eq!(entry["fieldsV1"].as_object().unwrap().keys().collect::<Vec<_>>(), ["f:status"]);
    let conflict =
        apply(&client, &status_path, "other", "", &status(json!([accepted("False"), programmed]))).await;
    assert_eq!(
        conflict.failure().2,
        "Apply failed with 1 conflict: conflict with \"mesh\" with subresource \"status\": \
         .status.conditions[type=\"Accepted\"].status"
    );
    let merged = apply(&client, &status_path, "other", "", &status(json!([programmed]))).await.ok();
    assert_eq!(merged["status"]["conditions"], json!([accepted("True"), programmed]));
    assert_eq!(merged["spec"]["retries"], 2);
    // The first one withdraws: only its condition goes.
    let left = apply(&client, &status_path, "mesh", "", &status(json!([]))).await.ok();
    assert_eq!(left["status"]["conditions"], json!([programmed]));

    let missing =
        apply(&client, &format!("{POLICIES}/none/status"), "mesh", "", &policy("none", json!({}))).await;
    assert_eq!(missing.failure(), (404, "NotFound", "trafficpolicies.mesh.example.dev \"none\" not found"));
    let unknown = apply(
        &client,
        &format!("{POLICIES}/x"),
        "user",
        "",
        &policy("x", json!({"target": "web", "bogus": 1})),
    )
    .await;
    assert_eq!(
        unknown.failure(),
        (
            500,
            "",
            "failed to create typed patch object (/x; mesh.example.dev/v1, Kind=TrafficPolicy): .spec.bogus: field not \
             declared in schema"
        )
    );
}
