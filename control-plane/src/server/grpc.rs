//! The gRPC server: xDS and the certificate service, on the plaintext listener (TCP or Unix) and on the TLS listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::istio_ca::IstioCertificateServiceServer;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::StartError;
use super::listener::{self, Incoming, Listener};
use crate::ads;
use crate::ca::CertificateAuthority;
use crate::ca::service::CertificateService;
use crate::ca::serving::ServingCertificate;

/// A connection that is silent for this long is asked for a sign of life, and closed without one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until the process stops and every stream has ended; the accept tasks go to `tasks`. The TLS listener comes with the
/// DNS names that its certificate is good for.
pub(super) fn serve(
    plaintext: Listener,
    tls: Option<(TcpListener, Vec<String>)>,
    authority: Arc<CertificateAuthority>,
    shared: ads::Shared,
    tasks: &mut JoinSet<&'static str>,
) -> Result<JoinHandle<()>, StartError> {
    let (accepted, incoming) = mpsc::channel(listener::BACKLOG);
    if let Some((listener, dns_names)) = tls {
        accept_tls(listener, dns_names, Arc::clone(&authority), accepted.clone(), tasks)?;
    }
    tasks.spawn(async move {
        listener::accept(plaintext, accepted).await;
        "the plaintext listener"
    });

    let lifecycle = shared.lifecycle.clone();
    let certificates = CertificateService::new(
        authority,
        Arc::clone(&shared.authenticator),
        shared.snapshots.clone(),
        Arc::clone(&shared.metrics),
        lifecycle.clone(),
    );
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(IstioCertificateServiceServer::new(certificates));
    let router = ads::add_to(router, shared);
    Ok(tokio::spawn(async move {
        let stop = async move { lifecycle.stopping().await };
        if let Err(error) = router.serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop).await {
            tracing::error!(%error, "gRPC server");
        }
    }))
}

/// Accepts with a certificate of our own CA, and keeps that certificate fresh.
fn accept_tls(
    listener: TcpListener,
    dns_names: Vec<String>,
    authority: Arc<CertificateAuthority>,
    accepted: Incoming,
    tasks: &mut JoinSet<&'static str>,
) -> Result<(), StartError> {
    let root = authority.root_certificate().clone();
    let addresses = serving_addresses(listener.local_addr().map_err(StartError::Addresses)?);
    let (serving, not_after) =
        ServingCertificate::issue(authority, dns_names, addresses, OffsetDateTime::now_utc())?;
    let acceptor = listener::acceptor(Arc::clone(&serving) as _, &root)?;
    tasks.spawn(async move {
        tokio::select! {
            () = serving.keep_fresh(not_after) => {}
            () = listener::accept_tls(listener, acceptor, accepted) => {}
        }
        "the TLS listener"
    });
    Ok(())
}

/// The addresses that the serving certificate is good for: loopback, and the listener's own unless it is "any".
pub(super) fn serving_addresses(listener: SocketAddr) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let own = listener.ip();
    if !own.is_unspecified() && !addresses.contains(&own) {
        addresses.push(own);
    }
    addresses
}
