//! The CA's own certificate and key: made once in the data directory, or given.
//!
//! Invariants: a private key that others may read is refused, not used; a root is never replaced by a new one
//! behind the user's back, because every workload trusts the old one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The root certificate's file in the data directory.
pub const CERTIFICATE_FILE: &str = "root-cert.pem";
/// The root key's file in the data directory.
pub const KEY_FILE: &str = "root-key.pem";

/// How long a root that is made here is valid (Istio: ten years).
const ROOT_LIFE: time::Duration = time::Duration::days(3650);
/// A new root is valid from a bit before now, so that a leaf's `notBefore` never precedes it.
const ROOT_BACKDATE: time::Duration = time::Duration::hours(1);

/// A signing certificate with its key and the way up to the root.
pub struct Root {
    chain: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// Why the CA has no usable certificate and key.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may enter the data directory.
    #[error("{path}: mode {mode:04o} lets others in; the directory holds private keys: chmod 0700 it")]
    DirectoryTooOpen {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may read the key.
    #[error("{path}: mode {mode:04o} lets others read the private key: chmod {wanted:04o} it")]
    KeyTooOpen {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The loosest bits that are accepted.
        wanted: u32,
    },
    /// Half of the pair is missing.
    #[error("{present} exists but {missing} does not: restore it, or delete both to make a new root")]
    HalfMissing {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A file cannot be used.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("{key} is not the private key of the first certificate in {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Making the root failed.
    #[error("the root certificate cannot be made: {0}")]
    Generate(#[from] rcgen::Error),
}

impl Root {
    /// The root in `data_dir`, made at the first start: ECDSA P-256, self-signed, ten years.
    ///
    /// For the directory see [`private_data_dir`].
    pub fn open_or_create(
        data_dir: &Path,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, RootError> {
        private_data_dir(data_dir)?;
        let (certificate, key) = (data_dir.join(CERTIFICATE_FILE), data_dir.join(KEY_FILE));
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => create(&certificate, &key, trust_domain, now)?,
            (true, false) => return Err(RootError::HalfMissing { present: certificate, missing: key }),
            (false, true) => return Err(RootError::HalfMissing { present: key, missing: certificate }),
        }
        load(&certificate, &key, 0o600, now)
    }

    /// A given root or intermediate: `certificate` holds the signing certificate first, then every one up to and
    /// including the self-signed root; `key` is the key of the first.
    ///
    /// The key's group may read it (a Kubernetes secret with `fsGroup`), others may not.
    pub fn load(certificate: &Path, key: &Path, now: OffsetDateTime) -> Result<Self, RootError> {
        load(certificate, key, 0o640, now)
    }

    /// The signing certificate first, the root last.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The self-signed certificate at the end of the chain.
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        // `load` refuses an empty chain.
        &self.chain[self.chain.len() - 1]
    }

    /// Signs with the first certificate's key.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// When the last certificate of the chain became valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// When the first certificate of the chain expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// Makes the data directory with mode 0700. One that exists and lets others in is closed to them when it is empty
/// (fresh from `mkdir`) and refused otherwise: what it holds may be meant for others.
pub fn private_data_dir(path: &Path) -> Result<(), RootError> {
    let io = |source| RootError::Io { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if fs::read_dir(path).map_err(io)?.next().is_some() {
        return Err(RootError::DirectoryTooOpen { path: path.to_owned(), mode });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io)
}

fn create(certificate: &Path, key: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<(), RootError> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "Outrigger root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - ROOT_BACKDATE;
    params.not_after = now + ROOT_LIFE;
    let signed = params.self_signed(&pair)?;
    // The key first: should the second write fail, the next start says what is missing and signs nothing.
    write_new(key, pair.serialize_pem().as_bytes(), 0o600)?;
    write_new(certificate, signed.pem().as_bytes(), 0o644)
}

/// Writes a file in full or not at all; fails when it exists already.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), RootError> {
    let part = path.with_extension("part");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        // A link, unlike a rename, never replaces what another process put there meanwhile.
        fs::hard_link(&part, path)?;
        fs::remove_file(&part)
    };
    write().map_err(|source| RootError::Io { path: path.to_owned(), source })
}

/// Writes a file that only its owner may read, in place of the one that is there.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), RootError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RootError::Io { path: path.to_owned(), source })
        }
        _ => write_new(path, content, 0o600),
    }
}

fn load(certificate: &Path, key: &Path, loosest: u32, now: OffsetDateTime) -> Result<Root, RootError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| RootError::Io { path: path.to_owned(), source })
    };
    let metadata = fs::metadata(key).map_err(|source| RootError::Io { path: key.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 & !loosest != 0 {
        return Err(RootError::KeyTooOpen { path: key.to_owned(), mode, wanted: loosest });
    }
    let unusable = |path: &Path, reason: String| RootError::Unusable { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_slice_iter(read(certificate)?.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unusable(certificate, "is not a list of certificates in PEM".to_owned()))?;
    let pair = KeyPair::from_pem(&read(key)?)
        .map_err(|_| unusable(key, "is not a private key in PEM (PKCS #8)".to_owned()))?;
    let life = check_chain(&chain, &pair, now).map_err(|problem| match problem {
        ChainProblem::OtherKey => {
            RootError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        ChainProblem::Certificate(reason) => unusable(certificate, reason),
    })?;
    let issuer = Issuer::from_ca_cert_der(&chain[0], pair)
        .map_err(|error| unusable(certificate, format!("cannot be used to sign: {error}")))?;
    Ok(Root { issuer, not_before: life.0, not_after: life.1, chain })
}

enum ChainProblem {
    OtherKey,
    Certificate(String),
}

/// Checks the way from the signing certificate to the root; returns when the whole of it is valid.
fn check_chain(
    chain: &[CertificateDer<'_>],
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), ChainProblem> {
    let problem = |index: usize, text: String| {
        ChainProblem::Certificate(format!("certificate {} of {}: {text}", index + 1, chain.len()))
    };
    let parsed = chain
        .iter()
        .enumerate()
        .map(|(index, der)| match X509Certificate::from_der(der) {
            Ok((_, certificate)) => Ok(certificate),
            Err(_) => Err(problem(index, "cannot be decoded".to_owned())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = parsed.first() else {
        return Err(ChainProblem::Certificate("holds no certificate".to_owned()));
    };
    if *first.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err(ChainProblem::OtherKey);
    }
    let mut life: Option<(OffsetDateTime, OffsetDateTime)> = None;
    for (index, certificate) in parsed.iter().enumerate() {
        let may_sign = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !certificate.is_ca() || !may_sign {
            return Err(problem(index, "is not a CA certificate".to_owned()));
        }
        let not_before = certificate.validity().not_before.to_datetime();
        let not_after = certificate.validity().not_after.to_datetime();
        if not_after <= now {
            return Err(problem(index, format!("expired at {not_after}")));
        }
        if not_before > now {
            return Err(problem(index, format!("is not valid before {not_before}")));
        }
        life = Some(
            life.map_or((not_before, not_after), |(from, to)| (from.max(not_before), to.min(not_after))),
        );
        let signer = parsed.get(index + 1).unwrap_or(certificate);
        let signed = certificate.issuer() == signer.subject()
            && certificate.verify_signature(Some(signer.public_key())).is_ok();
        if !signed {
            let expected =
                if index + 1 == parsed.len() { "itself; the last must be the root" } else { "the next" };
            return Err(problem(index, format!("is not signed by {expected}")));
        }
    }
    life.ok_or_else(|| ChainProblem::Certificate("holds no certificate".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn error(result: Result<Root, RootError>) -> String {
        result.err().expect("refused").to_string()
    }

    /// A CA certificate signed by `issuer` (itself when `None`), and its key.
    fn make_ca(
        name: &str,
        issuer: Option<&Issuer<'static, KeyPair>>,
        not_after: OffsetDateTime,
    ) -> (String, String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = now() - time::Duration::days(2);
        params.not_after = not_after;
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        }
        .unwrap();
        let pem = key.serialize_pem();
        (certificate.pem(), pem, Issuer::new(params, key))
    }

    fn given(dir: &Path, certificate: &str, key: &str) -> Result<Root, RootError> {
        let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        fs::write(&certificate_path, certificate).unwrap();
        fs::write(&key_path, key).unwrap();
        chmod(&key_path, 0o600);
        Root::load(&certificate_path, &key_path, now())
    }

    #[test]
    fn the_first_start_makes_a_root_and_the_next_keeps_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let first = Root::open_or_create(&dir, "cluster.local", now()).unwrap();
        assert_eq!((mode(&dir), mode(&dir.join(KEY_FILE))), (0o700, 0o600));
        let second = Root::open_or_create(&dir, "cluster.local", now()).unwrap();
        assert_eq!(first.chain(), second.chain());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn loose_permissions_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        Root::open_or_create(&dir, "cluster.local", now()).unwrap();
        chmod(&dir.join(KEY_FILE), 0o640);
        let text = error(Root::open_or_create(&dir, "cluster.local", now()));
        assert!(text.contains("root-key.pem") && text.contains("0640"), "{text}");
        chmod(&dir.join(KEY_FILE), 0o600);
        chmod(&dir, 0o755);
        // Not empty, so it is not ours to close.
        let text = error(Root::open_or_create(&dir, "cluster.local", now()));
        assert!(text.contains("0755"), "{text}");
    }

    #[test]
    fn an_empty_directory_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o755);
        Root::open_or_create(dir.path(), "cluster.local", now()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
    }

    #[test]
    fn half_a_root_is_never_completed() {
        let dir = tempfile::tempdir().unwrap();
        Root::open_or_create(dir.path(), "cluster.local", now()).unwrap();
        fs::remove_file(dir.path().join(CERTIFICATE_FILE)).unwrap();
        let text = error(Root::open_or_create(dir.path(), "cluster.local", now()));
        assert!(text.contains("root-cert.pem does not"), "{text}");
    }

    #[test]
    fn a_given_intermediate_comes_with_its_way_to_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, root_key, issuer) = make_ca("root", None, now() + time::Duration::days(9));
        let (middle, middle_key, _) = make_ca("middle", Some(&issuer), now() + time::Duration::days(3));
        let loaded = given(dir.path(), &format!("{middle}{root}"), &middle_key).unwrap();
        assert_eq!(loaded.chain().len(), 2);
        assert!(loaded.not_after() < now() + time::Duration::days(4), "the shorter life counts");
        assert!(given(dir.path(), &root, &root_key).is_ok());
        let text = error(given(dir.path(), &middle, &middle_key));
        assert!(text.contains("the last must be the root"), "{text}");
        let text = error(given(dir.path(), &format!("{root}{middle}"), &root_key));
        assert!(text.contains("certificate 1 of 2: is not signed by the next"), "{text}");
    }

    #[test]
    fn unusable_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let later = now() + time::Duration::days(9);
        let (certificate, key, _) = make_ca("root", None, later);
        let (_, other_key, _) = make_ca("other", None, later);
        let (expired, expired_key, _) = make_ca("old", None, now() - time::Duration::days(1));
        for (certificate, key, expected) in [
            (certificate.as_str(), other_key.as_str(), "is not the private key of"),
            (&expired, &expired_key, "expired at"),
            ("", &key, "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", &key, "ca.pem"),
            (&certificate, "hello", "ca-key.pem: is not a private key"),
        ] {
            let text = error(given(dir.path(), certificate, key));
            assert!(text.contains(expected), "{text}");
        }
        let missing = Root::load(&dir.path().join("none.pem"), &dir.path().join("ca-key.pem"), now());
        assert!(error(missing).contains("none.pem"));
        chmod(&dir.path().join("ca-key.pem"), 0o644);
        let open = Root::load(&dir.path().join("ca.pem"), &dir.path().join("ca-key.pem"), now());
        assert!(error(open).contains("0644"));
    }

    #[test]
    fn a_leaf_certificate_is_not_a_ca() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_after = now() + time::Duration::days(1);
        let leaf = params.self_signed(&key).unwrap();
        let text = error(given(dir.path(), &leaf.pem(), &key.serialize_pem()));
        assert!(text.contains("is not a CA certificate"), "{text}");
    }
}
