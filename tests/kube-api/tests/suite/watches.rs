//! Watches: where they begin, what they tell, how they end.

use std::time::Duration;

use outrigger_kube_api::{ApiServer, Cut};
use serde_json::json;

use crate::client::{Client, config_map, eventually, service};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pair(event: &str, name: &str) -> (String, String) {
    (event.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_what_happened_after_its_version() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let watched = |name| service(name, json!({"tier": "watched"}));
    let from = server.version();
    client.post(SERVICES, &watched("before")).await.ok();
    let mut events = client
        .watch(&format!("{SERVICES}?watch=1&resourceVersion={from}&labelSelector=tier%3Dwatched"))
        .await;
    assert_eq!(events.next_name().await, pair("ADDED", "before"));
    client.post(SERVICES, &watched("one")).await.ok();
    client.post(SERVICES, &service("unseen", json!({}))).await.ok();
    client.merge(&format!("{SERVICES}/one"), &json!({"metadata": {"annotations": {"a": "b"}}})).await.ok();
    assert_eq!(events.next_name().await, pair("ADDED", "one"));
    assert_eq!(events.next_name().await, pair("MODIFIED", "one"));
    // An object that leaves the selector is gone for this watch, as it was before, at the version of the change.
    let changed = client
        .merge(&format!("{SERVICES}/before"), &json!({"metadata": {"labels": {"tier": "x"}}}))
        .await
        .ok();
    let left = events.next().await.unwrap().unwrap();
    assert_eq!(left["type"], "DELETED");
    assert_eq!(left["object"]["metadata"]["labels"]["tier"], "watched");
    assert_eq!(left["object"]["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    client
        .merge(&format!("{SERVICES}/before"), &json!({"metadata": {"labels": {"tier": "watched"}}}))
        .await
        .ok();
    assert_eq!(events.next_name().await, pair("ADDED", "before"));
    let deleted = client.delete(&format!("{SERVICES}/one")).await.ok();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], deleted["metadata"]["resourceVersion"]);
    assert_eq!(event["object"]["kind"], "Service");
}

#[tokio::test]
async fn without_a_version_the_present_comes_first() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(MAPS, &config_map("a", json!({}))).await.ok();
    for query in ["?watch=1", "?watch=1&resourceVersion=0", "?watch=true"] {
        let mut events = client.watch(&format!("{MAPS}{query}&timeoutSeconds=1")).await;
        let all = events.rest().await;
        assert_eq!(all.len(), 1, "{query}: {all:?}");
        assert_eq!(all[0]["type"], "ADDED");
    }
    let mut old = client.watch("/api/v1/watch/namespaces/default/configmaps/a?timeoutSeconds=1").await;
    assert_eq!(old.next_name().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn a_watch_list_ends_its_beginning_with_a_bookmark() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(SERVICES, &service("a", json!({}))).await.ok();
    let list = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut events = client.watch(&format!("{SERVICES}?{list}&allowWatchBookmarks=true")).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    let bookmark = events.next().await.unwrap().unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let version = server.version().to_string();
    assert_eq!(
        bookmark["object"]["metadata"],
        json!({"resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}})
    );
    assert_eq!(bookmark["object"]["kind"], "Service");
    client.delete(&format!("{SERVICES}/a")).await.ok();
    assert_eq!(events.next_name().await, pair("DELETED", "a"));

    // Nobody is told of the end who did not ask for bookmarks.
    let mut without = client.watch(&format!("{MAPS}?{list}&timeoutSeconds=1")).await;
    assert!(without.rest().await.is_empty());
    let mut now = client
        .watch(&format!(
            "{MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ))
        .await;
    client.post(MAPS, &config_map("later", json!({}))).await.ok();
    assert_eq!(now.next_name().await, pair("ADDED", "later"));
}

#[tokio::test]
async fn options_of_a_watch_list_are_checked() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let get = async |query: &str| client.get(&format!("{MAPS}?watch=1&{query}")).await;
    let answer = get("sendInitialEvents=true&allowWatchBookmarks=true").await;
    assert_eq!(
        answer.causes(),
        [(
            "resourceVersionMatch",
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )]
    );
    let answer = get("sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1").await;
    assert_eq!(answer.causes().len(), 2);
    let answer = get("resourceVersionMatch=NotOlderThan&resourceVersion=1").await;
    assert_eq!(answer.status, 422);
    // On a watch a broken version is an error of the server.
    let answer = get("resourceVersion=abc").await;
    assert_eq!(answer.failure().0, 500);
    assert!(answer.body.get("reason").is_none());
}

#[tokio::test]
async fn a_version_that_is_too_old_is_told_in_an_event() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(MAPS, &config_map("a", json!({}))).await.ok();
    let old = server.version();
    client.post(MAPS, &config_map("b", json!({}))).await.ok();
    let mut running = client.watch(&format!("{MAPS}?watch=1&resourceVersion={old}")).await;
    assert_eq!(running.next_name().await, pair("ADDED", "b"));
    server.compact_history();
    let compacted = server.version();

    let mut events = client.watch(&format!("{MAPS}?watch=1&resourceVersion={old}")).await;
    let all = events.rest().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["type"], "ERROR");
    let status = &all[0]["object"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
    assert_eq!(status["message"], format!("too old resource version: {old} ({compacted})"));

    // A watch-list does not mind, and a watch that runs already goes on.
    let list = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut events = client.watch(&format!("{MAPS}?{list}&resourceVersion={old}")).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    client.post(MAPS, &config_map("c", json!({}))).await.ok();
    assert_eq!(running.next_name().await, pair("ADDED", "c"));
}

#[tokio::test]
async fn a_limited_history_moves_along() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    server.limit_history(Some(2));
    for name in ["a", "b", "c"] {
        client.post(MAPS, &config_map(name, json!({}))).await.ok();
    }
    let from =
        |back: u64| format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={}", server.version() - back);
    assert_eq!(client.watch(&from(2)).await.rest().await.len(), 2);
    assert_eq!(client.watch(&from(3)).await.next_name().await.0, "ERROR");
}

#[tokio::test]
async fn a_watch_from_the_future_waits_until_its_end() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let mut events = client.watch(&format!("{MAPS}?watch=1&resourceVersion=99999999&timeoutSeconds=1")).await;
    client.post(MAPS, &config_map("a", json!({}))).await.ok();
    assert!(events.rest().await.is_empty());
}

#[tokio::test]
async fn bookmarks_come_before_the_end_and_when_a_test_asks() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let watch = format!("{MAPS}?watch=1&resourceVersion={}&timeoutSeconds=4", server.version());
    let mut with = client.watch(&format!("{watch}&allowWatchBookmarks=true")).await;
    let mut without = client.watch(&watch).await;
    eventually("both watches run", || (server.watch_count() == 2).then_some(())).await;
    server.put(config_map("a", json!({}))).unwrap();
    assert_eq!(with.next_name().await, pair("ADDED", "a"));
    assert_eq!(without.next_name().await, pair("ADDED", "a"));
    server.send_bookmarks();
    let bookmark = with.next().await.unwrap().unwrap();
    assert_eq!(bookmark["object"]["metadata"], json!({"resourceVersion": server.version().to_string()}));
    let rest = with.rest().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0]["type"], "BOOKMARK");
    assert!(without.rest().await.is_empty());
    eventually("no watch runs", || (server.watch_count() == 0).then_some(())).await;
}

#[tokio::test]
async fn watches_can_be_cut() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let mut maps = client.watch(&format!("{MAPS}?watch=1")).await;
    let mut services = client.watch(&format!("{SERVICES}?watch=1")).await;
    eventually("both watches run", || (server.watch_count() == 2).then_some(())).await;
    server.cut_watches(Some("configmaps"), Cut::Reset);
    assert!(maps.next().await.is_err());
    server.cut_watches(None, Cut::Clean);
    assert_eq!(services.next().await, Ok(None));
    assert_eq!(server.watches_started(), 2);
}

#[tokio::test]
async fn a_watch_may_show_metadata_or_tables() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    client.post(MAPS, &config_map("a", json!({"k": "v"}))).await.ok();
    let accepting = |what: &str| {
        Client::new(&server).accepting(&format!("application/json;as={what};g=meta.k8s.io;v=v1"))
    };
    let watch = format!("{MAPS}?watch=1&resourceVersion=0");
    let mut metadata = accepting("PartialObjectMetadata").watch(&watch).await;
    let event = metadata.next().await.unwrap().unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert!(event["object"].get("data").is_none());
    let mut table = accepting("Table").watch(&watch).await;
    let first = table.next().await.unwrap().unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(first["object"]["rows"][0]["cells"][1], 1);
    assert!(first["object"]["columnDefinitions"].is_array());
    client.merge(&format!("{MAPS}/a"), &json!({"data": {"k2": "v"}})).await.ok();
    let second = table.next().await.unwrap().unwrap();
    assert_eq!(second["type"], "MODIFIED");
    assert!(second["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let mut events = client.watch(&format!("{MAPS}?watch=1&resourceVersion={}", server.version())).await;
    for index in 0..500 {
        server.put(config_map(&format!("m{index:03}"), json!({"k": "v".repeat(1000)}))).unwrap();
    }
    server.compact_history();
    tokio::time::sleep(Duration::from_millis(1)).await;
    for index in 0..500 {
        assert_eq!(events.next_name().await, pair("ADDED", &format!("m{index:03}")));
    }
}
