//! Listening sockets of the gRPC services: plaintext on loopback or on a Unix socket, TLS anywhere.
//!
//! Each listener has an accept task on the main runtime; accepted connections of all kinds meet in one channel that
//! the gRPC server reads. A TLS handshake runs in a task of its own with a deadline, so that a silent client holds
//! up nobody.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{XdsAddress, unix_socket};
use crate::auth::{Identity, Peer, PeerAddress};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes and accepted connections that may wait; beyond it the kernel's queue holds new ones.
pub(super) const BACKLOG: usize = 1024;
/// After a failed accept (no file descriptors, for example) the next comes after this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// An accepted connection, ready for HTTP/2.
pub(super) enum Connection {
    Plaintext(TcpStream, Peer),
    Unix(UnixStream, Peer),
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

/// What the gRPC server reads.
pub(super) type Incoming = mpsc::Sender<io::Result<Connection>>;

/// Where plaintext connections come in.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(unix_socket::Listener, XdsAddress),
}

impl Listener {
    pub(super) async fn bind(address: &XdsAddress) -> io::Result<Self> {
        match address {
            XdsAddress::Tcp(tcp) => TcpListener::bind(tcp).await.map(Self::Tcp),
            XdsAddress::Unix(path) => {
                unix_socket::Listener::bind(path).await.map(|listener| Self::Unix(listener, address.clone()))
            }
        }
    }

    /// Where it listens, with the port that was picked.
    pub(super) fn address(&self) -> io::Result<XdsAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(XdsAddress::Tcp),
            Self::Unix(_, address) => Ok(address.clone()),
        }
    }

    async fn accept(&self) -> io::Result<Connection> {
        let peer = |address| Peer { address, certificate: None };
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = accept_tcp(listener).await?;
                Ok(Connection::Plaintext(stream, peer(PeerAddress::Ip(address))))
            }
            Self::Unix(listener, _) => {
                let (stream, process) = listener.accept().await?;
                Ok(Connection::Unix(stream, peer(PeerAddress::Unix(process))))
            }
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // Responses are small and latency counts.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %address, "TCP_NODELAY");
    }
    Ok((stream, address))
}

/// Accepts plaintext until the gRPC server is gone.
pub(super) async fn accept(listener: Listener, incoming: Incoming) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = incoming.closed() => return,
        };
        match accepted {
            Ok(connection) => {
                if incoming.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Accepts TLS until the gRPC server is gone.
pub(super) async fn accept_tls(listener: TcpListener, acceptor: TlsAcceptor, incoming: Incoming) {
    loop {
        let accepted = tokio::select! {
            accepted = accept_tcp(&listener) => accepted,
            () = incoming.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Ok(permit) = incoming.clone().reserve_owned().await else { return };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match handshake(&acceptor, stream, address).await {
                Ok(connection) => {
                    permit.send(Ok(connection));
                }
                Err(error) => tracing::info!(%address, %error, "TLS handshake failed"),
            }
        });
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "accept failed");
    tokio::time::sleep(ACCEPT_RETRY).await;
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream, address: SocketAddr) -> io::Result<Connection> {
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let certificate = match stream.get_ref().1.peer_certificates() {
        Some([leaf, ..]) => Some(identity_in(leaf)?),
        _ => None,
    };
    let address = PeerAddress::Ip(address);
    Ok(Connection::Tls(Box::new(stream), Peer { address, certificate }))
}

/// The SPIFFE id of a certificate whose chain rustls has verified (X.509-SVID: exactly one URI name).
fn identity_in(certificate: &CertificateDer<'_>) -> io::Result<Identity> {
    let invalid =
        |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("client certificate: {text}"));
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| invalid("cannot be decoded"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| invalid("has malformed names"))?
        .map_or(&[][..], |san| san.value.general_names.as_slice());
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Identity::parse(uri).map_err(|error| invalid(&error.to_string())),
        _ => Err(invalid("does not have exactly one URI name")),
    }
}

/// TLS 1.2 and 1.3, HTTP/2; a client certificate is optional, but one that is not of `root` ends the handshake.
pub(super) fn acceptor(
    serving: Arc<dyn ResolvesServerCert>,
    root: &CertificateDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Plaintext(_, peer) | Self::Unix(_, peer) | Self::Tls(_, peer) => peer.clone(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plaintext(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plaintext(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plaintext(stream, _) => stream.is_write_vectored(),
            Self::Unix(stream, _) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
