//! Reading what a finished handshake established.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CipherSuite, CommonState, Error, HandshakeKind, NamedGroup, ProtocolVersion};

use super::certificate::CertificateDetails;
use super::error::TransportError;
use super::validation::ValidationContext;
use super::verify::check_validity;
use super::{Certificates, TlsInfo};
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
    let mut peer_is_verified = false;
    match connection.peer_certificates().and_then(|chain| chain.first()) {
        None => stats.no_certificate.inc(),
        Some(leaf) if rules.proves_identity => {
            let malformed = |e| TransportError::from(&Error::General(e));
            let details = CertificateDetails::parse(leaf).map_err(malformed)?;
            if resumed && !rules.allow_expired {
                check_validity(&details, SystemTime::now()).map_err(|e| TransportError::from(&e))?;
            }
            peer_is_verified = true;
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
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| openssl_name(suite.suite())),
        group: connection.negotiated_key_exchange_group().map_or("", |group| group_name(group.name())),
        peer: connection.peer_certificates().and_then(Certificates::new).map(Arc::new),
        local: None,
        peer_is_verified,
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

/// OpenSSL's name, which logs print.
fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => cipher_name(other),
    }
}

/// BoringSSL's name.
fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        other => other.as_str().unwrap_or(""),
    }
}
