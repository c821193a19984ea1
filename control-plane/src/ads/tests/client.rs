//! An xDS client of either variant, of the aggregated service or of one type's.

use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::rpc;
use outrigger_xds_api::wire::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use outrigger_xds_api::wire::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use outrigger_xds_api::wire::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use outrigger_xds_api::wire::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use outrigger_xds_api::wire::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::ads::variant::Variant;

type Opened<V> = Result<Response<Streaming<<V as Variant>::Response>>, Status>;

/// What a client says in one of the variants.
pub(super) trait Dialect: Variant {
    async fn open(
        channel: Channel,
        service: Service,
        requests: Request<ReceiverStream<Self::Request>>,
    ) -> Opened<Self>;
    fn subscription(of: ResourceType, names: &[&str]) -> Self::Request;
    /// The answer to a response by a client that is subscribed to `names`.
    fn answer(response: &Self::Response, names: &[&str], error: Option<&str>) -> Self::Request;
    fn node_mut(request: &mut Self::Request) -> &mut Option<Node>;
    fn error_mut(request: &mut Self::Request) -> &mut Option<rpc::Status>;
    fn type_of(response: &Self::Response) -> ResourceType;
    /// What is in a response, ` name=body` and so on.
    fn shown(response: &Self::Response) -> String;
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn status(message: &str) -> rpc::Status {
    rpc::Status { code: 3, message: message.into(), details: vec![] }
}

impl Dialect for Delta {
    async fn open(
        channel: Channel,
        service: Service,
        requests: Request<ReceiverStream<DeltaDiscoveryRequest>>,
    ) -> Opened<Self> {
        match service {
            Service::Aggregated => {
                AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await
            }
            Service::Of(Cluster) => {
                ClusterDiscoveryServiceClient::new(channel).delta_clusters(requests).await
            }
            Service::Of(Endpoints) => {
                EndpointDiscoveryServiceClient::new(channel).delta_endpoints(requests).await
            }
            Service::Of(Listener) => {
                ListenerDiscoveryServiceClient::new(channel).delta_listeners(requests).await
            }
            Service::Of(Route) => RouteDiscoveryServiceClient::new(channel).delta_routes(requests).await,
            Service::Of(Secret) => SecretDiscoveryServiceClient::new(channel).delta_secrets(requests).await,
            Service::Of(ResourceType::VirtualHost | ResourceType::ExtensionConfig) => {
                unreachable!("it is not served")
            }
        }
    }

    fn subscription(of: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: of.type_url().to_owned(),
            resource_names_subscribe: owned(names),
            ..Default::default()
        }
    }

    fn answer(response: &DeltaDiscoveryResponse, _: &[&str], error: Option<&str>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(status),
            ..Default::default()
        }
    }

    fn error_mut(request: &mut DeltaDiscoveryRequest) -> &mut Option<rpc::Status> {
        &mut request.error_detail
    }

    fn node_mut(request: &mut DeltaDiscoveryRequest) -> &mut Option<Node> {
        &mut request.node
    }

    fn type_of(response: &DeltaDiscoveryResponse) -> ResourceType {
        ResourceType::from_type_url(&response.type_url).unwrap()
    }

    /// ` +updated=body -removed`
    fn shown(response: &DeltaDiscoveryResponse) -> String {
        let updated = response.resources.iter().map(|resource| {
            let any = resource.resource.as_ref().unwrap();
            assert_eq!(any.type_url, response.type_url);
            let (name, body) = decoded(any);
            assert_eq!(name, resource.name);
            format!(" +{name}={body}")
        });
        updated.chain(response.removed_resources.iter().map(|name| format!(" -{name}"))).collect()
    }
}

impl Dialect for Sotw {
    async fn open(
        channel: Channel,
        service: Service,
        requests: Request<ReceiverStream<DiscoveryRequest>>,
    ) -> Opened<Self> {
        match service {
            Service::Aggregated => {
                AggregatedDiscoveryServiceClient::new(channel).stream_aggregated_resources(requests).await
            }
            Service::Of(Cluster) => {
                ClusterDiscoveryServiceClient::new(channel).stream_clusters(requests).await
            }
            Service::Of(Endpoints) => {
                EndpointDiscoveryServiceClient::new(channel).stream_endpoints(requests).await
            }
            Service::Of(Listener) => {
                ListenerDiscoveryServiceClient::new(channel).stream_listeners(requests).await
            }
            Service::Of(Route) => RouteDiscoveryServiceClient::new(channel).stream_routes(requests).await,
            Service::Of(Secret) => SecretDiscoveryServiceClient::new(channel).stream_secrets(requests).await,
            Service::Of(ResourceType::VirtualHost | ResourceType::ExtensionConfig) => {
                unreachable!("it is not served")
            }
        }
    }

    fn subscription(of: ResourceType, names: &[&str]) -> DiscoveryRequest {
        let (type_url, resource_names) = (of.type_url().to_owned(), owned(names));
        DiscoveryRequest { type_url, resource_names, ..Default::default() }
    }

    fn answer(response: &DiscoveryResponse, names: &[&str], error: Option<&str>) -> DiscoveryRequest {
        DiscoveryRequest {
            // The version of the one before is not known here, and the server does not read it.
            version_info: if error.is_none() { response.version_info.clone() } else { String::new() },
            resource_names: owned(names),
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(status),
            ..Default::default()
        }
    }

    fn error_mut(request: &mut DiscoveryRequest) -> &mut Option<rpc::Status> {
        &mut request.error_detail
    }

    fn node_mut(request: &mut DiscoveryRequest) -> &mut Option<Node> {
        &mut request.node
    }

    fn type_of(response: &DiscoveryResponse) -> ResourceType {
        ResourceType::from_type_url(&response.type_url).unwrap()
    }

    /// ` name=body` of each resource
    fn shown(response: &DiscoveryResponse) -> String {
        let resources = response.resources.iter().map(|any| {
            assert_eq!(any.type_url, response.type_url);
            let (name, body) = decoded(any);
            format!(" {name}={body}")
        });
        resources.collect()
    }
}

/// A resource of any type: its name, which all have as field 1, and a field that none has.
pub(super) fn encoded(name: &str, body: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let name_field = [&[0x0a, length(name)], name.as_bytes()].concat();
    [&name_field, &[0xfa, 0x3f, length(body)][..], body.as_bytes()].concat()
}

fn decoded(any: &Any) -> (String, String) {
    let name = outrigger_xds_api::resource::name_of(any).unwrap();
    let body = any.value[2 + name.len() + 3..].to_vec();
    (name, String::from_utf8(body).unwrap())
}

pub(super) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A plaintext connection.
pub(super) async fn channel(address: &XdsAddress) -> Channel {
    let uri = match address {
        XdsAddress::Tcp(address) => format!("http://{address}"),
        XdsAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

pub(super) struct Client<V: Dialect> {
    requests: mpsc::Sender<V::Request>,
    responses: Streaming<V::Response>,
    node: Option<String>,
    /// The names subscribed to, by type.
    names: [Vec<String>; ResourceType::ALL.len()],
}

impl<V: Dialect> Client<V> {
    pub(super) async fn connect(
        channel: Channel,
        service: Service,
        node: &str,
        token: &str,
    ) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(receiver), token);
        let responses = V::open(channel, service, request).await?.into_inner();
        Ok(Self { requests, responses, node: Some(node.to_owned()), names: Default::default() })
    }

    /// Only the first request of the stream names the node (`set_node_on_first_message_only`).
    pub(super) async fn send(&mut self, mut request: V::Request) {
        *V::node_mut(&mut request) = self.node.take().map(|id| Node { id, ..Node::default() });
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn subscribe(&mut self, of: ResourceType, names: &[&str]) {
        self.names[of as usize] = owned(names);
        self.send(V::subscription(of, names)).await;
    }

    pub(super) async fn next(&mut self) -> V::Response {
        tokio::time::timeout(DEADLINE, self.responses.message())
            .await
            .expect("a response in time")
            .unwrap()
            .expect("a response")
    }

    pub(super) async fn answer(&mut self, response: &V::Response, error: Option<&str>) {
        let names: Vec<&str> = self.names[V::type_of(response) as usize].iter().map(String::as_str).collect();
        let answer = V::answer(response, &names, error);
        self.send(answer).await;
    }

    /// Takes the next response in, accepts it and shows it: `type resources`.
    pub(super) async fn accept(&mut self) -> String {
        let response = self.next().await;
        self.answer(&response, None).await;
        Self::shown(&response)
    }

    pub(super) fn shown(response: &V::Response) -> String {
        format!("{}{}", V::type_of(response), V::shown(response))
    }

    /// Whether something has come that nobody took.
    pub(super) fn has_response(&mut self) -> bool {
        use futures_util::FutureExt as _;
        self.responses.message().now_or_never().is_some()
    }

    /// The status that ends the stream.
    pub(super) async fn refusal(&mut self) -> Status {
        let end = async {
            loop {
                match self.responses.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("ended without a reason"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(DEADLINE, end).await.expect("the end in time")
    }
}
