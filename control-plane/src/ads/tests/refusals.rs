//! What a proxy refuses, on the way to who has to know.

use outrigger_xds_api::session::nack::{self, Problem, Refused};

use super::*;
use crate::model::MeshSettings;
use crate::snapshot::Engine;
use crate::source::{Event, test_objects};

/// Ends on line 7; the route on line 2.
const OBJECTS: &str = "
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: split, namespace: shop},
 spec: {parentRefs: [{group: '', kind: Service, name: reviews}], rules: [{backendRefs: [{name: reviews, port: 80}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: shop}, spec: {ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop}, spec: {serviceAccountName: web}, status: {podIP: 127.1.0.1}}
";

fn engine() -> Engine {
    let mut engine = Engine::new(MeshSettings::default());
    engine.apply(test_objects(OBJECTS).into_iter().map(Event::Upsert));
    engine
}

/// A NACK of one resource with one problem, by a client that is subscribed to `names`.
fn refusing<V: Dialect>(
    response: &V::Response,
    names: &[&str],
    name: &str,
    field: &str,
    reason: &str,
) -> V::Request {
    let mut answer = V::answer(response, names, Some(&format!("{name}: {field}: {reason}")));
    let problems = vec![Problem { field: field.to_owned(), reason: reason.to_owned() }];
    let refused = [Refused { name: name.to_owned(), problems }];
    V::error_mut(&mut answer).as_mut().unwrap().details = nack::details(V::type_of(response), refused);
    answer
}

#[tokio::test]
async fn a_refusal_reaches_pages_and_metric_with_field_and_object() {
    reaches_pages_and_metric::<Delta>().await;
    reaches_pages_and_metric::<Sotw>().await;
}

async fn reaches_pages_and_metric<V: Dialect>() {
    let mut engine = engine();
    let mesh = Mesh::start(engine.publish().unwrap()).await;
    let mut client = mesh.open::<V>(Service::Aggregated).await;
    client.subscribe(Route, &["15001"]).await;
    let response = client.next().await;
    let field = "virtual_hosts[0].routes[0].match.prefix";
    client.send(refusing::<V>(&response, &["15001"], "15001", field, "no")).await;
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["rds"]["state"] == "nacked").await;
    let rds = &proxies[0]["types"]["rds"];
    let refusal = &rds["refusals"][0];
    for (key, expected) in [("resource", "15001"), ("field", field), ("reason", "no")] {
        assert_eq!(refusal[key], expected, "{rds}");
    }
    let object = &refusal["objects"][0];
    assert_eq!(
        (&object["object"]["kind"], &object["object"]["name"]),
        (&"HTTPRoute".into(), &"split".into())
    );
    assert_eq!((&object["field"], &object["line"]), (&"spec.rules[0]".into(), &3.into()), "{object}");
    assert!(rds["last_sent_age_ms"].is_number(), "{rds}");

    let page: serde_json::Value = serde_json::from_str(&mesh.page("/rejections").await.1).unwrap();
    let row = &page["refused_by_proxies"][0];
    assert_eq!((&row["file"], &row["field"]), (&"test.yaml".into(), &"spec.rules[0]".into()), "{row}");
    assert_eq!((&row["resource"]["name"], &row["resource"]["field"]), (&"15001".into(), &field.into()));
    assert_eq!((&row["reason"], &row["proxies"][0]), (&"no".into(), &WEB.into()));
    let series = "outrigger_xds_refused_resources{resource=\"15001\",type=\"rds\"} 1";
    assert!(mesh.page("/metrics").await.1.contains(series));

    // The next version is accepted: nothing of it is left, but for the time when it was.
    engine.apply(test_objects(&OBJECTS.replace("port: 80", "port: 81")).into_iter().map(Event::Upsert));
    mesh.publish(engine.publish().unwrap());
    let response = client.next().await;
    client.answer(&response, None).await;
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["rds"]["state"] == "synced").await;
    assert_eq!(proxies[0]["types"]["rds"]["refusals"], serde_json::json!([]));
    assert!(mesh.page("/rejections").await.1.contains("\"refused_by_proxies\": []"));
    assert!(!mesh.page("/metrics").await.1.contains("outrigger_xds_refused_resources{"));
}

#[tokio::test]
async fn the_siblings_of_a_refused_resource_count_as_accepted() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut sotw = mesh.open::<Sotw>(Service::Aggregated).await;
    sotw.subscribe(Cluster, &[]).await;
    let response = sotw.next().await;
    sotw.send(refusing::<Sotw>(&response, &[], "b", "type", "unknown")).await;
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["cds"]["state"] == "nacked").await;
    let cds = &proxies[0]["types"]["cds"];
    assert_eq!((&cds["accepted"], &cds["rejected"]), (&1.into(), &serde_json::json!(["b"])));
    drop(sotw);
    mesh.proxies(|proxies| proxies.as_array().is_some_and(Vec::is_empty)).await;

    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    client.subscribe(Cluster, &[]).await;
    let response = client.next().await;
    client.send(refusing::<Delta>(&response, &[], "b", "type", "unknown")).await;
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["cds"]["state"] == "nacked").await;
    let cds = &proxies[0]["types"]["cds"];
    assert_eq!((&cds["accepted"], &cds["rejected"]), (&1.into(), &serde_json::json!(["b"])));
    // On a new stream the proxy says what it holds: the good one is not sent again.
    let held = response.resources.iter().find(|resource| resource.name == "a").unwrap();
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    let mut request = Delta::subscription(Cluster, &[]);
    request.initial_resource_versions = [(held.name.clone(), held.version.clone())].into();
    client.send(request).await;
    assert_eq!(client.accept().await, "cds +b=1");
}

#[tokio::test]
async fn the_dump_of_a_proxy_holds_what_it_asks_for() {
    let mesh = Mesh::start(engine().publish().unwrap()).await;
    mesh.control_plane.ready().await;
    let (status, page) = mesh.page("/config_dump?proxy=web-0.shop").await;
    assert_eq!(status, 200, "{page}");
    let dump: serde_json::Value = serde_json::from_str(&page).unwrap();
    let configs = dump["configs"].as_array().unwrap();
    let names = |dump: usize, list: &str, pointer: &str| -> Vec<String> {
        let entries = configs[dump][list].as_array().unwrap().iter();
        entries.map(|entry| entry.pointer(pointer).unwrap().as_str().unwrap().to_owned()).collect()
    };
    let reviews = "outbound|80||reviews.shop.svc.cluster.local".to_owned();
    assert_eq!(names(0, "dynamic_active_clusters", "/cluster/name"), ["BlackHoleCluster", &reviews]);
    assert_eq!(names(1, "dynamic_listeners", "/active_state/listener/name"), ["127.1.0.1_15001"]);
    assert_eq!(names(2, "dynamic_route_configs", "/route_config/name"), ["15001"]);
    assert_eq!(names(3, "dynamic_endpoint_configs", "/endpoint_config/cluster_name"), [reviews.as_str()]);
    assert_eq!(mesh.page(&format!("/config_dump?proxy={WEB}")).await.1, page);
    assert_eq!(mesh.page("/config_dump?proxy=nobody.shop").await.0, 404);
    assert_eq!(mesh.page("/config_dump").await.0, 400);
}
