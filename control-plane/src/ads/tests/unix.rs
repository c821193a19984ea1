//! xDS and certificates over a Unix socket.

use std::os::unix::fs::PermissionsExt as _;

use outrigger_xds_api::istio_ca::IstioCertificateServiceClient;

use super::certificates::key_and_csr;
use super::client::with_token;
use super::*;

async fn mesh() -> Mesh {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", dir.path().join("xds.sock").display());
    Mesh::start_in(dir, &address, snapshot(1, FIRST)).await
}

#[tokio::test]
async fn every_service_is_there() {
    let mesh = mesh().await;
    let mut aggregated = mesh.open::<Delta>(Service::Aggregated).await;
    aggregated.subscribe(Cluster, &[]).await;
    assert_eq!(aggregated.accept().await, "cds +a=1 +b=1");
    let mut separate = mesh.open::<Sotw>(Service::Of(Listener)).await;
    separate.subscribe(Listener, &[]).await;
    assert_eq!(separate.accept().await, "lds l=1");
    let mut authority = IstioCertificateServiceClient::new(mesh.channel().await);
    let request = with_token(key_and_csr("web").1, &mesh.token("web-0"));
    assert_eq!(authority.create_certificate(request).await.unwrap().into_inner().cert_chain.len(), 2);

    let proxies = mesh.proxies(|proxies| proxies.as_array().unwrap().len() == 2).await;
    let from = format!("unix (process {})", std::process::id());
    assert_eq!(proxies[0]["address"], from);
}

/// Who may open the file is a user of this machine, not a pod.
#[tokio::test]
async fn a_connection_proves_nothing() {
    let mesh = mesh().await;
    mesh.control_plane.ready().await;
    let channel = mesh.channel().await;
    let status =
        Client::<Sotw>::connect(channel.clone(), Service::Aggregated, WEB, "wrong").await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut authority = IstioCertificateServiceClient::new(channel);
    let status = authority.create_certificate(key_and_csr("web").1).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut other = mesh.connect::<Sotw>(Service::Aggregated, REVIEWS, "web-0").await;
    other.subscribe(Cluster, &[]).await;
    assert_eq!(other.refusal().await.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_socket_is_private_and_told_and_goes_with_the_process() {
    let mesh = mesh().await;
    let path = mesh.dir.path().join("xds.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let addresses = std::fs::read_to_string(mesh.dir.path().join("addresses.json")).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&addresses).unwrap();
    assert_eq!(addresses["xds"], format!("unix:{}", path.display()));
    mesh.control_plane.stop().await;
    assert!(!path.exists());
}
