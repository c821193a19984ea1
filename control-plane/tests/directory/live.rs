//! Live changes, as one client of the incremental variant sees them.

use std::collections::BTreeSet;

use outrigger_control_plane::ControlPlane;
use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::world::{DEADLINE, NODE, REVIEWS, ROUTE, World, page, save, slice};

/// A client that subscribes to everything that it hears of, accepts it and remembers what came.
struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn connect(world: &World, control_plane: &ControlPlane) -> Self {
        let channel = world.channel(control_plane).await;
        let (requests, receiver) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", world.authorization());
        let mut service = AggregatedDiscoveryServiceClient::new(channel);
        let responses = service.delta_aggregated_resources(request).await.unwrap().into_inner();
        for of in ResourceType::ALL {
            let names = if of.has_implicit_wildcard() { vec![] } else { vec!["*".to_owned()] };
            let request = DeltaDiscoveryRequest {
                node: Some(Node { id: NODE.to_owned(), ..Node::default() }),
                type_url: of.type_url().to_owned(),
                resource_names_subscribe: names,
                ..Default::default()
            };
            requests.send(request).await.unwrap();
        }
        Self { requests, responses }
    }

    /// The next response, accepted: its type and the names that it updates and removes.
    async fn next(&mut self) -> (&'static str, BTreeSet<String>, Vec<String>) {
        let response = tokio::time::timeout(DEADLINE, self.responses.message())
            .await
            .expect("a response in time")
            .unwrap()
            .expect("a response");
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..Default::default()
        };
        self.requests.send(answer).await.unwrap();
        let of = ResourceType::from_type_url(&response.type_url).unwrap().short_name();
        let updated = response.resources.into_iter().map(|resource| resource.name).collect();
        (of, updated, response.removed_resources)
    }
}

#[tokio::test]
async fn live_changes_cost_what_they_change() {
    let world = World::new();
    let mesh = world.mesh();
    let control_plane = world.start("127.0.0.1:0").await;
    let mut client = Client::connect(&world, &control_plane).await;
    let cluster = REVIEWS.to_owned();
    let mut first = Vec::new();
    for _ in 0..ResourceType::ALL.len() {
        let (of, updated, removed) = client.next().await;
        assert!(removed.is_empty());
        assert!(!(of == "cds" || of == "eds") || updated.contains(&cluster), "{of}: {updated:?}");
        first.push(of);
    }
    assert_eq!(first, ["cds", "eds", "lds", "rds", "sds"]);

    // One endpoint changes: one resource, nothing else.
    save(&mesh, "slice.yaml", &slice("127.1.0.3"));
    assert_eq!(client.next().await, ("eds", [cluster.clone()].into(), vec![]));

    // A route comes: the route configurations for explicit and for captured calls; a broken one changes nothing and is shown with its field.
    save(&mesh, "route.yaml", &ROUTE.replace("TIMEOUT", "3s"));
    let (of, updated, removed) = client.next().await;
    let of_route = ["15001", "reviews.shop.svc.cluster.local:9080"].map(str::to_owned);
    assert_eq!((of, updated, removed.len()), ("rds", of_route.into(), 0));
    save(&mesh, "route.yaml", &ROUTE.replace("TIMEOUT", "soon"));
    let rejections = page(&control_plane, "/rejections", |text| text.contains("route.yaml")).await;
    assert!(rejections.contains("spec.rules[0].timeouts.request"), "{rejections}");
    save(&mesh, "slice.yaml", &slice("127.1.0.4"));
    assert_eq!(
        client.next().await,
        ("eds", [cluster].into(), vec![]),
        "only the endpoint, by the last good route"
    );
    page(&control_plane, "/proxies", |text| text.contains("\"synced\"") && !text.contains("\"stale\"")).await;
    page(&control_plane, "/metrics", |text| text.contains("outrigger_rejected_objects 1")).await;
    control_plane.stop().await;
}
