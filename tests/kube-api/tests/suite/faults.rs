//! What a test can do to the server.

use std::time::Duration;

use http::Method;
use outrigger_kube_api::{ApiServer, Collection};
use serde_json::json;

use crate::client::{Client, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_killed_server_comes_back_with_its_objects() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(MAPS, &config_map("a", json!({"k": "v"}))).await.ok();
    let mut watch = client.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.next_name().await.1, "a");
    let url = server.url();
    server.kill();
    assert!(watch.next().await.is_err(), "the connection breaks in the middle of the body");
    let refused = client.request(Method::GET, MAPS, "", "").await.unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    server.restart().unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(client.get(&format!("{MAPS}/a")).await.ok()["data"]["k"], "v");
}

#[tokio::test]
async fn requests_fail_as_scripted() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    server.fail_next(2, Some("GET"), MAPS, 503);
    assert_eq!(client.post(MAPS, &config_map("a", json!({}))).await.status, 201);
    assert_eq!(client.get(MAPS).await.failure().1, "ServiceUnavailable");
    assert_eq!(client.get("/api/v1/namespaces/default/services").await.status, 200);
    assert_eq!(client.get(MAPS).await.status, 503);
    assert_eq!(client.get(MAPS).await.status, 200);
    server.fail_next(1, None, "/", 429);
    assert_eq!(client.get(MAPS).await.header("retry-after"), "1");
}

#[tokio::test]
async fn a_paused_server_holds_requests() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    server.pause();
    let mut held = Box::pin(client.get(MAPS));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut held).await.is_err());
    server.resume();
    assert_eq!(held.await.status, 200);
}

#[tokio::test]
async fn requests_are_seen_and_counted() {
    let server = ApiServer::start();
    Client::new(&server).get(&format!("{MAPS}?limit=1")).await.ok();
    Client::with_token(&server, "").get("/readyz").await;
    assert_eq!(server.request_count(), 2);
    let seen = server.take_requests();
    assert_eq!((seen[0].method.as_str(), seen[0].user.as_str()), ("GET", "admin"));
    assert_eq!(seen[0].target, format!("{MAPS}?limit=1"));
    assert_eq!(seen[1].user, "system:anonymous");
    assert!(server.take_requests().is_empty());
}

#[tokio::test]
async fn a_test_can_write_past_the_rules() {
    let server = ApiServer::start();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i:1"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.9"}});
    server.put(pod.clone()).unwrap();
    let pods = Collection::new("", "pods");
    let first = server.get(&pods, "shop", "web").unwrap();
    assert_eq!(first["status"]["podIP"], "10.0.0.9");
    assert_eq!(first["spec"]["serviceAccountName"], "default");
    let second = server.put(pod).unwrap();
    assert_eq!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert!(server.put(json!({"apiVersion": "v1", "kind": "Nonsense"})).is_err());
    assert!(server.remove(&pods, "shop", "web"));
    assert!(server.list(&pods).is_empty());
}
