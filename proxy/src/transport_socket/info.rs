//! Reading what a finished handshake established.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CipherSuite, CommonState, Error, HandshakeKind, ProtocolVersion};

use super::TlsInfo;
use super::certificate::CertificateDetails;
use super::error::TransportError;
use super::validation::ValidationContext;
use super::verify::check_validity;
use crate::stats::SslStats;

/// How much a peer's certificate means in one context.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerRules {
    /// An accepted certificate proves its holder's identity.
    proves_identity: bool,
    allow_expired: bool,
}

impl PeerRules {
    pub(super) fn of(rules: Option<&ValidationContext>) -> Self {
        Self {
            proves_identity: rules.is_some_and(ValidationContext::proves_identity),
            allow_expired: rules.is_some_and(|r| r.allow_expired),
        }
    }
}

/// What both sides know; SNI and our own principal are the caller's to add.
///
/// # Errors
/// A resumed session whose peer certificate has expired since: it was verified only when the session began.
pub(super) fn read(
    connection: &CommonState,
    rules: PeerRules,
    stats: &SslStats,
) -> Result<TlsInfo, TransportError> {
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    if resumed {
        stats.session_reused.inc();
    }
    let (mut peer_principal, mut peer_workload, mut peer_expires) = (None, None, None);
    match connection.peer_certificates().and_then(|chain| chain.first()) {
        None => stats.no_certificate.inc(),
        Some(leaf) if rules.proves_identity => {
            let malformed = |e| TransportError::from(&Error::General(e));
            let details = CertificateDetails::parse(leaf).map_err(malformed)?;
            if resumed && !rules.allow_expired {
                check_validity(&details, SystemTime::now()).map_err(|e| TransportError::from(&e))?;
            }
            peer_principal = details.principal().cloned();
            peer_workload = details.description;
            peer_expires = (!rules.allow_expired).then_some(details.not_after);
        }
        Some(_) => {}
    }
    Ok(TlsInfo {
        sni: None,
        alpn: connection.alpn_protocol().map(|p| Arc::from(&*String::from_utf8_lossy(p))),
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
        peer_principal,
        peer_workload,
        peer_expires,
        local_principal: None,
    })
}

/// IANA's name. The suites are those of the crypto provider.
pub(super) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}
