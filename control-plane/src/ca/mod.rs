//! The mesh's certificate authority.
//!
//! It signs short-lived certificates for keys that never leave their workload. What a certificate says comes
//! from the caller's proven identity, never from the request: the request gives the public key, and a name in
//! it that is not the caller's refuses the request.
//!
//! Files: [`root`] finds or makes the key, [`csr`] reads requests, [`serving`] keeps the control plane's own TLS
//! certificate fresh, [`service`] is the gRPC front. Everything here is synchronous and takes the time as an
//! argument, except [`serving`] and [`service`], which run on the main runtime.

pub mod bundle;
pub mod csr;
pub mod root;
pub mod secret;
pub mod service;

pub mod serving;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::auth::Identity;
use bundle::TrustBundle;
use root::Root;

/// How far a certificate's `notBefore` lies in the past, for peers whose clock is behind (Istio: 2 minutes).
const CLOCK_SKEW: time::Duration = time::Duration::minutes(2);

/// A certificate authority: its root, what is trusted beside it, and the rules for what it signs.
pub struct CertificateAuthority {
    root: Root,
    bundle: TrustBundle,
    trust_domain: String,
    workload_cert_ttl: Duration,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf first, then intermediates, the root last (the order of Istio's `cert_chain`).
    pub chain: Vec<CertificateDer<'static>>,
    /// When the leaf expires.
    pub not_after: OffsetDateTime,
}

/// Why a certificate was not signed. The text is safe to send to the caller.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request cannot be read or its signature is wrong.
    #[error("csr: {0}")]
    Csr(#[from] csr::CsrError),
    /// The request names someone else.
    #[error("csr: asks for `{requested}`, but the caller is `{proven}`")]
    OtherIdentity {
        /// The name in the request.
        requested: String,
        /// The caller's identity.
        proven: String,
    },
    /// The root or an intermediate has expired since the start.
    #[error("the certificate authority's certificate expired at {0}")]
    RootExpired(OffsetDateTime),
    /// The signature could not be made.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
    /// The system's random source failed.
    #[error("no random bytes from the system")]
    Random,
}

impl CertificateAuthority {
    /// A CA that signs with `root` for `trust_domain`; no workload certificate outlives `workload_cert_ttl`.
    ///
    /// # Errors
    /// What is wrong with the file of more trusted roots.
    pub fn new(
        root: Root,
        trusted_roots: Option<PathBuf>,
        trust_domain: &str,
        workload_cert_ttl: Duration,
    ) -> Result<Self, String> {
        let bundle = TrustBundle::new(root.root_certificate().clone(), trusted_roots)?;
        Ok(Self { root, bundle, trust_domain: trust_domain.to_owned(), workload_cert_ttl })
    }

    /// The trust domain of every identity that is signed.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The root certificate, which what is signed leads to.
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        self.root.root_certificate()
    }

    /// What workloads are to trust.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// When the first certificate of the CA's own chain expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.root.not_after()
    }

    /// Signs the request `csr_pem` of a workload that proved `identity`. `description` says which workload it is, for the metrics of
    /// those whom it calls: `name;namespace;canonical name;canonical revision;cluster`. It becomes the subject, so a peer can
    /// believe it as it believes the identity.
    ///
    /// The certificate's life is the shortest of `requested` (when given), the workload TTL and what is left of
    /// the CA's own chain.
    pub fn sign_workload(
        &self,
        identity: &Identity,
        description: Option<&str>,
        csr_pem: &str,
        requested: Option<Duration>,
        now: OffsetDateTime,
    ) -> Result<Issued, SignError> {
        let request = csr::Csr::parse(csr_pem)?;
        let proven = identity.to_string();
        if let Some(other) = request.names.iter().find(|name| **name != proven) {
            return Err(SignError::OtherIdentity { requested: other.clone(), proven });
        }
        let life = requested.map_or(self.workload_cert_ttl, |wanted| wanted.min(self.workload_cert_ttl));
        let mut params = leaf_profile()?;
        if let Some(description) = description {
            params.distinguished_name.push(DnType::CustomDnType(DESCRIPTION.to_vec()), description);
        }
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(proven)?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public_key, life, now)
    }

    /// Signs a TLS server certificate for the control plane itself, with a fresh key.
    pub fn sign_serving(
        &self,
        dns_names: &[impl AsRef<str>],
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<(Issued, KeyPair), SignError> {
        let key = KeyPair::generate()?;
        let mut params = leaf_profile()?;
        params.distinguished_name.push(DnType::OrganizationName, self.trust_domain.as_str());
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name.as_ref())?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = self.sign(params, &key, self.workload_cert_ttl, now)?;
        Ok((issued, key))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, SignError> {
        if self.root.not_after() <= now {
            return Err(SignError::RootExpired(self.root.not_after()));
        }
        params.not_before = (now - CLOCK_SKEW).max(self.root.not_before());
        params.not_after = (now + life).min(self.root.not_after());
        let not_after = params.not_after;
        let leaf = params.signed_by(public_key, self.root.issuer())?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.root.chain().iter().cloned());
        Ok(Issued { chain, not_after })
    }
}

/// The attribute `description` (X.520, 2.5.4.13).
const DESCRIPTION: [u64; 4] = [2, 5, 4, 13];

/// What every leaf has in common: no subject, a random serial, only for signatures, never a CA.
fn leaf_profile() -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits: positive, at most 20 octets (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| SignError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Certificates as PEM, one block after the other.
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use rcgen::CertificateParams;
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    const TTL: Duration = Duration::from_secs(24 * 3600);

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc().replace_nanosecond(0).unwrap()
    }

    fn authority(dir: &tempfile::TempDir) -> CertificateAuthority {
        let root = Root::open_or_create(dir.path(), "cluster.local", now()).unwrap();
        CertificateAuthority::new(root, None, "cluster.local", TTL).unwrap()
    }

    fn web() -> Identity {
        Identity::new("cluster.local", "shop", "web").unwrap()
    }

    /// A request with the given URI names, and its key.
    fn request(names: &[&str]) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(SanType::URI(Ia5String::try_from(*name).unwrap()));
        }
        (params.serialize_request(&key).unwrap().pem().unwrap(), key)
    }

    #[test]
    fn a_workload_certificate_has_istios_shape() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(&dir);
        let (csr, key) = request(&["spiffe://cluster.local/ns/shop/sa/web"]);
        let now = now();
        let issued = ca.sign_workload(&web(), None, &csr, None, now).unwrap();
        assert_eq!(issued.chain.len(), 2);
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let (_, root) = X509Certificate::from_der(&issued.chain[1]).unwrap();

        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(leaf.issuer(), root.subject());
        assert_eq!(leaf.public_key().subject_public_key.data, key.public_key_raw());
        assert!(leaf.subject().iter().next().is_none());
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical, "critical, because the subject is empty");
        assert_eq!(san.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web")]);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
        let key_usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(key_usage.digital_signature() && !key_usage.key_cert_sign());
        assert!(!leaf.is_ca() && root.is_ca());
        assert_eq!(leaf.validity().not_before.timestamp(), (now - CLOCK_SKEW).unix_timestamp());
        assert_eq!(leaf.validity().not_after.timestamp(), (now + TTL).unix_timestamp());
        assert_ne!(leaf.tbs_certificate.serial, root.tbs_certificate.serial);
    }

    #[test]
    fn a_certificate_says_which_workload_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let description = "web-v1;shop;web;v1;Kubernetes";
        let issued =
            authority(&dir).sign_workload(&web(), Some(description), &request(&[]).0, None, now()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let attribute = leaf.subject().iter_attributes().next().unwrap();
        assert_eq!(attribute.attr_type().to_id_string(), "2.5.4.13");
        assert_eq!(attribute.as_str().unwrap(), description);
    }

    #[test]
    fn a_request_without_a_name_gets_the_proven_one() {
        let dir = tempfile::tempdir().unwrap();
        let issued = authority(&dir).sign_workload(&web(), None, &request(&[]).0, None, now()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(san.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web")]);
    }

    #[test]
    fn the_shortest_life_wins() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(&dir);
        let now = now();
        let life = |requested_s: u64, at: OffsetDateTime| {
            let requested = Some(Duration::from_secs(requested_s));
            ca.sign_workload(&web(), None, &request(&[]).0, requested, at).unwrap().not_after - at
        };
        assert_eq!(life(600, now), time::Duration::seconds(600));
        assert_eq!(life(10 * 24 * 3600, now), time::Duration::hours(24));
        let late = ca.not_after() - time::Duration::hours(1);
        assert_eq!(life(24 * 3600, late), time::Duration::hours(1));
        let after = ca.not_after() + time::Duration::seconds(1);
        let refused = ca.sign_workload(&web(), None, &request(&[]).0, None, after);
        assert!(matches!(refused, Err(SignError::RootExpired(_))));
    }

    #[test]
    fn another_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(&dir);
        for names in [
            &["spiffe://cluster.local/ns/shop/sa/reviews"][..],
            &["spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/reviews"],
            &["spiffe://other.domain/ns/shop/sa/web"],
            &["https://web.shop"],
        ] {
            let refused = ca.sign_workload(&web(), None, &request(names).0, None, now());
            assert!(matches!(refused, Err(SignError::OtherIdentity { .. })), "{names:?}");
        }
        let key = KeyPair::generate().unwrap();
        let dns = CertificateParams::new(vec!["web.shop".to_owned()]).unwrap();
        let csr = dns.serialize_request(&key).unwrap().pem().unwrap();
        let refused = ca.sign_workload(&web(), None, &csr, None, now());
        assert!(matches!(refused, Err(SignError::OtherIdentity { .. })), "a DNS name");
    }

    #[test]
    fn rustls_accepts_the_serving_certificate_for_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(&dir);
        let address: IpAddr = [127, 0, 0, 1].into();
        let (issued, _) = ca.sign_serving(&["localhost"], &[address], now()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.root_certificate().clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        let verify = |name: &str| {
            use rustls::client::danger::ServerCertVerifier as _;
            let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(
                &issued.chain[0],
                &issued.chain[1..],
                &name,
                &[],
                rustls_pki_types::UnixTime::now(),
            )
        };
        assert!(verify("localhost").is_ok() && verify("127.0.0.1").is_ok());
        assert!(verify("example.org").is_err() && verify("127.0.0.2").is_err());
    }
}
