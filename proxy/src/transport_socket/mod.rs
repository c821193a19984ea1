//! Transport sockets: plaintext or TLS, downstream (`accept`) and upstream (`connect`).
//!
//! Contexts are compiled on main and used by the workers. A context keeps its rustls configuration until its certificate or its
//! validation context is replaced; then the next handshake builds a new one and established connections stay as they are.
//! Private keys are in memory only and never printed.

mod certificate;
mod context;
mod distinguished_name;
mod downstream;
mod error;
mod info;
mod printed;
mod upstream;
mod validation;
mod verify;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;

pub use certificate::{CertificateDetails, San, TlsCertificate};
pub use context::{TlsParams, TlsVersion, ValidationSource};
pub use downstream::{DownstreamTls, DownstreamTlsOptions};
pub use error::{TransportError, TransportErrorKind, failure_reason, is_name_mismatch};
pub use printed::{Certificates, PrintedCertificates};
pub use upstream::{UpstreamTls, UpstreamTlsOptions};
pub use validation::{
    SanMatcher, SanType, ValidationContext, ValidationOptions, parse_certificate_hash, parse_spki_hash,
};

/// What a finished TLS handshake established.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// Server name from the ClientHello.
    pub sni: Option<Arc<str>>,
    /// Negotiated ALPN protocol.
    pub alpn: Option<Arc<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// BoringSSL's name of the group that keys were agreed on.
    pub group: &'static str,
    /// What the peer showed, verified or not.
    pub peer: Option<Arc<Certificates>>,
    /// What we showed.
    pub local: Option<Arc<Certificates>>,
    /// What the peer showed was verified.
    pub peer_is_verified: bool,
    /// First URI SAN of the verified peer certificate: its SPIFFE identity.
    pub peer_principal: Option<Arc<str>>,
    /// Which workload the verified peer certificate says that it is for:
    /// `name;namespace;canonical-name;canonical-revision;cluster`.
    pub peer_workload: Option<Arc<str>>,
    /// Until when the peer's certificate proves that; `None`: nothing is proved, or for ever.
    pub peer_expires: Option<SystemTime>,
    /// Our own certificate's first URI SAN.
    pub local_principal: Option<Arc<str>>,
}

impl TlsInfo {
    /// When the peer's certificate expires, as time from now; zero when it has.
    pub fn peer_expires_in(&self) -> Option<Duration> {
        let expires = self.peer_expires?;
        Some(expires.duration_since(SystemTime::now()).unwrap_or_default())
    }
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

/// The one crypto provider of the process: aws-lc-rs, with AES-128 before AES-256 as Envoy has them: bulk transfers cost less.
pub fn crypto_provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| !info::cipher_name(suite.suite()).contains("AES_128"));
        Arc::new(provider)
    })
}

#[cfg(test)]
pub(crate) mod test_certificates;
#[cfg(test)]
mod tests;
