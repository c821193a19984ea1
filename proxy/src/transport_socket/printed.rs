//! A side's certificates as text: for access logs and `x-forwarded-client-cert`. The text is made when the first line asks for it, and
//! then kept as long as the connection.

use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::asn1_rs::Any;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{ip_san, system_time};
use super::{San, distinguished_name};

/// The certificates that one side showed, leaf first; never empty.
pub struct Certificates {
    chain: Box<[CertificateDer<'static>]>,
    printed: OnceLock<Box<PrintedCertificates>>,
}

/// What is printed of them. Lists are joined by commas; empty: there is none.
#[derive(Debug, Default)]
pub struct PrintedCertificates {
    /// The leaf's subject, RFC 2253.
    pub subject: String,
    /// The leaf's issuer, RFC 2253.
    pub issuer: String,
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Mail addresses.
    pub emails: Vec<String>,
    /// IP addresses.
    pub ips: Vec<String>,
    /// Other names that are strings.
    pub other_names: Vec<String>,
    /// The leaf first, hexadecimal.
    pub serials: Vec<String>,
    /// SHA-1 of each certificate, hexadecimal.
    pub sha1: Vec<String>,
    /// SHA-256 of each certificate, hexadecimal.
    pub sha256: Vec<String>,
    /// The leaf's start of validity.
    pub not_before: Option<SystemTime>,
    /// The leaf's end of validity.
    pub not_after: Option<SystemTime>,
    /// The leaf in PEM, URL-encoded.
    pub pem: String,
    /// The whole chain in PEM, URL-encoded.
    pub chain_pem: String,
}

impl Certificates {
    /// `None` when the other side showed none.
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain: Box<[_]> = chain.iter().map(|der| der.clone().into_owned()).collect();
        (!chain.is_empty()).then(|| Self { chain, printed: OnceLock::new() })
    }

    /// Its text.
    pub fn printed(&self) -> &PrintedCertificates {
        self.printed.get_or_init(|| Box::new(PrintedCertificates::of(&self.chain)))
    }
}

impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Certificates {}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("len", &self.chain.len()).finish_non_exhaustive()
    }
}

impl PrintedCertificates {
    fn of(chain: &[CertificateDer<'_>]) -> Self {
        let mut printed = Self::default();
        for (at, der) in chain.iter().enumerate() {
            let pem = url_encoded_pem(der);
            if at == 0 {
                printed.pem.clone_from(&pem);
            }
            printed.chain_pem.push_str(&pem);
            printed.sha1.push(hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()));
            printed.sha256.push(hex(digest::digest(&digest::SHA256, der).as_ref()));
            let Ok((_, certificate)) = X509Certificate::from_der(der) else { continue };
            let serial = certificate.raw_serial();
            let zeros = serial.iter().take_while(|byte| **byte == 0).count();
            printed.serials.push(hex(&serial[zeros..]));
            if at == 0 {
                printed.read_leaf(&certificate);
            }
        }
        printed
    }

    fn read_leaf(&mut self, leaf: &X509Certificate<'_>) {
        self.subject = distinguished_name::rfc2253(leaf.subject());
        self.issuer = distinguished_name::rfc2253(leaf.issuer());
        self.not_before = Some(system_time(leaf.validity().not_before.timestamp()));
        self.not_after = Some(system_time(leaf.validity().not_after.timestamp()));
        let names = leaf.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => self.dns.push((*name).into()),
                GeneralName::URI(name) => self.uris.push((*name).into()),
                GeneralName::RFC822Name(name) => self.emails.push((*name).into()),
                GeneralName::IPAddress(bytes) => {
                    if let Some(San::Ip(ip)) = ip_san(bytes) {
                        self.ips.push(ip.to_string());
                    }
                }
                GeneralName::OtherName(_, value) => self.other_names.extend(other_name(value)),
                _ => {}
            }
        }
    }
}

/// `[0] EXPLICIT` around the value.
fn other_name(value: &[u8]) -> Option<String> {
    let (_, explicit) = Any::from_der(value).ok()?;
    let (_, inner) = Any::from_der(explicit.data).ok()?;
    distinguished_name::string(&inner)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn url_encoded_pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, character) in STANDARD.encode(der).chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            character => text.push(character),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}
