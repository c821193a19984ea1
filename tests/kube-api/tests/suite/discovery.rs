//! What the server tells about itself.

use outrigger_kube_api::ApiServer;
use serde_json::json;

use crate::client::Client;

#[tokio::test]
async fn the_old_documents_name_groups_and_resources() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    assert_eq!(client.get("/api").await.ok()["versions"], json!(["v1"]));
    let groups = client.get("/apis").await.ok();
    let lease = groups["groups"].as_array().unwrap().iter().find(|one| one["name"] == "coordination.k8s.io");
    assert_eq!(lease.unwrap()["preferredVersion"]["groupVersion"], "coordination.k8s.io/v1");
    let group = client.get("/apis/discovery.k8s.io").await.ok();
    assert_eq!((&group["kind"], &group["name"]), (&json!("APIGroup"), &json!("discovery.k8s.io")));

    let core = client.get("/api/v1").await.ok();
    let entry =
        |name: &str| core["resources"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(entry("services")["shortNames"], json!(["svc"]));
    assert_eq!(entry("pods")["categories"], json!(["all"]));
    assert_eq!(entry("pods/status")["verbs"], json!(["get", "patch", "update"]));
    assert_eq!(entry("serviceaccounts/token")["kind"], "TokenRequest");
    assert_eq!(entry("serviceaccounts/token")["group"], "authentication.k8s.io");
    assert_eq!(entry("namespaces")["namespaced"], false);
    assert!(!entry("namespaces")["verbs"].as_array().unwrap().contains(&json!("deletecollection")));
}

#[tokio::test]
async fn one_document_has_all_of_discovery() {
    let server = ApiServer::start();
    // What Go clients send.
    let client = Client::new(&server).accepting(
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
         application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
    );
    let answer = client.get("/apis").await;
    assert_eq!(
        answer.header("content-type"),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!((answer.header("vary"), answer.header("cache-control")), ("Accept", "public"));
    assert!(answer.header("etag").starts_with('"'));
    let items = answer.body["items"].as_array().unwrap();
    let group = items.iter().find(|item| item["metadata"]["name"] == "discovery.k8s.io").unwrap();
    assert_eq!(group["versions"][0]["freshness"], "Current");
    let slices = &group["versions"][0]["resources"][0];
    assert_eq!(slices["resource"], "endpointslices");
    assert_eq!(slices["scope"], "Namespaced");
    assert_eq!(slices["responseKind"], json!({"group": "", "version": "", "kind": "EndpointSlice"}));
    let core = client.get("/api").await.ok();
    assert_eq!(core["items"][0]["metadata"], json!({}));
}

#[tokio::test]
async fn version_and_health_need_no_credentials() {
    let server = ApiServer::start();
    let client = Client::with_token(&server, "");
    assert_eq!(client.get("/version").await.ok()["minor"], "36");
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status, ready.text.as_str()), (200, "ok"));
    assert_eq!(ready.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(client.get("/apis").await.status, 403);
}

#[tokio::test]
async fn an_unknown_group_is_no_page() {
    let server = ApiServer::start();
    for path in ["/apis/nosuch.example.dev/v1", "/apis/nosuch.example.dev/v1/things", "/api/v1/nosuch"] {
        let answer = Client::new(&server).get(path).await;
        assert_eq!((answer.status, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn credentials_are_asked_for() {
    let server = ApiServer::start();
    let path = "/api/v1/namespaces/demo/services";
    let garbage = Client::with_token(&server, "garbage").get(path).await;
    assert_eq!(garbage.failure(), (401, "Unauthorized", "Unauthorized"));
    let anonymous = Client::with_token(&server, "").get(path).await;
    assert_eq!(
        anonymous.failure(),
        (
            403,
            "Forbidden",
            "services is forbidden: User \"system:anonymous\" cannot list resource \"services\" in API group \"\" in \
             the namespace \"demo\""
        )
    );
}
