//! Verifying a peer's certificate by a validation context, in both directions.
//!
//! As in Envoy a host name is not compared by itself: names count only when the context matches on them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::CertificateDetails;
use super::crypto_provider;
use super::validation::ValidationContext;

/// Verifies peers of one context.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    validation: Arc<ValidationContext>,
    require_certificate: bool,
    /// All roots that were valid when the verifier was made.
    trust: Trust,
    /// Names of the trusted authorities, sent to clients to choose a certificate by.
    root_hints: Vec<DistinguishedName>,
}

/// Roots in the form that chains are verified with.
#[derive(Debug)]
struct Trust {
    roots: Arc<RootCertStore>,
    /// `None` without roots.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Trust {
    fn at(validation: &ValidationContext, now: SystemTime) -> Self {
        let mut roots = RootCertStore::empty();
        for root in validation.roots_at(now) {
            // Each was accepted by a store when the context was compiled.
            let _ = roots.add(root.der.clone());
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), crypto_provider().clone());
        Self { roots, clients: clients.build().ok() }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        match (peer, &self.clients) {
            (Peer::Server, _) => rustls::client::verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(leaf)?,
                &self.roots,
                intermediates,
                now,
                crypto_provider().signature_verification_algorithms.all,
            ),
            (Peer::Client, Some(clients)) => clients.verify_client_cert(leaf, intermediates, now).map(|_| ()),
            (Peer::Client, None) => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

/// Which side the peer is on: its certificate must allow that use.
#[derive(Clone, Copy)]
enum Peer {
    Client,
    Server,
}

/// The certificate is none of the pinned ones.
#[derive(Debug, thiserror::Error)]
#[error("the certificate's hash is not one of those configured")]
struct HashMismatch;

impl PeerVerifier {
    /// `require_certificate` matters for clients only; servers always send one.
    pub(super) fn new(validation: Arc<ValidationContext>, require_certificate: bool) -> Arc<Self> {
        let trust = Trust::at(&validation, SystemTime::now());
        let root_hints = trust.roots.subjects();
        Arc::new(Self { validation, require_certificate, trust, root_hints })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        if !self.validation.roots.is_empty() {
            self.verify_chain(leaf, intermediates, now, peer)?;
        }
        let details = parse(leaf)?;
        if !self.validation.sans_match(&details.sans) {
            // rustls' own check of the name is not in use, so this error means our matchers.
            return Err(CertificateError::NotValidForName.into());
        }
        self.verify_hashes(leaf)
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        // A trusted certificate may be the peer's own one.
        if let Some(root) = self.validation.roots.iter().find(|root| root.der == *leaf) {
            return match self.validation.allow_expired {
                true => Ok(()),
                false => check_validity(&root.details, wall),
            };
        }
        let now = if self.validation.allow_expired { last_valid(leaf, intermediates, now)? } else { now };
        // A root that ends while the verifier lives no longer counts.
        match self.validation.roots_at(wall).count() == self.trust.roots.len() {
            true => self.trust.verify(leaf, intermediates, now, peer),
            false => Trust::at(&self.validation, wall).verify(leaf, intermediates, now, peer),
        }
    }

    fn verify_hashes(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let ValidationContext { certificate_hashes, spki_hashes, .. } = &*self.validation;
        if certificate_hashes.is_empty() && spki_hashes.is_empty() {
            return Ok(());
        }
        let is_in = |hashes: &[[u8; 32]], bytes: &[u8]| {
            !hashes.is_empty() && {
                let hash = digest(&SHA256, bytes);
                hashes.iter().any(|h| h == hash.as_ref())
            }
        };
        if is_in(certificate_hashes, leaf) {
            return Ok(());
        }
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match is_in(spki_hashes, cert.public_key().raw) {
            true => Ok(()),
            false => Err(CertificateError::Other(OtherError(Arc::new(HashMismatch))).into()),
        }
    }
}

fn parse(leaf: &CertificateDer<'_>) -> Result<CertificateDetails, Error> {
    CertificateDetails::parse(leaf).map_err(|_| CertificateError::BadEncoding.into())
}

/// Whether the certificate is valid at `now`.
pub(super) fn check_validity(details: &CertificateDetails, now: SystemTime) -> Result<(), Error> {
    if now > details.not_after {
        return Err(CertificateError::Expired.into());
    }
    if now < details.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

/// The latest time, not after `now`, at which no certificate of the chain has expired.
fn last_valid(
    leaf: &CertificateDer<'_>,
    more: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<UnixTime, Error> {
    let mut seconds = now.as_secs();
    for der in std::iter::once(leaf).chain(more) {
        let end = parse(der)?.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        seconds = seconds.min(end.as_secs());
    }
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

/// The methods that both traits below ask for in the same words: signatures are the provider's business.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(
                message,
                cert,
                signed,
                &crypto_provider().signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                cert,
                signed,
                &crypto_provider().signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            crypto_provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now, Peer::Server).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.require_certificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.root_hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now, Peer::Client).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}
