//! Requests of the sidecar to its own application, past its own capture.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::transport_socket::crypto_provider;

/// Why the application could not be asked.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where the application is.
#[derive(Debug, Clone)]
pub(super) struct Application {
    /// The pod's address: what the kubelet would ask.
    pub(super) address: IpAddr,
    /// Where the sidecar asks from when the pod is captured: connections from there are not captured again.
    pub(super) source: Option<IpAddr>,
}

impl Application {
    /// Connects to a port of the pod.
    pub(super) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let address = SocketAddr::new(self.address, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// A connection; it ends with the value.
pub(super) struct Exchange {
    /// What the application answers.
    pub(super) response: Response<Incoming>,
    /// The task that moves its bytes.
    pub(super) connection: JoinSet<()>,
}

/// One request over a connection of its own. An HTTP/2 request needs an absolute URI.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    request: Request<Full<Bytes>>,
) -> Result<Exchange, Error> {
    let stream = TokioIo::new(stream);
    let mut connections = JoinSet::new();
    let response = match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(stream).await?;
            connections.spawn(async move { drop(connection.await) });
            sender.send_request(request).await?
        }
        Protocol::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            connections.spawn(async move { drop(connection.await) });
            sender.send_request(request).await?
        }
    };
    Ok(Exchange { response, connection: connections })
}

/// TLS as the kubelet's probes speak it: whoever answers is believed. Says what was agreed on.
pub(super) async fn encrypt(
    stream: TcpStream,
    name: IpAddr,
) -> Result<(tokio_rustls::client::TlsStream<TcpStream>, Protocol), Error> {
    let provider = crypto_provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.clone())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::from(name), stream).await?;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((stream, protocol))
}

/// Takes every certificate, but not a forged handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
