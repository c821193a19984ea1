//! Reading a certificate signing request (PKCS #10, RFC 2986).
//!
//! Only the public key and the requested names are taken. The subject and the key usages are not: the profile of
//! a certificate is the CA's decision alone, and a request that wants to be a CA is refused.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

/// A request whose signature was verified: the sender holds the private key.
#[derive(Debug)]
pub struct Csr {
    /// The key to certify.
    pub public_key: SubjectPublicKeyInfo,
    /// Every subject alternative name that is asked for, URIs as they are, other kinds in a form that equals
    /// no URI.
    pub names: Vec<String>,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not PEM with a `CERTIFICATE REQUEST` block.
    #[error("is not a PEM certificate request")]
    Pem,
    /// The block is not a certificate request.
    #[error("cannot be decoded as a PKCS #10 certificate request")]
    Der,
    /// The signature does not fit the key in the request, or uses an algorithm that is too weak.
    #[error("the signature is not valid for the public key in the request")]
    Signature,
    /// A key type that is not supported.
    #[error("the key type is not supported; use ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits")]
    KeyType,
    /// The request asks for a CA certificate.
    #[error("asks for a CA certificate; only workload certificates are issued")]
    WantsCa,
}

impl Csr {
    /// Reads and verifies a request in PEM.
    pub fn parse(pem: &str) -> Result<Self, CsrError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| CsrError::Pem)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Der)?;
        if !rest.is_empty() {
            return Err(CsrError::Der);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let public_key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|_| CsrError::KeyType)?;
        let mut names = Vec::new();
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(san) => {
                    names.extend(san.general_names.iter().map(name_text));
                }
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return Err(CsrError::WantsCa);
                }
                ParsedExtension::ParseError { .. } => return Err(CsrError::Der),
                _ => {}
            }
        }
        Ok(Self { public_key, names })
    }
}

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn pem(der: &[u8]) -> String {
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        )
    }

    fn good() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_good_request_is_read() {
        assert!(Csr::parse(&pem(&good())).unwrap().names.is_empty());
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap();
            assert!(Csr::parse(&csr.pem().unwrap()).is_ok(), "{algorithm:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let der = good();
        assert_eq!(Csr::parse("").unwrap_err(), CsrError::Pem);
        assert_eq!(Csr::parse("hello").unwrap_err(), CsrError::Pem);
        assert_eq!(Csr::parse(&pem(b"hello")).unwrap_err(), CsrError::Der);
        assert_eq!(Csr::parse(&pem(&der[..der.len() - 1])).unwrap_err(), CsrError::Der);
        assert_eq!(Csr::parse(&pem(&[&der[..], b"x"].concat())).unwrap_err(), CsrError::Der);
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        let mut der = good();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert_eq!(Csr::parse(&pem(&der)).unwrap_err(), CsrError::Signature);
    }

    #[test]
    fn a_request_for_a_ca_is_refused() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(Csr::parse(&csr).unwrap_err(), CsrError::WantsCa);
    }
}
