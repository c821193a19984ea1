//! The state-of-the-world variant on one stream of all types.

use outrigger_xds_api::wire::discovery::v3::DiscoveryRequest;

use super::*;

async fn settled(mesh: &Mesh) -> Client<Sotw> {
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    client.subscribe(Cluster, &[]).await;
    assert_eq!(client.accept().await, "cds a=1 b=1");
    client.subscribe(Endpoints, &["a", "b"]).await;
    assert_eq!(client.accept().await, "eds a=1 b=1");
    client.subscribe(Listener, &[]).await;
    assert_eq!(client.accept().await, "lds l=1");
    client.subscribe(Route, &["r"]).await;
    assert_eq!(client.accept().await, "rds r=to b");
    client
}

#[tokio::test]
async fn the_order_of_types_holds_and_removals_come_last() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = settled(&mesh).await;
    mesh.publish(snapshot(2, SECOND));
    assert_eq!(client.accept().await, "cds a=1 b=1 c=1", "`b` stays until the route is accepted");
    assert_eq!(client.accept().await, "eds a=2");
    let route = client.next().await;
    assert_eq!(Client::<Sotw>::shown(&route), "rds r=to c");
    client.answer(&route, None).await;
    assert_eq!(client.accept().await, "cds a=1 c=1");
    let settled = |proxies: &serde_json::Value| {
        let cds = &proxies[0]["types"]["cds"];
        cds["accepted"] == 2 && cds["state"] == "synced"
    };
    let proxies = mesh.proxies(settled).await;
    assert_eq!((&proxies[0]["variant"], &proxies[0]["service"]), (&"sotw".into(), &"ads".into()));
    assert_eq!(proxies[0]["types"]["sds"]["state"], "never_sent");
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_xds_pushes_total{type=\"cds\"} 3"), "{metrics}");
    assert!(metrics.contains("pilot_proxy_convergence_time_count 1"), "{metrics}");
}

#[tokio::test]
async fn names_and_wildcards_get_what_exists() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    client.subscribe(Route, &["r"]).await;
    client.subscribe(Cluster, &["*"]).await;
    client.subscribe(Listener, &["l", "x"]).await;
    let mut first = vec![client.accept().await, client.accept().await, client.accept().await];
    first.sort_unstable();
    assert_eq!(first, ["cds a=1 b=1", "lds l=1", "rds r=to b"]);
}

#[tokio::test]
async fn a_nack_is_recorded_and_not_repeated() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    client.subscribe(Cluster, &[]).await;
    client.accept().await;
    mesh.publish(snapshot(2, &[(Cluster, &[("a", "1"), ("b", "2")])]));
    let response = client.next().await;
    client.answer(&response, Some("b: lb_policy: no")).await;
    let proxies = mesh.proxies(|proxies| proxies[0]["types"]["cds"]["state"] == "nacked").await;
    let status = &proxies[0]["types"]["cds"];
    assert_eq!(status["last_nack"]["error"], "b: lb_policy: no");
    assert_eq!(
        (&status["rejected"], &status["last_nack"]["resources"]),
        (&["b"][..].into(), &["b"][..].into())
    );
    assert!(mesh.page("/metrics").await.1.contains("outrigger_xds_nacks_total{type=\"cds\"} 1"));
    // The same content again is not sent; the next change is.
    mesh.publish(snapshot(3, &[(Cluster, &[("a", "1"), ("b", "2")])]));
    mesh.publish(snapshot(4, &[(Cluster, &[("a", "1"), ("b", "3")])]));
    assert_eq!(client.accept().await, "cds a=1 b=3");
    mesh.proxies(|proxies| proxies[0]["types"]["cds"]["state"] == "synced").await;
}

/// Another control plane with the same content: a restart, or another replica.
#[tokio::test]
async fn who_comes_back_with_the_version_is_sent_nothing() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut requests: Vec<DiscoveryRequest> = Vec::new();
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    for (of, names) in [(Cluster, &[][..]), (Endpoints, &["a", "b"]), (Listener, &[]), (Route, &["r"])] {
        client.subscribe(of, names).await;
        let version_info = client.next().await.version_info;
        requests.push(DiscoveryRequest { version_info, ..Sotw::subscription(of, names) });
    }
    let mesh = Mesh::start(snapshot(7, FIRST)).await;
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    for request in requests.clone() {
        client.send(request).await;
    }
    let is_synced = |proxies: &serde_json::Value| {
        ["cds", "eds", "lds", "rds"].iter().all(|of| proxies[0]["types"][of]["state"] == "synced")
    };
    let proxies = mesh.proxies(is_synced).await;
    assert_eq!(proxies[0]["types"]["cds"]["accepted"], 2);
    assert!(!client.has_response());
    // The next change comes, and only that.
    mesh.publish(snapshot(8, SECOND));
    assert_eq!(client.accept().await, "cds a=1 b=1 c=1");

    // What is not the same is sent; so is all of a type that it wants more of.
    let mesh = Mesh::start(snapshot(1, SECOND)).await;
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    let mut cds = requests[0].clone();
    cds.version_info.clone_from(&requests[2].version_info);
    client.send(cds).await;
    assert_eq!(client.accept().await, "cds a=1 c=1");
    client.send(requests[2].clone()).await;
    client.send(requests[1].clone()).await;
    assert_eq!(client.next().await.type_url, Endpoints.type_url(), "and no listeners before it");
}

/// As an Envoy does that warms a changed cluster.
#[tokio::test]
async fn who_asks_again_is_answered() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    client.subscribe(Endpoints, &["a", "b"]).await;
    let first = client.next().await;
    client.answer(&first, None).await;
    client.answer(&first, None).await;
    assert_eq!(client.accept().await, "eds a=1 b=1");
    client.subscribe(Endpoints, &["b", "c"]).await;
    mesh.publish(snapshot(2, &[(Endpoints, &[("a", "2"), ("b", "1"), ("c", "1")])]));
    assert_eq!(client.accept().await, "eds c=1", "`a` is not asked for any more");
}
