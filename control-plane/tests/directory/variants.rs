//! Both variants of the protocol, on one stream and on a stream for each type, over TCP and over a Unix socket: a proxy
//! that runs the sessions of `xds-api` gets the mesh, gets what changes, and after a restart gets nothing twice.

use std::collections::BTreeMap;

use outrigger_control_plane::ControlPlane;
use outrigger_xds_api::ResourceType::{self, Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use outrigger_xds_api::resource::unpack;
use outrigger_xds_api::session::{Received, WILDCARD, delta, sotw};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::endpoint::v3 as endpoint;
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use outrigger_xds_api::wire::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use outrigger_xds_api::wire::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use outrigger_xds_api::wire::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::world::{DEADLINE, NODE, REVIEWS, World, page, save, slice};

const WANTED: [(ResourceType, &str); 4] = [
    (Cluster, WILDCARD),
    (ClusterLoadAssignment, REVIEWS),
    (Listener, WILDCARD),
    (RouteConfiguration, "15001"),
];

type Opened<V> = Result<Response<Streaming<<V as Variant>::Response>>, Status>;

/// The client's session in one of the variants.
trait Variant: Sized {
    const NAME: &'static str;
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Opens the service of one type, or of all.
    async fn open(
        channel: Channel,
        of: Option<ResourceType>,
        requests: Request<ReceiverStream<Self::Request>>,
    ) -> Opened<Self>;
    fn new(of: ResourceType, name: &str) -> Self;
    fn next_request(&mut self) -> Option<Self::Request>;
    fn accept(&mut self, response: Self::Response) -> (Received, Self::Request);
    fn close(&mut self);
    fn type_url(response: &Self::Response) -> &str;
}

fn node() -> Node {
    Node { id: NODE.to_owned(), ..Node::default() }
}

impl Variant for delta::Client {
    const NAME: &'static str = "delta";
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    async fn open(
        channel: Channel,
        of: Option<ResourceType>,
        requests: Request<ReceiverStream<DeltaDiscoveryRequest>>,
    ) -> Opened<Self> {
        match of {
            None => AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await,
            Some(Cluster) => ClusterDiscoveryServiceClient::new(channel).delta_clusters(requests).await,
            Some(Listener) => ListenerDiscoveryServiceClient::new(channel).delta_listeners(requests).await,
            Some(RouteConfiguration) => {
                RouteDiscoveryServiceClient::new(channel).delta_routes(requests).await
            }
            Some(_) => EndpointDiscoveryServiceClient::new(channel).delta_endpoints(requests).await,
        }
    }

    fn new(of: ResourceType, name: &str) -> Self {
        let mut session = delta::Client::new(of);
        session.subscribe(name);
        session
    }

    fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.next_request(&node())
    }

    fn accept(&mut self, response: DeltaDiscoveryResponse) -> (Received, DeltaDiscoveryRequest) {
        let received = self.on_response(response).unwrap();
        let answer = self.ack(&received.nonce).unwrap();
        (received, answer)
    }

    fn close(&mut self) {
        self.on_stream_closed();
    }

    fn type_url(response: &DeltaDiscoveryResponse) -> &str {
        &response.type_url
    }
}

impl Variant for sotw::Client {
    const NAME: &'static str = "sotw";
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    async fn open(
        channel: Channel,
        of: Option<ResourceType>,
        requests: Request<ReceiverStream<DiscoveryRequest>>,
    ) -> Opened<Self> {
        match of {
            None => {
                AggregatedDiscoveryServiceClient::new(channel).stream_aggregated_resources(requests).await
            }
            Some(Cluster) => ClusterDiscoveryServiceClient::new(channel).stream_clusters(requests).await,
            Some(Listener) => ListenerDiscoveryServiceClient::new(channel).stream_listeners(requests).await,
            Some(RouteConfiguration) => {
                RouteDiscoveryServiceClient::new(channel).stream_routes(requests).await
            }
            Some(_) => EndpointDiscoveryServiceClient::new(channel).stream_endpoints(requests).await,
        }
    }

    fn new(of: ResourceType, name: &str) -> Self {
        let mut session = sotw::Client::new(of);
        session.subscribe(name);
        session
    }

    fn next_request(&mut self) -> Option<DiscoveryRequest> {
        self.next_request(&node())
    }

    fn accept(&mut self, response: DiscoveryResponse) -> (Received, DiscoveryRequest) {
        let received = self.on_response(response).unwrap();
        let answer = self.ack(&received.nonce).unwrap();
        (received, answer)
    }

    fn close(&mut self) {
        self.on_stream_closed();
    }

    fn type_url(response: &DiscoveryResponse) -> &str {
        &response.type_url
    }
}

/// A proxy that wants [`WANTED`] and accepts everything.
struct Proxy<V: Variant> {
    sessions: Vec<(ResourceType, V)>,
    resources: BTreeMap<(ResourceType, String), Any>,
    /// How many resources of each type came since it connected.
    came: BTreeMap<ResourceType, usize>,
    /// Where requests of each type go, and where responses of all come from.
    requests: BTreeMap<ResourceType, mpsc::Sender<V::Request>>,
    responses: Option<mpsc::Receiver<V::Response>>,
}

impl<V: Variant> Proxy<V> {
    fn new() -> Self {
        Self {
            sessions: WANTED.into_iter().map(|(of, name)| (of, V::new(of, name))).collect(),
            resources: BTreeMap::new(),
            came: BTreeMap::new(),
            requests: BTreeMap::new(),
            responses: None,
        }
    }

    async fn connect(&mut self, world: &World, control_plane: &ControlPlane, is_aggregated: bool) {
        self.came.clear();
        let (sender, receiver) = mpsc::channel(16);
        self.responses = Some(receiver);
        let mut aggregated = None;
        for (of, session) in &mut self.sessions {
            session.close();
            if let Some(requests) = &aggregated {
                self.requests.insert(*of, mpsc::Sender::clone(requests));
                continue;
            }
            let (requests, outgoing) = mpsc::channel(16);
            let mut request = Request::new(ReceiverStream::new(outgoing));
            request.metadata_mut().insert("authorization", world.authorization());
            let service = (!is_aggregated).then_some(*of);
            let channel = world.channel(control_plane).await;
            let mut responses = V::open(channel, service, request).await.unwrap().into_inner();
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Ok(Some(response)) = responses.message().await {
                    let _ = sender.send(response).await;
                }
            });
            aggregated = is_aggregated.then(|| requests.clone());
            self.requests.insert(*of, requests);
        }
        for (of, session) in &mut self.sessions {
            while let Some(request) = session.next_request() {
                self.requests[of].send(request).await.unwrap();
            }
        }
    }

    /// Takes in what comes until `is_done`.
    async fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        let run = async {
            while !is_done(self) {
                let response = self.responses.as_mut().unwrap().recv().await.expect("the streams are open");
                let of = ResourceType::from_type_url(V::type_url(&response)).unwrap();
                let (_, session) = self.sessions.iter_mut().find(|(own, _)| *own == of).unwrap();
                let (received, answer) = session.accept(response);
                self.requests[&of].send(answer).await.unwrap();
                *self.came.entry(of).or_default() += received.updated.len();
                for update in received.updated {
                    self.resources.insert((of, update.name), update.content);
                }
                for name in received.removed {
                    self.resources.remove(&(of, name));
                }
            }
        };
        tokio::time::timeout(DEADLINE, run).await.expect("it came in time");
    }

    fn has(&self, of: ResourceType, name: &str) -> bool {
        self.resources.contains_key(&(of, name.to_owned()))
    }

    /// Whether the service has this only endpoint.
    fn has_endpoint(&self, address: &str) -> bool {
        let assignment = self.resources.get(&(ClusterLoadAssignment, REVIEWS.to_owned()));
        assignment.is_some_and(|any| {
            let assignment = unpack::<endpoint::ClusterLoadAssignment>(any).unwrap();
            let endpoints: Vec<_> =
                assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints).collect();
            endpoints.len() == 1 && format!("{endpoints:?}").contains(&format!("\"{address}\""))
        })
    }
}

async fn a_mesh_and_its_changes<V: Variant>(is_aggregated: bool, is_unix: bool) {
    let world = World::new();
    let address = match is_unix {
        true => format!("unix:{}", world.socket().display()),
        false => "127.0.0.1:0".to_owned(),
    };
    let control_plane = world.start(&address).await;
    let mut proxy = Proxy::<V>::new();
    proxy.connect(&world, &control_plane, is_aggregated).await;
    proxy
        .run_until(|proxy| {
            let listens = proxy.resources.keys().any(|(of, _)| *of == Listener);
            let routes = proxy.has(RouteConfiguration, "15001");
            proxy.has(Cluster, REVIEWS) && proxy.has_endpoint("127.1.0.2") && listens && routes
        })
        .await;
    let shown =
        page(&control_plane, "/proxies", |text| text.contains("\"synced\"") && !text.contains("\"stale\""))
            .await;
    let (_, shown) = shown.split_once("\r\n\r\n").unwrap();
    let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
    let rows = shown["proxies"].as_array().unwrap();
    let services: Vec<_> = rows.iter().map(|row| row["service"].as_str().unwrap()).collect();
    assert_eq!(services, if is_aggregated { &["ads"][..] } else { &["cds", "eds", "lds", "rds"] });
    for row in rows {
        assert_eq!(row["variant"], V::NAME);
        assert_eq!(row["address"].as_str().unwrap().starts_with("unix (process"), is_unix, "{row}");
    }

    let before = proxy.came.clone();
    save(&world.mesh(), "slice.yaml", &slice("127.1.0.3"));
    proxy.run_until(|proxy| proxy.has_endpoint("127.1.0.3")).await;
    let only_endpoints = |of: &ResourceType| *of == ClusterLoadAssignment || proxy.came[of] == before[of];
    assert!(proxy.came.keys().all(only_endpoints), "{before:?} {:?}", proxy.came);

    // The control plane starts again. What is the same there does not come again.
    control_plane.stop().await;
    let control_plane = world.start(&address).await;
    proxy.connect(&world, &control_plane, is_aggregated).await;
    save(&world.mesh(), "slice.yaml", &slice("127.1.0.4"));
    proxy.run_until(|proxy| proxy.has_endpoint("127.1.0.4")).await;
    assert_eq!(proxy.came.values().sum::<usize>(), 1, "{:?}", proxy.came);
    control_plane.stop().await;
}

#[tokio::test]
async fn incremental_on_one_stream() {
    a_mesh_and_its_changes::<delta::Client>(true, false).await;
    a_mesh_and_its_changes::<delta::Client>(true, true).await;
}

#[tokio::test]
async fn incremental_on_separate_streams() {
    a_mesh_and_its_changes::<delta::Client>(false, false).await;
    a_mesh_and_its_changes::<delta::Client>(false, true).await;
}

#[tokio::test]
async fn state_of_the_world_on_one_stream() {
    a_mesh_and_its_changes::<sotw::Client>(true, false).await;
    a_mesh_and_its_changes::<sotw::Client>(true, true).await;
}

#[tokio::test]
async fn state_of_the_world_on_separate_streams() {
    a_mesh_and_its_changes::<sotw::Client>(false, false).await;
    a_mesh_and_its_changes::<sotw::Client>(false, true).await;
}
