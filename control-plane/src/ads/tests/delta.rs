//! The incremental variant on one stream of all types.

use std::collections::HashMap;

use super::*;

#[tokio::test]
async fn a_change_sends_only_the_difference_and_removals_come_last() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    client.subscribe(Cluster, &[]).await;
    assert_eq!(client.accept().await, "cds +a=1 +b=1");
    client.subscribe(Endpoints, &["a", "b"]).await;
    assert_eq!(client.accept().await, "eds +a=1 +b=1");
    client.subscribe(Listener, &[]).await;
    assert_eq!(client.accept().await, "lds +l=1");
    client.subscribe(Route, &["r"]).await;
    assert_eq!(client.accept().await, "rds +r=to b");

    mesh.publish(snapshot(2, SECOND));
    assert_eq!(client.accept().await, "cds +c=1");
    assert_eq!(client.accept().await, "eds +a=2");
    let route = client.next().await;
    assert_eq!(Client::<Delta>::shown(&route), "rds +r=to c");
    assert_eq!(route.system_version_info, "2");
    client.answer(&route, None).await;
    assert_eq!(client.accept().await, "cds -b");
    let proxies = mesh
        .proxies(|proxies| {
            proxies[0]["types"]["cds"]["accepted"] == 2 && proxies[0]["types"]["cds"]["state"] == "synced"
        })
        .await;
    assert_eq!(proxies[0]["types"]["sds"]["state"], "never_sent");
    assert_eq!((&proxies[0]["variant"], &proxies[0]["service"]), (&"delta".into(), &"ads".into()));
    assert_eq!(proxies[0]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_xds_pushes_total{type=\"cds\"} 3"), "{metrics}");
    assert!(metrics.contains("outrigger_connected_proxies 1"));
    assert!(metrics.contains("pilot_proxy_convergence_time_count 1"), "{metrics}");
}

#[tokio::test]
async fn a_nack_is_recorded_and_not_repeated() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    client.subscribe(Listener, &[]).await;
    let response = client.next().await;
    client.answer(&response, Some("l: filter_chains[0]: no")).await;
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["lds"]["state"] == "nacked").await;
    let status = &proxies[0]["types"]["lds"];
    assert_eq!(status["last_nack"]["error"], "l: filter_chains[0]: no");
    assert_eq!(status["rejected"][0], "l");
    assert!(mesh.page("/metrics").await.1.contains("outrigger_xds_nacks_total{type=\"lds\"} 1"));
    // The same content again is not sent; the next change is.
    mesh.publish(snapshot(2, FIRST));
    mesh.publish(snapshot(3, &[(Listener, &[("l", "2")])]));
    assert_eq!(client.accept().await, "lds +l=2");
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["lds"]["state"] == "synced").await;
    assert_eq!(proxies[0]["types"]["lds"]["last_nack"]["resources"][0], "l", "kept for the reader");
}

#[tokio::test]
async fn a_reconnect_costs_only_the_difference() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    client.subscribe(Cluster, &[]).await;
    let response = client.next().await;
    let held: HashMap<String, String> =
        response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    drop(client);

    mesh.publish(snapshot(2, &[(Cluster, &[("a", "1"), ("b", "2")])]));
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    let mut request = Delta::subscription(Cluster, &[]);
    request.initial_resource_versions = held;
    client.send(request).await;
    assert_eq!(client.accept().await, "cds +b=2");

    // With nothing new a wildcard subscription is answered with nothing.
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    let mut request = Delta::subscription(Cluster, &[]);
    request.initial_resource_versions = ["a", "b"]
        .into_iter()
        .zip(["1", "2"])
        .map(|(name, body)| {
            (name.to_owned(), Resource::new(Cluster, name, encoded(name, body)).version.to_string())
        })
        .collect();
    client.send(request).await;
    assert_eq!(client.accept().await, "cds");
}
