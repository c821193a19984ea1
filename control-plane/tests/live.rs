//! The whole control plane in process: YAML in a directory, a real xDS client, live changes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use outrigger_control_plane::{ControlPlane, Options};
use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const DEADLINE: Duration = Duration::from_secs(30);

const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec: { clusterIP: 10.96.0.7, selector: { app: reviews }, ports: [ { name: http, port: 9080, targetPort: 9080 } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: web-0, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web, containers: [ { name: web } ] }
status: { podIP: 127.1.0.1, podIPs: [ { ip: 127.1.0.1 } ] }
";

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: reviews, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: reviews, port: 9080 } ]
  rules: [ { backendRefs: [ { name: reviews, port: 9080 } ], timeouts: { request: TIMEOUT } } ]
";

fn slice(address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: reviews-1, namespace: shop, \
         labels: {{ kubernetes.io/service-name: reviews }} }}\naddressType: IPv4\nports: [ {{ name: http, port: 9080 \
         }} ]\nendpoints: [ {{ addresses: [ {address} ], conditions: {{ ready: true }} }} ]\n"
    )
}

/// A file appears as a whole, as an editor's save does.
fn save(dir: &Path, name: &str, content: &str) {
    let part = dir.join(format!(".{name}.part"));
    std::fs::write(&part, content).unwrap();
    std::fs::rename(part, dir.join(name)).unwrap();
}

/// A client that subscribes to everything that it hears of, accepts it and remembers what came.
struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn connect(control_plane: &ControlPlane, token: &str) -> Self {
        let address = control_plane.addresses().xds;
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (requests, receiver) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut service = AggregatedDiscoveryServiceClient::new(channel);
        let responses = service.delta_aggregated_resources(request).await.unwrap().into_inner();
        let id = "sidecar~127.1.0.1~web-0.shop~shop.svc.cluster.local".to_owned();
        for of in ResourceType::ALL {
            let names = if of.has_implicit_wildcard() { vec![] } else { vec!["*".to_owned()] };
            let request = DeltaDiscoveryRequest {
                node: Some(Node { id: id.clone(), ..Node::default() }),
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

/// A page of the admin server, once `ready` holds for it.
async fn page(control_plane: &ControlPlane, path: &str, ready: impl Fn(&str) -> bool) -> String {
    let poll = async {
        loop {
            let address = control_plane.addresses().admin;
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            if ready(&text) {
                return text;
            }
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.expect("the page never showed it")
}

#[tokio::test]
async fn live_changes_cost_what_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = dir.path().join("mesh");
    std::fs::create_dir(&mesh).unwrap();
    save(&mesh, "mesh.yaml", MESH);
    save(&mesh, "slice.yaml", &slice("127.1.0.2"));
    let flags = [
        "outrigger-control-plane".to_owned(),
        format!("--source=file:{}", mesh.display()),
        format!("--data-dir={}", dir.path().join("data").display()),
        "--xds-address=127.0.0.1:0".to_owned(),
        "--admin-address=127.0.0.1:0".to_owned(),
    ];
    let control_plane = ControlPlane::start(Options::parse_from(flags)).await.unwrap();
    tokio::time::timeout(DEADLINE, control_plane.ready()).await.expect("ready in time");
    let token = std::fs::read_to_string(dir.path().join("data/tokens/shop/web-0")).unwrap();

    let mut client = Client::connect(&control_plane, &token).await;
    let cluster = "outbound|9080||reviews.shop.svc.cluster.local".to_owned();
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
