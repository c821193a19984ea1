//! Why a transport socket failed, in words like Envoy's.

use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error};

use crate::stats::SslStats;

/// A failed handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TransportError {
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%` and its downstream sibling: `TLS_error:|...:TLS_error_end`.
    pub reason: Arc<str>,
    /// What it counts as.
    pub kind: TransportErrorKind,
}

/// What a failed handshake counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The connection broke or the peers do not agree: `ssl.connection_error`.
    Connection,
    /// The peer sent no certificate: `ssl.fail_verify_no_cert`.
    NoCertificate,
    /// The peer's name does not match: `ssl.fail_verify_san`.
    San,
    /// The peer's certificate is not trusted: `ssl.fail_verify_error`.
    Certificate,
    /// Our own secrets are not there yet or cannot be used.
    Secret,
}

impl TransportError {
    /// A secret that nothing has been published under yet.
    pub(super) fn missing(secret: &str) -> Self {
        Self::unusable(format!("Secret is not supplied by SDS: '{secret}' is not there yet"))
    }

    /// Secrets that are there and do not make a working context.
    pub(super) fn unusable(reason: String) -> Self {
        let reason = format!("TLS_error:|{reason}:TLS_error_end").into();
        Self { reason, kind: TransportErrorKind::Secret }
    }

    pub(super) fn from_io(error: &io::Error) -> Self {
        match tls_error(error) {
            Some(tls) => Self::from(tls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self {
                reason: "TLS_error:|connection closed by the peer in the handshake:TLS_error_end".into(),
                kind: TransportErrorKind::Connection,
            },
            None => Self {
                reason: format!("TLS_error:|{error}:TLS_error_end").into(),
                kind: TransportErrorKind::Connection,
            },
        }
    }

    pub(super) fn count(&self, stats: &SslStats) {
        match self.kind {
            TransportErrorKind::Connection | TransportErrorKind::Secret => &stats.connection_error,
            TransportErrorKind::NoCertificate => &stats.fail_verify_no_cert,
            TransportErrorKind::San => &stats.fail_verify_san,
            TransportErrorKind::Certificate => &stats.fail_verify_error,
        }
        .inc();
    }
}

impl From<&Error> for TransportError {
    fn from(error: &Error) -> Self {
        let (kind, text) = match error {
            Error::NoCertificatesPresented => {
                (TransportErrorKind::NoCertificate, "PEER_DID_NOT_RETURN_A_CERTIFICATE".to_owned())
            }
            Error::InvalidCertificate(CertificateError::NotValidForName) => {
                (TransportErrorKind::San, format!("CERTIFICATE_VERIFY_FAILED:{NAME_MISMATCH}"))
            }
            Error::InvalidCertificate(reason) => {
                let text = match reason {
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                        "certificate has expired".to_owned()
                    }
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        "certificate is not yet valid".to_owned()
                    }
                    CertificateError::UnknownIssuer => "unable to get local issuer certificate".to_owned(),
                    other => other.to_string(),
                };
                (
                    TransportErrorKind::Certificate,
                    format!("CERTIFICATE_VERIFY_FAILED:verify cert failed: {text}"),
                )
            }
            Error::AlertReceived(alert) => (TransportErrorKind::Connection, format!("TLS_ALERT_{alert:?}")),
            other => (TransportErrorKind::Connection, other.to_string()),
        };
        Self { reason: format!("TLS_error:|{text}:TLS_error_end").into(), kind }
    }
}

/// What Envoy says of a certificate without any of the names that were expected.
const NAME_MISMATCH: &str = "verify cert failed: verify SAN list";

/// Whether this reason of a failed handshake is that the peer's certificate has none of the names that were expected.
pub fn is_name_mismatch(reason: &str) -> bool {
    reason.contains(NAME_MISMATCH)
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The reason for people when reading or writing an established stream fails because of TLS. With TLS 1.3 a server refuses a
/// client's certificate only after the client's handshake has ended, so this is where a client learns of it.
pub fn failure_reason(error: &io::Error) -> Option<Arc<str>> {
    tls_error(error).map(|tls| TransportError::from(tls).reason)
}
