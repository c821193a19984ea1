//! Changes, and everything that goes wrong between the API server and us.

use outrigger_kube_api::{ApiServer, Collection, Cut};
use outrigger_xds_api::ResourceType;

use crate::world::{
    DEADLINE, MESH, Reader, content, definition, documents, dump, endpoints, http_routes, put, server,
};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

/// The slice of `reviews` with one endpoint.
fn slice(address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: reviews-abc, labels: \
         {{kubernetes.io/service-name: reviews}}}}\naddressType: IPv4\nports: [{{name: http, port: 9080}}]\n\
         endpoints: [{{addresses: [{address}]}}]\n"
    )
}

fn slices() -> Collection {
    Collection::new("discovery.k8s.io", "endpointslices")
}

/// Moves the endpoint of `reviews` and waits until that is published.
async fn moves(server: &ApiServer, reader: &mut Reader, address: &str) {
    put(server, &slice(address));
    let expected = [format!("{address}:9080")];
    reader.until(address, |snapshot| endpoints(snapshot, REVIEWS) == expected).await;
}

/// How often EndpointSlices were listed since the requests were looked at.
fn lists_of_slices(server: &ApiServer) -> usize {
    let is_list = |target: &str| target.contains("/endpointslices") && !target.contains("watch=");
    server.take_requests().iter().filter(|seen| is_list(&seen.target)).count()
}

#[tokio::test]
async fn changes_and_deletions_arrive() {
    let server = server();
    put(&server, MESH);
    let mut reader = Reader::of_cluster(&server).await;
    let first = reader.synced().await;
    assert_eq!(first.generation(), 1);
    assert_eq!(endpoints(&first, REVIEWS), ["127.1.0.2:15006", "127.1.0.3:15006"]);
    moves(&server, &mut reader, "192.0.2.1").await;
    assert!(server.remove(&slices(), "default", "reviews-abc"));
    // Without a slice the Service selects its Pods.
    reader.until("the Pods", |snapshot| endpoints(snapshot, REVIEWS).len() == 3).await;
    assert!(server.remove(&Collection::new("", "pods"), "default", "reviews-v2-a"));
    reader.until("a Pod less", |snapshot| endpoints(snapshot, REVIEWS).len() == 2).await;

    // What is not read changes nothing.
    let generation = reader.snapshots.borrow().generation();
    let mut node = documents(MESH).remove(0);
    node["metadata"]["annotations"] = serde_json::json!({"heartbeat": "1"});
    node["status"] = serde_json::json!({"conditions": [{"type": "Ready", "status": "True"}]});
    server.put(node).unwrap();
    moves(&server, &mut reader, "192.0.2.2").await;
    assert_eq!(reader.snapshots.borrow().generation(), generation + 1);
}

#[tokio::test]
async fn a_long_list_is_read_in_pages() {
    let server = server();
    put(&server, MESH);
    for number in 0..300 {
        put(
            &server,
            &format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: s-{number}}}, spec: {{ports: [{{port: 80}}]}}}}"
            ),
        );
    }
    let first = Reader::of_cluster(&server).await.synced().await;
    let pages =
        server.take_requests().into_iter().filter(|seen| seen.target.starts_with("/api/v1/services?"));
    let lists: Vec<String> =
        pages.map(|seen| seen.target).filter(|target| !target.contains("watch=")).collect();
    assert_eq!(lists.len(), 2, "{lists:?}");
    let scope = first.scopes().next().unwrap();
    let clusters = first.resources(scope, ResourceType::Cluster);
    assert_eq!(
        (0..300)
            .filter(|number| clusters
                .get(&format!("outbound|80||s-{number}.default.svc.cluster.local"))
                .is_some())
            .count(),
        300
    );
}

#[tokio::test]
async fn nothing_is_published_before_every_kind_is_read() {
    let server = server();
    put(&server, MESH);
    server.fail_next(1, Some("GET"), "/api/v1/pods", 403);
    server.fail_next(1, Some("GET"), "/apis/gateway.networking.k8s.io/v1/httproutes", 401);
    let mut reader = Reader::of_cluster(&server).await;
    let mut progress = reader.progress.clone();
    let said = progress.wait_for(|text| text.contains("Pod (") && text.contains("HTTPRoute ("));
    let said = tokio::time::timeout(DEADLINE, said).await.expect("the progress says why").unwrap().clone();
    assert!(
        said.starts_with("not read yet from the API server: ") && said.contains("forbidden by the test"),
        "{said}"
    );
    assert_eq!(reader.snapshots.borrow().generation(), 0);
    let first = reader.synced().await;
    assert_eq!(first.scopes().count(), 5);
    let metrics = String::from_utf8(reader.metrics.encode().unwrap()).unwrap();
    assert!(metrics.contains("outrigger_source_watch_failures_total{kind=\"Pod\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let server = server();
    put(&server, MESH);
    let mut reader = Reader::of_cluster(&server).await;
    reader.synced().await;
    for (number, how) in [Cut::Clean, Cut::Reset, Cut::Clean].into_iter().enumerate() {
        moves(&server, &mut reader, &format!("192.0.2.{}", number + 1)).await;
        server.take_requests();
        server.cut_watches(None, how);
        moves(&server, &mut reader, &format!("192.0.2.{}", number + 101)).await;
        assert_eq!(lists_of_slices(&server), 0, "it listed anew");
    }
}

#[tokio::test]
async fn what_was_deleted_while_we_were_away_is_deleted() {
    let server = server();
    put(&server, MESH);
    let mut reader = Reader::of_cluster(&server).await;
    reader.synced().await;
    server.kill();
    server.remove(&slices(), "default", "reviews-abc");
    server.remove(&Collection::new("", "pods"), "default", "reviews-v1-b");
    server.remove(&Collection::new("gateway.networking.k8s.io", "httproutes"), "default", "split");
    put(&server, "{apiVersion: v1, kind: Service, metadata: {name: new}, spec: {ports: [{port: 80}]}}");
    // The past is forgotten: the watches are answered with 410.
    server.compact_history();
    assert_eq!(reader.snapshots.borrow().generation(), 1, "an API server that is away changes nothing");
    server.restart().unwrap();
    let expected = content(&*Reader::of_directory(&dump(&server)).synced().await);
    reader.until("what is stored", |snapshot| content(snapshot) == expected).await;
}

#[tokio::test]
async fn an_expired_version_is_survived_however_it_is_told() {
    let server = server();
    put(&server, MESH);
    let mut reader = Reader::of_cluster(&server).await;
    reader.synced().await;
    // As the status of the answer, and as an event of the watch.
    server.fail_next(1, Some("GET"), "/apis/discovery.k8s.io/v1/endpointslices", 410);
    server.take_requests();
    server.cut_watches(Some("endpointslices"), Cut::Clean);
    moves(&server, &mut reader, "192.0.2.1").await;
    assert_eq!(lists_of_slices(&server), 1, "it resumed at the expired version");
    server.kill();
    put(&server, &slice("192.0.2.2"));
    server.compact_history();
    server.restart().unwrap();
    moves(&server, &mut reader, "192.0.2.3").await;
}

#[tokio::test]
async fn kinds_come_and_go_with_their_definitions() {
    let server = ApiServer::start();
    let without_rules: String = MESH
        .split("---\n")
        .filter(|text| text.contains("apiVersion: v1\n"))
        .collect::<Vec<_>>()
        .join("---\n");
    put(&server, &without_rules);
    let mut reader = Reader::of_cluster(&server).await;
    let bare = content(&*reader.synced().await);
    let route = MESH.split("---\n").find(|text| text.contains("name: split")).unwrap();
    for versions in [&["v1", "v1beta1"][..], &["v1beta1"]] {
        server.put(definition("HTTPRoute", "httproutes", "gateway.networking.k8s.io", versions)).unwrap();
        put(&server, &route.replace("io/v1\n", &format!("io/{}\n", versions[0])));
        reader.until("the route", |snapshot| content(snapshot) != bare).await;
        let definitions = Collection::new("apiextensions.k8s.io", "customresourcedefinitions");
        assert!(server.remove(&definitions, "", "httproutes.gateway.networking.k8s.io"));
        reader.until("no route", |snapshot| content(snapshot) == bare).await;
    }
    // Installed again, and empty.
    server.put(http_routes()).unwrap();
}

#[tokio::test]
async fn nothing_is_lost_whatever_happens() {
    let server = server();
    put(&server, MESH);
    let mut reader = Reader::of_cluster(&server).await;
    reader.synced().await;
    let mut random = fastrand::Rng::with_seed(7);
    let objects = documents(MESH);
    for round in 0..4 {
        for _ in 0..30 {
            match random.u8(..10) {
                0 => server.cut_watches(None, if random.bool() { Cut::Clean } else { Cut::Reset }),
                1 => server.compact_history(),
                2 => server.send_bookmarks(),
                3 if random.u8(..4) == 0 => {
                    server.kill();
                    server.restart().unwrap();
                }
                4 => server.fail_next(1, Some("GET"), "/ap", [401, 403, 429, 500, 503][random.usize(..5)]),
                5 | 6 => {
                    let collection = &crate::world::collections()[random.usize(..7)];
                    if let Some(victim) = random.choice(server.list(collection)) {
                        let field =
                            |name: &str| victim["metadata"][name].as_str().unwrap_or_default().to_owned();
                        server.remove(collection, &field("namespace"), &field("name"));
                    }
                }
                _ => {
                    let mut object = objects[random.usize(..objects.len())].clone();
                    if object["metadata"]["name"] == "broken" {
                        continue;
                    }
                    let version = format!("v{}", random.u8(1..4));
                    object["metadata"]["labels"]["version"] = version.into();
                    server.put(object).unwrap();
                }
            }
            tokio::task::yield_now().await;
        }
        let expected = content(&*Reader::of_directory(&dump(&server)).synced().await);
        reader.until(&format!("round {round}"), |snapshot| content(snapshot) == expected).await;
    }
}
