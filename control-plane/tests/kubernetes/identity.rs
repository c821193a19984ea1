//! Who a workload is: service account tokens through the whole control plane, with real calls.

use std::io::Write;
use std::sync::{Arc, Mutex};

use outrigger_control_plane::ControlPlane;
use outrigger_kube_api::{ApiServer, Collection, TokenSpec};
use outrigger_xds_api::ResourceType;
use outrigger_xds_api::istio_ca::{IstioCertificateRequest, IstioCertificateServiceClient};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::DeltaDiscoveryRequest;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};

use crate::world::{DEADLINE, control_plane, put, server};

const PODS: &str = "
{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: shop}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: reviews, namespace: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, annotations: {sidecar.istio.io/status: '{}'}}
spec: {serviceAccountName: web, containers: [{name: a, image: a}]}
status: {podIP: 127.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-0, namespace: shop, annotations: {sidecar.istio.io/status: '{}'}}
spec: {serviceAccountName: reviews, containers: [{name: a, image: a}]}
status: {podIP: 127.1.0.2}
";

#[tokio::test]
async fn the_root_is_kept_in_a_secret_and_shared() {
    let server = server();
    put(&server, "{apiVersion: v1, kind: Namespace, metadata: {name: outrigger-system}}");
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let start = async |name: &str| {
        let data = folder.path().join(name);
        let secret = ["--ca-secret=outrigger-ca", "--namespace=outrigger-system"];
        control_plane(&kubeconfig, &data, &secret).await.stop().await;
        std::fs::read_to_string(data.join("root-cert.pem")).unwrap()
    };
    // Both at once: one makes the root. Later replicas, and those with a root of their own, take it.
    let (first, second) = tokio::join!(start("a"), start("b"));
    assert_eq!(first, second);
    assert_eq!(start("c").await, first);
    let own = outrigger_control_plane::ca::root::Root::open_or_create(
        &folder.path().join("d"),
        "cluster.local",
        time::OffsetDateTime::now_utc(),
    );
    drop(own.unwrap());
    assert_eq!(start("d").await, first);
}

/// A control plane on an API server.
struct World {
    server: ApiServer,
    control_plane: ControlPlane,
    folder: tempfile::TempDir,
}

impl World {
    /// A control plane that acts as the owner of `token`.
    async fn start_as(server: ApiServer, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig_with(&server.url(), token)).unwrap();
        let tls = ["--xds-tls-address=127.0.0.1:0"];
        let control_plane = control_plane(&kubeconfig, &folder.path().join("data"), &tls).await;
        Self { server, control_plane, folder }
    }

    async fn start() -> Self {
        let server = server();
        put(&server, PODS);
        let token = server.administrator_token().to_owned();
        let world = Self::start_as(server, &token).await;
        tokio::time::timeout(DEADLINE, world.control_plane.ready()).await.expect("ready in time");
        world
    }

    /// A connection as sidecars in a cluster make it: TLS, with the mesh's root.
    async fn channel(&self) -> Channel {
        let address = self.control_plane.addresses().xds_tls.unwrap();
        let root = std::fs::read_to_string(self.folder.path().join("data/root-cert.pem")).unwrap();
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(root))
            .domain_name("outrigger-control-plane.outrigger-system.svc");
        let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(config).unwrap().connect().await.unwrap()
    }

    /// Asks for a certificate in the name of `account`.
    async fn certificate(&self, token: &str, account: &str) -> Result<Vec<String>, Status> {
        let mut client = IstioCertificateServiceClient::new(self.channel().await);
        let response = client.create_certificate(with_token(csr(account), token)).await?;
        Ok(response.into_inner().cert_chain)
    }

    /// Opens a stream as `pod` and waits for the clusters.
    async fn clusters(&self, token: &str, pod: &str) -> Result<usize, Status> {
        let id = format!("sidecar~127.1.0.1~{pod}.shop~shop.svc.cluster.local");
        let (requests, receiver) = mpsc::channel(1);
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id, ..Node::default() }),
            type_url: ResourceType::Cluster.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(request).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await);
        let request = with_token(ReceiverStream::new(receiver), token);
        let mut responses = client.delta_aggregated_resources(request).await?.into_inner();
        let response = responses.message().await?.expect("a response");
        Ok(response.resources.len())
    }

    /// A page of the admin server, once `wanted` holds for it.
    async fn page(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let poll = async {
            loop {
                let address = self.control_plane.addresses().admin;
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                if wanted(&text) {
                    return text;
                }
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.expect("the page never showed it")
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn csr(account: &str) -> IstioCertificateRequest {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    params.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    IstioCertificateRequest { csr, validity_duration: 0, metadata: None }
}

/// A token of web as the kubelet gives it to web-0.
fn web() -> TokenSpec {
    TokenSpec {
        namespace: "shop".to_owned(),
        service_account: "web".to_owned(),
        audiences: vec!["istio-ca".to_owned()],
        expires_in: 3600,
        pod: Some("web-0".to_owned()),
    }
}

/// What is logged on this thread while the returned guard lives.
fn log() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    #[derive(Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            Write::write(&mut *self.0.lock().unwrap(), text)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let written = Arc::new(Mutex::new(Vec::new()));
    let log = Log(Arc::clone(&written));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || log.clone())
        .finish();
    (written, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_token_of_its_pod_is_good_for_certificate_and_configuration() {
    let world = World::start().await;
    let token = world.server.token(&web()).unwrap();
    let chain = world.certificate(&token, "web").await.unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain[0].as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    let expected = x509_parser::extensions::GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(names, [expected]);
    assert!(world.clusters(&token, "web-0").await.is_ok());
    assert!(!world.folder.path().join("data/tokens").exists(), "tokens are the API server's business");
}

#[tokio::test]
async fn whoever_is_not_the_pod_is_refused_and_counted() {
    let (log, _guard) = log();
    let world = World::start().await;
    let issue = |spec: TokenSpec| world.server.token(&spec).unwrap();
    let good = issue(web());
    let stranger = {
        let elsewhere = server();
        put(&elsewhere, PODS);
        elsewhere.token(&web()).unwrap()
    };
    let tampered = format!("{}AAAA", &good[..good.len() - 4]);
    let cases = [
        (stranger, "web", Code::Unauthenticated, "invalid_token"),
        (tampered, "web", Code::Unauthenticated, "invalid_token"),
        ("garbage".to_owned(), "web", Code::Unauthenticated, "invalid_token"),
        (issue(TokenSpec { expires_in: -1, ..web() }), "web", Code::Unauthenticated, "expired_token"),
        (
            issue(TokenSpec { audiences: vec!["vault".to_owned()], ..web() }),
            "web",
            Code::Unauthenticated,
            "other_audience",
        ),
        // What a Pod has for the API server is not for us.
        (issue(TokenSpec { audiences: vec![], ..web() }), "web", Code::Unauthenticated, "other_audience"),
        (issue(TokenSpec { pod: None, ..web() }), "web", Code::Unauthenticated, "not_a_pod"),
        (good.clone(), "reviews", Code::PermissionDenied, "other_identity"),
    ];
    for (token, account, code, reason) in &cases {
        let status = world.certificate(token, account).await.unwrap_err();
        assert_eq!(status.code(), *code, "{reason}: {status:?}");
        let metrics = world.page("/metrics", |_| true).await;
        let series = format!("outrigger_ca_requests_refused_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&series), "{series} is not in {metrics}");
    }
    let metrics = world.page("/metrics", |_| true).await;
    assert!(metrics.contains("refused_total{reason=\"invalid_token\"} 3"), "{metrics}");
    assert!(metrics.contains("refused_total{reason=\"other_audience\"} 2"), "{metrics}");

    // A good token of another Pod does not open the stream either.
    let status = world.clusters(&good, "reviews-0").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let metrics = world.page("/metrics", |_| true).await;
    assert!(metrics.contains("outrigger_xds_refused_total{reason=\"node_mismatch\"} 1"), "{metrics}");

    // All of that was logged, and no token.
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("certificate request refused").count(), cases.len(), "{log}");
    for (token, ..) in &cases[..2] {
        let parts: Vec<&str> = token.split('.').collect();
        assert!(!log.contains(parts[1]) && !log.contains(parts[2]), "a token is in the log");
    }
}

#[tokio::test]
async fn a_token_dies_with_its_pod() {
    let world = World::start().await;
    let token = world.server.token(&web()).unwrap();
    world.server.remove(&Collection::new("", "pods"), "shop", "web-0");
    let status = world.certificate(&token, "web").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn an_api_server_that_is_away_is_told_apart_from_a_bad_token() {
    let world = World::start().await;
    let known = world.server.token(&web()).unwrap();
    let unknown = world.server.token(&TokenSpec { expires_in: 3000, ..web() }).unwrap();
    world.certificate(&known, "web").await.unwrap();
    world.server.kill();
    let status = world.certificate(&unknown, "web").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    world.certificate(&known, "web").await.expect("it was good a moment ago");
    world.server.restart().unwrap();
    world.certificate(&unknown, "web").await.expect("it is good");

    // So is one that does not let us ask.
    world.server.fail_next(1, Some("POST"), "/apis/authentication.k8s.io", 403);
    let another = world.server.token(&TokenSpec { expires_in: 2000, ..web() }).unwrap();
    let status = world.certificate(&another, "web").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("Forbidden"), "{status:?}");
    let metrics = world.page("/metrics", |_| true).await;
    assert!(metrics.contains("refused_total{reason=\"unavailable\"} 2"), "{metrics}");
}

#[tokio::test]
async fn it_is_ready_when_it_may_read_and_says_what_is_missing() {
    let server = server();
    put(&server, PODS);
    let mesh = "outrigger-system";
    put(
        &server,
        &format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: control, namespace: {mesh}}}}}"),
    );
    let own = TokenSpec {
        namespace: mesh.to_owned(),
        service_account: "control".to_owned(),
        audiences: vec![],
        expires_in: 3600,
        pod: None,
    };
    let token = server.token(&own).unwrap();
    let world = World::start_as(server, &token).await;
    let page = world.page("/ready", |text| text.contains("Pod (")).await;
    assert!(page.starts_with("HTTP/1.1 503 ") && page.contains("cannot list resource \"pods\""), "{page}");

    put(
        &world.server,
        &format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: control}}\nrules:\n\
             - {{apiGroups: [''], resources: [services, pods, nodes, namespaces], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [gateway.networking.k8s.io], resources: [httproutes, grpcroutes, referencegrants], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [networking.istio.io], resources: [virtualservices, destinationrules, serviceentries, workloadentries, workloadgroups], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [security.istio.io], resources: [peerauthentications], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [outrigger.dev], resources: [trafficpolicies], verbs: [get, list, watch]}}\n\
             - {{apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}}\n\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: control}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: control}}\n\
             subjects: [{{kind: ServiceAccount, name: control, namespace: {mesh}}}]\n"
        ),
    );
    tokio::time::timeout(DEADLINE, world.control_plane.ready()).await.expect("ready in time");
    let page = world.page("/ready", |_| true).await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    let token = world.server.token(&web()).unwrap();
    world.certificate(&token, "web").await.unwrap();
}
