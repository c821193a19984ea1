//! Certificates: what is in one, and our own with its private key.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Certificates, crypto_provider};

/// The attribute `description`.
const OID_X509_DESCRIPTION: Oid<'static> = oid!(2.5.4.13);

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// `DNS`.
    Dns(Arc<str>),
    /// `URI`.
    Uri(Arc<str>),
    /// `EMAIL`.
    Email(Arc<str>),
    /// `IP_ADDRESS`.
    Ip(IpAddr),
}

/// The readable parts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Lower-case hexadecimal, no separators.
    pub serial: String,
    /// Subject alternative names in the certificate's order; kinds that nothing matches on are left out.
    pub sans: Vec<San>,
    /// The subject's `description` (X.520, 2.5.4.13): which workload it is for, as our own CA writes it.
    pub description: Option<Arc<str>>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl CertificateDetails {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// It is not an X.509 certificate, or its subject alternative names are malformed.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| format!("malformed certificate: {e}"))?;
        let mut sans = Vec::new();
        let extension = cert
            .subject_alternative_name()
            .map_err(|e| format!("malformed subject alternative names: {e}"))?;
        for name in extension.iter().flat_map(|e| &e.value.general_names) {
            match name {
                GeneralName::DNSName(n) => sans.push(San::Dns((*n).into())),
                GeneralName::URI(n) => sans.push(San::Uri((*n).into())),
                GeneralName::RFC822Name(n) => sans.push(San::Email((*n).into())),
                GeneralName::IPAddress(bytes) => sans.extend(ip_san(bytes)),
                _ => {}
            }
        }
        let description = cert
            .subject()
            .iter_attributes()
            .find(|attribute| *attribute.attr_type() == OID_X509_DESCRIPTION)
            .and_then(|attribute| attribute.as_str().ok().map(Arc::from));
        let validity = cert.validity();
        Ok(Self {
            serial: cert.raw_serial().iter().skip_while(|b| **b == 0).map(|b| format!("{b:02x}")).collect(),
            sans,
            description,
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
        })
    }

    /// The first URI SAN: the SPIFFE identity of a workload.
    pub fn principal(&self) -> Option<&Arc<str>> {
        self.sans.iter().find_map(|san| match san {
            San::Uri(uri) => Some(uri),
            _ => None,
        })
    }
}

pub(super) fn ip_san(bytes: &[u8]) -> Option<San> {
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(San::Ip(ip))
}

pub(super) fn system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Reads all certificates of a PEM text.
///
/// # Errors
/// The text is malformed or has no certificate.
pub(super) fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("malformed PEM: {e}"))?;
    if certificates.is_empty() { Err("no certificate found".to_owned()) } else { Ok(certificates) }
}

/// `TlsCertificate`: our own certificate chain and its private key.
pub struct TlsCertificate {
    key: Arc<CertifiedKey>,
    chain: Vec<CertificateDetails>,
}

impl TlsCertificate {
    /// From a PEM chain (the leaf first) and a PEM key (PKCS #8, PKCS #1 or SEC 1, not encrypted). An expired certificate is
    /// accepted, as Envoy does: the peer refuses it.
    ///
    /// # Errors
    /// A reason that never contains key material: malformed, unsupported, or the key belongs to another certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let certificates =
            certificates_from_pem(chain).map_err(|e| format!("failed to load certificate chain: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            rustls_pki_types::pem::Error::NoItemsFound => {
                "failed to load private key: no unencrypted private key found".to_owned()
            }
            _ => "failed to load private key: malformed PEM".to_owned(),
        })?;
        Self::from_der(certificates, key)
    }

    /// The same from DER.
    ///
    /// # Errors
    /// As [`TlsCertificate::from_pem`].
    pub fn from_der(
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let chain = certificates
            .iter()
            .map(|der| CertificateDetails::parse(der))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("failed to load certificate chain: {e}"))?;
        if chain.is_empty() {
            return Err("failed to load certificate chain: no certificate found".to_owned());
        }
        let key = CertifiedKey::from_der(certificates, key, crypto_provider()).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                "failed to load private key: the key does not belong to the certificate (key values mismatch)"
                    .to_owned()
            }
            e => format!("failed to load private key: {e}"),
        })?;
        Ok(Self { key: Arc::new(key), chain })
    }

    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The chain for logs.
    pub(super) fn certificates(&self) -> Option<Arc<Certificates>> {
        Certificates::new(&self.key.cert).map(Arc::new)
    }

    /// The chain as people read it, leaf first; never empty.
    pub fn chain(&self) -> &[CertificateDetails] {
        &self.chain
    }

    /// The leaf.
    pub fn leaf(&self) -> &CertificateDetails {
        &self.chain[0]
    }
}

impl fmt::Debug for TlsCertificate {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}
