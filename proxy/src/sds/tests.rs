#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::resource::unpack;
use outrigger_xds_api::wire::core::v3::data_source::Specifier;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use outrigger_xds_api::wire::tls::v3::{Secret, secret};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::{Access, files, service, socket};
use crate::identity::{Issued, PrivateKey};

/// The certificate of this number; the roots stay the same.
fn issued(number: u64) -> Option<Arc<Issued>> {
    Some(Arc::new(Issued {
        count: number,
        certificate_chain: format!("certificate {number}"),
        private_key: PrivateKey(format!("key {number}")),
        roots: "roots".to_owned(),
    }))
}

/// A server on a socket of its own.
struct Running {
    source: watch::Sender<Option<Arc<Issued>>>,
    client: SecretDiscoveryServiceClient<Channel>,
    _file: socket::SocketFile,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sds.sock");
        let (listener, file) = socket::bind(&path, Access::Owner.socket()).unwrap();
        let (source, receiver) = watch::channel(None);
        tokio::spawn(service::serve(listener, receiver));
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { source, client: SecretDiscoveryServiceClient::new(channel), _file: file, _folder: folder }
    }

    async fn sotw(&mut self) -> (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>) {
        let (sender, receiver) = mpsc::channel(8);
        let response = self.client.stream_secrets(ReceiverStream::new(receiver)).await.unwrap();
        (sender, response.into_inner())
    }

    async fn delta(&mut self) -> (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>) {
        let (sender, receiver) = mpsc::channel(8);
        let response = self.client.delta_secrets(ReceiverStream::new(receiver)).await.unwrap();
        (sender, response.into_inner())
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The PEM texts of a secret: the certificate and its key, or the roots.
fn texts(content: &Any) -> Vec<String> {
    let text = |source: Option<outrigger_xds_api::wire::core::v3::DataSource>| match source.unwrap().specifier
    {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    match unpack::<Secret>(content).unwrap().r#type.unwrap() {
        secret::Type::TlsCertificate(it) => vec![text(it.certificate_chain), text(it.private_key)],
        secret::Type::ValidationContext(it) => vec![text(it.trusted_ca)],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_state_of_the_world_has_the_certificate_and_follows_it() {
    let mut running = Running::start().await;
    let (requests, mut responses) = running.sotw().await;
    // As an Envoy asks: one name on a stream, with no type in some versions.
    let ask = DiscoveryRequest { resource_names: names(&["default"]), ..Default::default() };
    requests.send(ask.clone()).await.unwrap();
    running.source.send_replace(issued(1));
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!(first.type_url, ResourceType::Secret.type_url());
    assert_eq!(first.resources.len(), 1);
    assert_eq!(texts(&first.resources[0]), ["certificate 1", "key 1"]);
    let ack = DiscoveryRequest {
        version_info: first.version_info.clone(),
        response_nonce: first.nonce.clone(),
        type_url: first.type_url.clone(),
        ..ask
    };
    requests.send(ack).await.unwrap();
    running.source.send_replace(issued(2));
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(texts(&second.resources[0]), ["certificate 2", "key 2"]);
    assert_ne!(second.version_info, first.version_info);
}

#[tokio::test(start_paused = true)]
async fn the_incremental_variant_sends_what_changed_and_says_what_is_not_there() {
    let mut running = Running::start().await;
    let (requests, mut responses) = running.delta().await;
    let type_url = ResourceType::Secret.type_url().to_owned();
    let ask = DeltaDiscoveryRequest {
        type_url: type_url.clone(),
        resource_names_subscribe: names(&["default", "ROOTCA", "other"]),
        ..Default::default()
    };
    requests.send(ask).await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(1), responses.message()).await;
    assert!(early.is_err(), "nothing is known before there is a certificate: {early:?}");
    running.source.send_replace(issued(1));
    let first = responses.message().await.unwrap().unwrap();
    let sent: Vec<_> =
        first.resources.iter().map(|r| (r.name.as_str(), texts(r.resource.as_ref().unwrap()))).collect();
    assert_eq!(sent, [("ROOTCA", vec!["roots".to_owned()]), ("default", names(&["certificate 1", "key 1"]))]);
    assert_eq!(first.removed_resources, ["other"]);
    let ack = DeltaDiscoveryRequest { type_url, response_nonce: first.nonce, ..Default::default() };
    requests.send(ack).await.unwrap();
    running.source.send_replace(issued(2));
    let second = responses.message().await.unwrap().unwrap();
    let sent: Vec<_> = second.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!((sent, second.removed_resources.len()), (vec!["default"], 0), "the roots are the same");
}

#[tokio::test]
async fn other_types_are_refused() {
    let mut running = Running::start().await;
    running.source.send_replace(issued(1));
    let (requests, mut responses) = running.sotw().await;
    let type_url = ResourceType::Cluster.type_url().to_owned();
    requests.send(DiscoveryRequest { type_url, ..Default::default() }).await.unwrap();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
}

fn content(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(start_paused = true)]
async fn files_change_together_and_leave_nothing_behind() {
    for (access, file_mode, folder_mode) in [(Access::Owner, 0o600, 0o700), (Access::Group, 0o640, 0o750)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certs");
        let directory = files::Directory::make(&path, access).unwrap();
        let (source, receiver) = watch::channel(None);
        let keep = tokio::spawn(directory.keep(receiver));
        for number in 1..=3 {
            source.send_replace(issued(number));
            // The clock is paused: this is over as soon as there is nothing left to do.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(content(&path, "cert-chain.pem"), format!("certificate {number}"));
            assert_eq!(content(&path, "key.pem"), format!("key {number}"));
            assert_eq!(content(&path, "root-cert.pem"), "roots");
        }
        assert_eq!((mode(&path.join("key.pem")), mode(&path)), (file_mode, folder_mode));
        // Three names, the link behind them and the folder that it leads to.
        assert_eq!(fs::read_dir(&path).unwrap().count(), 5);
        drop(source);
        keep.await.unwrap();
        assert_eq!(content(&path, "key.pem"), "key 3", "the files outlive the process");
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certs");
    let directory = files::Directory::make(&path, Access::Owner).unwrap();
    // Something that is in the way of the link: root may write anywhere.
    fs::create_dir_all(path.join("..data/full")).unwrap();
    let (_source, receiver) = watch::channel(issued(1));
    tokio::spawn(directory.keep(receiver));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(content(&path, "key.pem"), "");
    fs::remove_dir_all(path.join("..data")).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(content(&path, "key.pem"), "key 1");
}
