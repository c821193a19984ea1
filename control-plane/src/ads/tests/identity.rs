//! Who is served: what a stream's node says and what its caller proved.

use outrigger_xds_api::istio_ca::IstioCertificateServiceClient;
use outrigger_xds_api::wire::core::v3::Node;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::certificates::key_and_csr;
use super::client::with_token;
use super::*;

#[tokio::test]
async fn a_proxy_is_served_only_for_what_it_proved() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    for (node, pod, code, text) in [
        (REVIEWS, "web-0", Code::PermissionDenied, "token proves pod shop/web-0"),
        ("sidecar~127.1.0.9~web-0.shop~shop.svc.cluster.local", "web-0", Code::PermissionDenied, "127.1.0.9"),
        ("router~127.1.0.1~web-0.shop~shop.svc.cluster.local", "web-0", Code::InvalidArgument, "router"),
        ("web", "web-0", Code::InvalidArgument, "four parts"),
    ] {
        let mut client = mesh.connect::<Delta>(Service::Aggregated, node, pod).await;
        client.subscribe(Cluster, &[]).await;
        let status = client.refusal().await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    let channel = mesh.channel().await;
    let status = Client::<Delta>::connect(channel, Service::Aggregated, WEB, "wrong").await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_xds_refused_total{reason=\"node_mismatch\"} 2"), "{metrics}");
    assert!(metrics.contains("outrigger_xds_refused_total{reason=\"invalid_token\"} 1"));
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
        let mut request = Delta::subscription(Cluster, &[]);
        request.node = Some(Node { id: node.to_owned(), ..Node::default() });
        requests.send(request).await.unwrap();
        let receiver = Request::new(ReceiverStream::new(receiver));
        let responses = Delta::open(channel, Service::Aggregated, receiver).await?;
        let response = responses.into_inner().message().await?;
        Ok::<_, tonic::Status>(Client::<Delta>::shown(&response.expect("a response")))
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
    let other = crate::ca::CertificateAuthority::new(other, None, "cluster.local", ttl).unwrap();
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
