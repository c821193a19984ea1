//! The services of one type each, in both variants.

use outrigger_xds_api::wire::discovery::v3::DiscoveryRequest;
use outrigger_xds_api::wire::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;

use super::*;

const SUBSCRIPTIONS: [(ResourceType, &[&str]); 5] =
    [(Cluster, &[]), (Endpoints, &["a", "b"]), (Listener, &["*"]), (Route, &["r"]), (Secret, &["*"])];

/// Opens a stream for each type, shows what comes first, changes the mesh and shows what comes then.
async fn serve_separately<V: Dialect>(first: [&str; 5], cds: [&str; 2], eds: &str, rds: &str) {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut clients = Vec::new();
    for ((of, names), expected) in SUBSCRIPTIONS.into_iter().zip(first) {
        let mut client = mesh.open::<V>(Service::Of(of)).await;
        client.subscribe(of, names).await;
        assert_eq!(client.accept().await, expected);
        clients.push(client);
    }
    mesh.publish(snapshot(2, SECOND));
    assert_eq!(clients[0].accept().await, cds[0]);
    assert_eq!(clients[0].accept().await, cds[1]);
    assert_eq!(clients[1].accept().await, eds);
    assert_eq!(clients[3].accept().await, rds);
    let is_synced = |proxies: &serde_json::Value| {
        let of =
            |row: &serde_json::Value| row["types"][row["service"].as_str().unwrap()]["state"] == "synced";
        proxies.as_array().unwrap().iter().all(of)
    };
    let proxies = mesh.proxies(is_synced).await;
    let services: Vec<_> = proxies.as_array().unwrap().iter().map(|row| &row["service"]).collect();
    assert_eq!(services, ["cds", "eds", "lds", "rds", "sds"]);
    assert!(proxies.as_array().unwrap().iter().all(|row| row["variant"] == V::NAME && row["id"] == WEB));
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_connected_proxies 1"), "five streams of one proxy: {metrics}");
    drop(clients);
    mesh.proxies(|proxies| proxies.as_array().unwrap().is_empty()).await;
    assert!(mesh.page("/metrics").await.1.contains("outrigger_connected_proxies 0"));
}

#[tokio::test]
async fn each_type_has_a_service_in_the_incremental_variant() {
    let first = ["cds +a=1 +b=1", "eds +a=1 +b=1", "lds +l=1", "rds +r=to b", "sds"];
    serve_separately::<Delta>(first, ["cds +c=1", "cds -b"], "eds +a=2", "rds +r=to c").await;
}

#[tokio::test]
async fn each_type_has_a_service_in_the_state_of_the_world() {
    let first = ["cds a=1 b=1", "eds a=1 b=1", "lds l=1", "rds r=to b", "sds"];
    serve_separately::<Sotw>(first, ["cds a=1 b=1 c=1", "cds a=1 c=1"], "eds a=2", "rds r=to c").await;
}

/// The type is implicit in a service of one type (`DiscoveryRequest.type_url`).
#[tokio::test]
async fn the_type_may_be_left_out_but_not_be_another() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.open::<Sotw>(Service::Of(Cluster)).await;
    client.send(DiscoveryRequest::default()).await;
    assert_eq!(client.accept().await, "cds a=1 b=1");
    client.send(Sotw::subscription(Listener, &[])).await;
    let status = client.refusal().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("envoy.config.listener.v3.Listener` is not served"), "{status:?}");

    let mut client = mesh.open::<Delta>(Service::Of(Endpoints)).await;
    client.send(Default::default()).await;
    client.subscribe(Endpoints, &["a"]).await;
    assert_eq!(client.accept().await, "eds +a=1");
    let mut client = mesh.open::<Sotw>(Service::Aggregated).await;
    client.send(DiscoveryRequest::default()).await;
    assert_eq!(client.refusal().await.code(), Code::InvalidArgument, "all types in one stream need it");

    // Types that only other control planes serve.
    for of in [ResourceType::VirtualHost, ResourceType::ExtensionConfig] {
        let mut client = mesh.open::<Delta>(Service::Aggregated).await;
        client.send(Delta::subscription(of, &["x"])).await;
        let status = client.refusal().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(&format!("`{}` is not served", of.type_url())), "{status:?}");
    }
}

#[tokio::test]
async fn each_stream_proves_who_it_is() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    mesh.control_plane.ready().await;
    for service in SUBSCRIPTIONS.map(|(of, _)| Service::Of(of)) {
        let channel = mesh.channel().await;
        let status = Client::<Sotw>::connect(channel.clone(), service, WEB, "wrong").await.err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated);
        let mut client = mesh.connect::<Sotw>(service, REVIEWS, "web-0").await;
        client.subscribe(Cluster, &[]).await;
        assert_eq!(client.refusal().await.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn fetching_once_is_not_served() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = ListenerDiscoveryServiceClient::new(mesh.channel().await);
    let status = client.fetch_listeners(DiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
