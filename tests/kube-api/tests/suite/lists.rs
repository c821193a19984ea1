//! Lists: selectors, chunks, the past.

use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

use crate::client::{Client, config_map, service};

const SERVICES: &str = "/api/v1/namespaces/demo/services";

async fn with_services(server: &ApiServer, names: &[&str]) {
    let client = Client::new(server);
    client.namespace("demo").await;
    for name in names {
        client.post(SERVICES, &service(name, json!({"app": name, "tier": "backend"}))).await.ok();
    }
}

#[tokio::test]
async fn a_list_says_once_what_its_items_are() {
    let server = ApiServer::start();
    with_services(&server, &["api", "cart"]).await;
    let client = Client::new(&server);
    let list = client.get(SERVICES).await.ok();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ServiceList"), &json!("v1")));
    assert_eq!(list["metadata"], json!({"resourceVersion": server.version().to_string()}));
    assert!(list["items"][0].get("kind").is_none() && list["items"][0].get("apiVersion").is_none());
    let empty = client.get("/apis/discovery.k8s.io/v1/namespaces/nonexistent/endpointslices").await.ok();
    assert_eq!(empty["items"], json!([]));
    assert_eq!(empty["kind"], "EndpointSliceList");
}

#[tokio::test]
async fn selectors_pick() {
    let server = ApiServer::start();
    with_services(&server, &["api", "cart", "web"]).await;
    let client = Client::new(&server);
    let names = async |query: &str| {
        let answer = client.get(&format!("{SERVICES}?{query}")).await;
        answer.names().join(",")
    };
    assert_eq!(names("labelSelector=app+in+(api,cart)").await, "api,cart");
    assert_eq!(names("labelSelector=tier,app+notin+(api),!none,app!%3Dcart").await, "web");
    assert_eq!(names("fieldSelector=metadata.name%3Dapi").await, "api");
    assert_eq!(names("fieldSelector=spec.type%3DNodePort").await, "");
    let all =
        client.get("/api/v1/services?fieldSelector=metadata.namespace%3Ddemo,metadata.name!%3Dapi").await;
    assert_eq!(all.names(), ["cart", "web"]);

    let broken = client.get(&format!("{SERVICES}?labelSelector=app%3D%3D%3Dx")).await;
    assert_eq!(
        broken.failure(),
        (400, "BadRequest", "unable to parse requirement: found '=', expected: identifier")
    );
    let slices = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices?fieldSelector=addressType%3DIPv4";
    assert_eq!(
        client.get(slices).await.failure().2,
        "\"addressType\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
}

#[tokio::test]
async fn chunks_show_one_version_of_the_world() {
    let server = ApiServer::start();
    with_services(&server, &["a", "b", "c", "d", "e", "f", "g"]).await;
    let client = Client::new(&server);
    let first = client.get(&format!("{SERVICES}?limit=3")).await;
    assert_eq!(first.names(), ["a", "b", "c"]);
    assert_eq!(first.body["metadata"]["remainingItemCount"], 4);
    let version = first.body["metadata"]["resourceVersion"].clone();
    client.post(SERVICES, &service("bb", json!({}))).await.ok();
    client.post(SERVICES, &service("dd", json!({}))).await.ok();
    client.delete(&format!("{SERVICES}/e")).await.ok();

    let token = |answer: &Value| answer["metadata"]["continue"].as_str().unwrap().to_owned();
    let second = client.get(&format!("{SERVICES}?limit=3&continue={}", token(&first.body))).await;
    assert_eq!(second.names(), ["d", "e", "f"]);
    assert_eq!(second.body["metadata"]["resourceVersion"], version);
    assert_eq!(second.body["metadata"]["remainingItemCount"], 1);
    let last = client.get(&format!("{SERVICES}?limit=3&continue={}", token(&second.body))).await;
    assert_eq!(last.names(), ["g"]);
    assert_eq!(last.body["metadata"], json!({"resourceVersion": version}));

    // With a selector nobody counts what remains.
    let selected = client.get(&format!("{SERVICES}?limit=1&labelSelector=tier%3Dbackend")).await.ok();
    assert!(selected["metadata"].get("continue").is_some());
    assert!(selected["metadata"].get("remainingItemCount").is_none());
    // From the cache comes everything.
    let cached = client.get(&format!("{SERVICES}?limit=2&resourceVersion=0")).await;
    assert_eq!(cached.names().len(), 8);
    assert!(cached.body["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn chunks_go_on_over_all_namespaces() {
    let server = ApiServer::start();
    for (namespace, name) in [("a", "z"), ("b", "a"), ("b", "b")] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["namespace"] = namespace.into();
        server.put(map).unwrap();
    }
    let client = Client::new(&server);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/api/v1/configmaps?limit=1&continue={token}")).await;
        seen.extend(page.names().iter().map(|name| (*name).to_owned()));
        match page.body["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["z", "a", "b"]);
}

#[tokio::test]
async fn an_expired_chunk_can_go_on_inconsistently() {
    let server = ApiServer::start();
    with_services(&server, &["a", "b", "c"]).await;
    let client = Client::new(&server);
    let first = client.get(&format!("{SERVICES}?limit=1")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    client.post(SERVICES, &service("ab", json!({}))).await.ok();
    server.compact_history();
    let expired = client.get(&format!("{SERVICES}?limit=1&continue={token}")).await;
    let (code, reason, message) = expired.failure();
    assert_eq!((code, reason), (410, "Expired"));
    assert!(message.starts_with("The provided continue parameter is too old"), "{message}");
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = client.get(&format!("{SERVICES}?continue={token}")).await;
    assert_eq!(rest.names(), ["ab", "b", "c"]);
    assert_eq!(rest.body["metadata"]["resourceVersion"], server.version().to_string());
}

#[tokio::test]
async fn the_past_can_be_listed_until_it_is_compacted() {
    let server = ApiServer::start();
    with_services(&server, &["a"]).await;
    let client = Client::new(&server);
    let then = server.version();
    client.post(SERVICES, &service("b", json!({}))).await.ok();
    let exact = format!("{SERVICES}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(client.get(&exact).await.names(), ["a"]);
    let newer = format!("{SERVICES}?resourceVersion={then}&resourceVersionMatch=NotOlderThan");
    assert_eq!(client.get(&newer).await.names(), ["a", "b"]);
    server.compact_history();
    let expired = client.get(&exact).await;
    assert_eq!(expired.failure(), (410, "Expired", "The resourceVersion for the provided list is too old."));
    assert!(expired.body["metadata"].get("continue").is_none());
    assert_eq!(client.get(&newer).await.names(), ["a", "b"]);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let get = async |query: &str| client.get(&format!("{SERVICES}?{query}")).await;
    let answer = get("resourceVersionMatch=Exact").await;
    assert_eq!(
        answer.failure().2,
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
         unless resourceVersion is provided"
    );
    assert_eq!(answer.status, 422);
    let answer = get("sendInitialEvents=true&resourceVersionMatch=NotOlderThan").await;
    assert_eq!(answer.causes().len(), 2);
    let answer = get("resourceVersion=abc").await;
    assert_eq!(
        answer.failure(),
        (
            400,
            "BadRequest",
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": \
             invalid syntax"
        )
    );
    assert_eq!(get("limit=3&continue=garbage").await.failure().0, 400);
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MjU5LCJzdGFydCI6Ii9leHRyYVx1MDAwMCJ9";
    assert_eq!(
        get(&format!("resourceVersion=1&continue={token}")).await.failure().2,
        "specifying resource version is not allowed when using continue"
    );
}

#[tokio::test]
async fn a_version_of_the_future_is_waited_for() {
    let server = ApiServer::start();
    let client = Client::new(&server);
    let future = format!("{SERVICES}?resourceVersion=99999999");
    let answer = client.get(&future).await;
    assert_eq!((answer.status, answer.header("retry-after")), (504, "1"));
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    // One that comes in time is answered.
    let next = server.version() + 1;
    let path = format!("/api/v1/namespaces/default/configmaps?resourceVersion={next}");
    let (list, _) = tokio::join!(client.get(&path), async {
        let map = config_map("late", json!({}));
        client.post("/api/v1/namespaces/default/configmaps", &map).await.ok()
    });
    assert_eq!(list.status, 200);
}

#[tokio::test]
async fn forms_of_answers() {
    let server = ApiServer::start();
    with_services(&server, &["api"]).await;
    let accepting = |accept: &str| Client::new(&server).accepting(accept);
    let partial = accepting("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
        .get(SERVICES)
        .await
        .ok();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial["items"][0].get("spec").is_none());
    let table = accepting("application/json;as=Table;g=meta.k8s.io;v=v1").get(SERVICES).await.ok();
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "api");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let refused = accepting("application/json;as=Table").get(SERVICES).await;
    assert_eq!(
        refused.failure(),
        (
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf"
        )
    );
    assert_eq!(accepting("text/html").get(SERVICES).await.failure().0, 406);
    let yaml = accepting("application/yaml").get(SERVICES).await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    let fallback = accepting("application/vnd.kubernetes.protobuf,application/json").get(SERVICES).await;
    assert_eq!(fallback.header("content-type"), "application/json");
}
