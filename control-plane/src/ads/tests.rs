//! The gRPC services in process, over real connections: hand-made snapshots in, what a client sees out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod refusals;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::istio_ca::{IstioCertificateRequest, IstioCertificateServiceClient};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use outrigger_xds_api::wire::rpc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Status, Streaming};

use crate::server::ControlPlane;
use crate::snapshot::{Resource, Snapshot};

const WEB: &str = "sidecar~127.1.0.1~web-0.shop~shop.svc.cluster.local";
const REVIEWS: &str = "sidecar~127.1.0.2~reviews-0.shop~shop.svc.cluster.local";

/// A control plane whose snapshots the test publishes.
struct Mesh {
    control_plane: ControlPlane,
    snapshots: watch::Sender<Arc<Snapshot>>,
    dir: tempfile::TempDir,
}

type Content = [(ResourceType, &'static [(&'static str, &'static str)])];

/// Pods web-0 and reviews-0 in `shop`, both with the same resources.
fn snapshot(generation: u64, content: &Content) -> Arc<Snapshot> {
    let resources = |wanted: ResourceType| {
        let list = content.iter().find(|(of, _)| *of == wanted).map_or(&[][..], |(_, list)| *list);
        let encoded = list.iter().map(|(name, body)| Resource::new(wanted, name, body.as_bytes().to_vec()));
        Arc::new(encoded.map(|resource| (Arc::clone(&resource.name), Arc::new(resource))).collect())
    };
    let pods = [("web-0", "web", [127, 1, 0, 1].into()), ("reviews-0", "reviews", [127, 1, 0, 2].into())];
    Arc::new(Snapshot::by_hand(generation, "shop", &pods, resources))
}

impl Mesh {
    async fn start(first: Arc<Snapshot>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (snapshots, receiver) = watch::channel(first);
        let control_plane = ControlPlane::start_with(dir.path(), receiver).await.unwrap();
        Self { control_plane, snapshots, dir }
    }

    fn token(&self, pod: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("tokens/shop").join(pod)).unwrap()
    }

    fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshots.send_replace(snapshot);
    }

    /// A stream that says to be `node`, with the token of `pod`.
    async fn connect(&self, node: &str, pod: &str) -> Client {
        self.control_plane.ready().await;
        Client::connect(self.control_plane.addresses().xds, node, &self.token(pod)).await.unwrap()
    }

    /// One page of the admin server.
    async fn page(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.control_plane.addresses().admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The proxies page once `ready` holds for it.
    async fn proxies(&self, ready: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let poll = async {
            loop {
                let page: serde_json::Value = serde_json::from_str(&self.page("/proxies").await.1).unwrap();
                if ready(&page["proxies"]) {
                    return page["proxies"].clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), poll).await.expect("the state never came")
    }
}

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    node: Option<String>,
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

impl Client {
    async fn connect(address: SocketAddr, node: &str, token: &str) -> Result<Self, Status> {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (requests, receiver) = mpsc::channel(16);
        let responses = AggregatedDiscoveryServiceClient::new(channel)
            .delta_aggregated_resources(with_token(ReceiverStream::new(receiver), token))
            .await?
            .into_inner();
        Ok(Self { requests, responses, node: Some(node.to_owned()) })
    }

    async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        // Only the first request names the node.
        request.node = self.node.take().map(|id| Node { id, ..Node::default() });
        self.requests.send(request).await.unwrap();
    }

    async fn subscribe(&mut self, of: ResourceType, names: &[&str]) {
        self.send(subscription(of, names)).await;
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        self.responses.message().await.unwrap().expect("a response")
    }

    async fn answer(&mut self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|message| rpc::Status {
                code: 3,
                message: message.into(),
                details: vec![],
            }),
            ..Default::default()
        })
        .await;
    }

    /// Takes the next response in, accepts it and shows it.
    async fn accept(&mut self) -> String {
        let response = self.next().await;
        self.answer(&response, None).await;
        shown(&response)
    }

    /// The status that ends the stream.
    async fn refusal(&mut self) -> Status {
        loop {
            match self.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without a reason"),
                Err(status) => return status,
            }
        }
    }
}

fn subscription(of: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: of.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// `type +updated=body -removed`
fn shown(response: &DeltaDiscoveryResponse) -> String {
    let of = ResourceType::from_type_url(&response.type_url).unwrap();
    let updated = response.resources.iter().map(|resource| {
        let body = resource.resource.as_ref().unwrap();
        assert_eq!(body.type_url, response.type_url);
        format!(" +{}={}", resource.name, String::from_utf8_lossy(&body.value))
    });
    let removed = response.removed_resources.iter().map(|name| format!(" -{name}"));
    format!("{of}{}", updated.chain(removed).collect::<String>())
}

use ResourceType::{Cluster, ClusterLoadAssignment as Endpoints, Listener, RouteConfiguration as Route};

const FIRST: &Content = &[
    (Cluster, &[("a", "1"), ("b", "1")]),
    (Endpoints, &[("a", "1"), ("b", "1")]),
    (Listener, &[("l", "1")]),
    (Route, &[("r", "to b")]),
];

#[tokio::test]
async fn a_change_sends_only_the_difference_and_removals_come_last() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.connect(WEB, "web-0").await;
    client.subscribe(Cluster, &[]).await;
    assert_eq!(client.accept().await, "cds +a=1 +b=1");
    client.subscribe(Endpoints, &["a", "b"]).await;
    assert_eq!(client.accept().await, "eds +a=1 +b=1");
    client.subscribe(Listener, &[]).await;
    assert_eq!(client.accept().await, "lds +l=1");
    client.subscribe(Route, &["r"]).await;
    assert_eq!(client.accept().await, "rds +r=to b");

    mesh.publish(snapshot(
        2,
        &[
            (Cluster, &[("a", "1"), ("c", "1")]),
            (Endpoints, &[("a", "2"), ("b", "1")]),
            (Listener, &[("l", "1")]),
            (Route, &[("r", "to c")]),
        ],
    ));
    assert_eq!(client.accept().await, "cds +c=1");
    assert_eq!(client.accept().await, "eds +a=2");
    let route = client.next().await;
    assert_eq!(shown(&route), "rds +r=to c");
    assert_eq!(route.system_version_info, "2");
    client.answer(&route, None).await;
    assert_eq!(client.accept().await, "cds -b");
    let proxies = mesh
        .proxies(|proxies| {
            proxies[0]["types"]["cds"]["accepted"] == 2 && proxies[0]["types"]["cds"]["state"] == "synced"
        })
        .await;
    assert_eq!(proxies[0]["types"]["sds"]["state"], "never_sent");
    assert_eq!(proxies[0]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_xds_pushes_total{type=\"cds\"} 3"), "{metrics}");
    assert!(metrics.contains("outrigger_connected_proxies 1"));
    assert!(metrics.contains("pilot_proxy_convergence_time_count 1"), "{metrics}");
}

#[tokio::test]
async fn a_nack_is_recorded_and_not_repeated() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut client = mesh.connect(WEB, "web-0").await;
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
    let mut client = mesh.connect(WEB, "web-0").await;
    client.subscribe(Cluster, &[]).await;
    let response = client.next().await;
    let held: HashMap<String, String> =
        response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    drop(client);

    mesh.publish(snapshot(2, &[(Cluster, &[("a", "1"), ("b", "2")])]));
    let mut client = mesh.connect(WEB, "web-0").await;
    let mut request = subscription(Cluster, &[]);
    request.initial_resource_versions = held;
    client.send(request).await;
    assert_eq!(client.accept().await, "cds +b=2");

    // With nothing new a wildcard subscription is answered with nothing.
    let mut client = mesh.connect(WEB, "web-0").await;
    let mut request = subscription(Cluster, &[]);
    request.initial_resource_versions = ["a", "b"]
        .into_iter()
        .zip(["1", "2"])
        .map(|(name, body)| {
            (name.to_owned(), Resource::new(Cluster, name, body.as_bytes().to_vec()).version.to_string())
        })
        .collect();
    client.send(request).await;
    assert_eq!(client.accept().await, "cds");
}

#[tokio::test]
async fn a_proxy_is_served_only_for_what_it_proved() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    for (node, pod, code, text) in [
        (REVIEWS, "web-0", Code::PermissionDenied, "token proves pod shop/web-0"),
        ("sidecar~127.1.0.9~web-0.shop~shop.svc.cluster.local", "web-0", Code::PermissionDenied, "127.1.0.9"),
        ("router~127.1.0.1~web-0.shop~shop.svc.cluster.local", "web-0", Code::InvalidArgument, "router"),
        ("web", "web-0", Code::InvalidArgument, "four parts"),
    ] {
        let mut client = mesh.connect(node, pod).await;
        client.subscribe(Cluster, &[]).await;
        let status = client.refusal().await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    let address = mesh.control_plane.addresses().xds;
    let status = Client::connect(address, WEB, "wrong").await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_xds_refused_total{reason=\"node_mismatch\"} 2"), "{metrics}");
    assert!(metrics.contains("outrigger_xds_refused_total{reason=\"invalid_token\"} 1"));
}

#[tokio::test]
async fn streams_end_with_a_reason() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut gone = mesh.connect(WEB, "web-0").await;
    gone.subscribe(Cluster, &[]).await;
    gone.accept().await;
    mesh.publish(Arc::new(Snapshot::by_hand(2, "shop", &[], |_| Arc::default())));
    assert_eq!(gone.refusal().await.code(), Code::NotFound);

    mesh.publish(snapshot(3, FIRST));
    let mut client = mesh.connect(WEB, "web-0").await;
    client.subscribe(Cluster, &[]).await;
    client.accept().await;
    let mut state_of_the_world = AggregatedDiscoveryServiceClient::new(
        Channel::from_shared(format!("http://{}", mesh.control_plane.addresses().xds))
            .unwrap()
            .connect_lazy(),
    );
    let requests = tokio_stream::empty::<DiscoveryRequest>();
    let status = state_of_the_world.stream_aggregated_resources(requests).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    mesh.control_plane.stop().await;
    let status = client.refusal().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the control plane is shutting down"));
}

#[tokio::test]
async fn nothing_is_served_before_the_source_is_read() {
    let mesh = Mesh::start(Arc::default()).await;
    assert_eq!(mesh.page("/ready").await.0, 503);
    assert!(!mesh.dir.path().join("tokens/shop").exists());
    let address = mesh.control_plane.addresses().xds;
    // The token is only made when the pod is known; its caller waits until then.
    let early = tokio::spawn(async move { Client::connect(address, WEB, "x").await.err() });
    mesh.publish(snapshot(1, FIRST));
    mesh.control_plane.ready().await;
    assert_eq!(mesh.page("/ready").await.0, 200);
    assert_eq!(early.await.unwrap().unwrap().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_certificate_service_signs_for_the_tokens_pod_only() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    mesh.control_plane.ready().await;
    let address = mesh.control_plane.addresses().xds;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = IstioCertificateServiceClient::new(channel);
    let csr = |account: &str| key_and_csr(account).1;
    let token = mesh.token("web-0");
    let chain =
        client.create_certificate(with_token(csr("web"), &token)).await.unwrap().into_inner().cert_chain;
    let root = std::fs::read_to_string(mesh.dir.path().join("root-cert.pem")).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].replace('\r', ""), root.replace('\r', ""));

    let mut negative = csr("web");
    negative.validity_duration = -1;
    let mut garbage = csr("web");
    garbage.csr = "garbage".into();
    for (request, token, code) in [
        (csr("reviews"), token.as_str(), Code::PermissionDenied),
        (csr("web"), "wrong", Code::Unauthenticated),
        (negative, &token, Code::InvalidArgument),
        (garbage, &token, Code::InvalidArgument),
    ] {
        let status = client.create_certificate(with_token(request, token)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    assert_eq!(client.create_certificate(csr("web")).await.unwrap_err().code(), Code::Unauthenticated);
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_ca_certificates_signed_total 1"));
    for reason in ["other_identity", "invalid_token", "invalid_argument", "csr", "no_credentials"] {
        assert!(metrics.contains(&format!("refused_total{{reason=\"{reason}\"}} 1")), "{reason}: {metrics}");
    }
}

/// A key, and a request for it in the name of `account`.
fn key_and_csr(account: &str) -> (rcgen::KeyPair, IstioCertificateRequest) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    params.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, IstioCertificateRequest { csr, validity_duration: 0, metadata: None })
}

#[tokio::test]
async fn over_tls_a_workload_certificate_opens_the_stream() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    mesh.control_plane.ready().await;
    let address = mesh.control_plane.addresses().xds_tls.unwrap();
    let root = std::fs::read_to_string(mesh.dir.path().join("root-cert.pem")).unwrap();
    let tls = |identity: Option<Identity>| {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&root))
            .domain_name("outrigger-control-plane.outrigger-system.svc");
        let config = match identity {
            Some(identity) => config.identity(identity),
            None => config,
        };
        let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
        async move { endpoint.tls_config(config).unwrap().connect().await }
    };
    let (key, csr) = key_and_csr("web");
    let mut authority = IstioCertificateServiceClient::new(tls(None).await.unwrap());
    let response = authority.create_certificate(with_token(csr, &mesh.token("web-0"))).await.unwrap();
    let chain = response.into_inner().cert_chain.concat();
    let web = Identity::from_pem(&chain, key.serialize_pem());

    // The certificate alone is enough for xDS, for the pods of its service account.
    let open = async |channel: Channel, node: &str| {
        let (requests, receiver) = mpsc::channel(4);
        let mut request = subscription(Cluster, &[]);
        request.node = Some(Node { id: node.to_owned(), ..Node::default() });
        requests.send(request).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?;
        responses.into_inner().message().await.map(|response| shown(&response.expect("a response")))
    };
    let channel = tls(Some(web.clone())).await.unwrap();
    assert_eq!(open(channel.clone(), WEB).await.unwrap(), "cds +a=1 +b=1");
    assert_eq!(open(channel, REVIEWS).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(open(tls(None).await.unwrap(), WEB).await.unwrap_err().code(), Code::Unauthenticated);

    // It is not enough for another certificate.
    let mut authority = IstioCertificateServiceClient::new(tls(Some(web)).await.unwrap());
    let status = authority.create_certificate(key_and_csr("web").1).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);

    // A certificate of the same name from another CA does not get through the handshake.
    let elsewhere = tempfile::tempdir().unwrap();
    let now = time::OffsetDateTime::now_utc();
    let other = crate::ca::root::Root::open_or_create(elsewhere.path(), "cluster.local", now).unwrap();
    let ttl = std::time::Duration::from_secs(60);
    let other = crate::ca::CertificateAuthority::new(other, "cluster.local", ttl);
    let (key, csr) = key_and_csr("web");
    let name = crate::auth::Identity::new("cluster.local", "shop", "web").unwrap();
    let issued = other.sign_workload(&name, None, &csr.csr, None, now).unwrap();
    let stranger = Identity::from_pem(crate::ca::to_pem(&issued.chain[0]), key.serialize_pem());
    // In TLS 1.3 a client learns of its refusal only when it reads.
    let refused = match tls(Some(stranger)).await {
        Ok(channel) => open(channel, WEB).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}
