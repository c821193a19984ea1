//! Transport sockets: plaintext or TLS, downstream (`accept`) and upstream (`connect`).

use std::sync::Arc;

/// What a finished TLS handshake established.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// Server name from the ClientHello.
    pub sni: Option<Arc<str>>,
    /// Negotiated ALPN protocol.
    pub alpn: Option<Arc<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    /// First URI SAN of the verified peer certificate: its SPIFFE identity.
    pub peer_principal: Option<Arc<str>>,
    /// Our own certificate's first URI SAN.
    pub local_principal: Option<Arc<str>>,
}

/// How a filter chain's connections are secured.
#[derive(Debug, Clone)]
pub enum DownstreamTransport {
    /// Bytes as they are.
    Plaintext,
    /// TLS, we are the server.
    Tls(Arc<DownstreamTls>),
}

/// How a cluster's connections are secured.
#[derive(Debug, Clone)]
pub enum UpstreamTransport {
    /// Bytes as they are.
    Plaintext,
    /// TLS, we are the client.
    Tls(Arc<UpstreamTls>),
}

/// A compiled `DownstreamTlsContext`, fed by files, inline data or SDS.
#[derive(Debug)]
pub struct DownstreamTls {}

/// A compiled `UpstreamTlsContext`, fed by files, inline data or SDS.
#[derive(Debug)]
pub struct UpstreamTls {}
