//! A certificate maker: roots and SPIFFE leaves as PEM files in a folder that goes with the value.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// A root and where its files are.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// PEM file of the root certificate.
    pub root: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// A leaf: a certificate chain and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// PEM file of the certificate chain.
    pub chain: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// The test PKI: one root, and a second one that nobody trusts.
#[derive(Debug)]
pub struct Pki {
    folder: tempfile::TempDir,
    /// The trusted root.
    pub trusted: Authority,
    /// A root that is not in any trust bundle of the tests.
    pub foreign: Authority,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// Makes both roots in a new temporary folder.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let trusted = Authority::new(folder.path(), "root");
        let foreign = Authority::new(folder.path(), "foreign-root");
        Pki { folder, trusted, foreign }
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("key pair");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        let certificate = params.self_signed(&key).expect("self-signed root");
        let (root, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&root, certificate.pem()).expect("write the root");
        fs::write(&key_file, key.serialize_pem()).expect("write the root's key");
        fs::set_permissions(&key_file, Permissions::from_mode(0o600)).expect("close the root's key");
        Authority { issuer: Issuer::new(params, key), folder: folder.into(), root, key: key_file }
    }

    /// A leaf `spiffe://cluster.local/ns/default/sa/NAME` that is valid for years; also
    /// `NAME.default.svc.cluster.local`.
    pub fn leaf(&self, name: &str) -> Leaf {
        self.issue(name, date_time_ymd(2124, 1, 1))
    }

    /// The same, but it runs out so long from now, on the second.
    pub fn leaf_until(&self, name: &str, left: Duration) -> Leaf {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
        self.issue(name, date_time_ymd(1970, 1, 1) + Duration::from_secs((now + left).as_secs()))
    }

    /// The same, but it ran out in 2021.
    pub fn expired(&self, name: &str) -> Leaf {
        self.issue(name, date_time_ymd(2021, 1, 1))
    }

    /// A certificate of this authority beside the key of another one.
    pub fn mismatched(&self, name: &str) -> Leaf {
        let leaf = self.leaf(name);
        fs::write(&leaf.key, KeyPair::generate().expect("key pair").serialize_pem()).expect("write the key");
        leaf
    }

    fn issue(&self, name: &str, not_after: OffsetDateTime) -> Leaf {
        self.issue_for(name, &format!("{name}.default.svc.cluster.local"), not_after)
    }

    /// A leaf like that of [`Authority::leaf`] with another DNS name.
    pub fn leaf_named(&self, name: &str, dns_name: &str) -> Leaf {
        self.issue_for(name, dns_name, date_time_ymd(2124, 1, 1))
    }

    fn issue_for(&self, name: &str, dns_name: &str, not_after: OffsetDateTime) -> Leaf {
        let key = KeyPair::generate().expect("key pair");
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        params.subject_alt_names = vec![SanType::URI(ia5(&spiffe(name))), SanType::DnsName(ia5(dns_name))];
        let certificate = params.signed_by(&key, &self.issuer).expect("sign a leaf");
        let file = |kind: &str| self.folder.join(format!("{name}-{}.{kind}", fastrand::u64(..)));
        let leaf = Leaf { chain: file("pem"), key: file("key") };
        fs::write(&leaf.chain, certificate.pem()).expect("write the chain");
        fs::write(&leaf.key, key.serialize_pem()).expect("write the key");
        leaf
    }
}

impl Leaf {
    /// The certificate chain, for a TLS library.
    pub fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        read_certificates(&self.chain)
    }

    /// The private key, for a TLS library.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).expect("private key file")
    }
}

/// The certificates of a PEM file.
pub fn read_certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file)
        .expect("certificate file")
        .map(|der| der.expect("certificate"))
        .collect()
}

/// The SPIFFE identity of the service account `name` in the namespace `default`.
pub fn spiffe(name: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{name}")
}

fn ia5(text: &str) -> Ia5String {
    Ia5String::try_from(text).expect("an ASCII name")
}
