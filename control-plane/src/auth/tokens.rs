//! Bearer tokens of the file source: one random secret for each pod, in a file that only its owner may read.
//!
//! A directory of YAML has no API server that could issue and review service account tokens, so the control
//! plane writes `DATA_DIR/tokens/NAMESPACE/POD` (mode 0600) for every pod that the source names; whoever
//! starts the workload hands that file to its sidecar.
//!
//! Invariants: a token is 32 random bytes; memory holds only SHA-256 digests, so that no dump or log can show
//! a token; a pod that left the source is refused at once. Its file stays: a pod that comes back (a file that was
//! replaced in two steps, for example) finds the token that its sidecar already holds.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// Whom a token proves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodIdentity {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The service account that the pod runs as.
    pub service_account: String,
}

/// A token file could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The names would not make a safe path.
    #[error("pod `{pod}` in namespace `{namespace}`: not a valid Kubernetes name, so it gets no token")]
    InvalidName {
        /// The namespace as given.
        namespace: String,
        /// The pod as given.
        pod: String,
    },
    /// Reading, writing or creating failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Someone else may read the token.
    #[error(
        "{path}: mode {mode:04o} lets others read the token; chmod 0600 it or delete it to get a new one"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something that is not one of our tokens.
    #[error("{0}: does not hold a token of this control plane; delete it to get a new one")]
    Malformed(PathBuf),
    /// The system's random source failed.
    #[error("no random bytes from the system")]
    Random,
}

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

#[derive(Default)]
struct Table {
    /// By (namespace, pod): the digest, kept for pods that left so that coming back costs no file read.
    digests: HashMap<(String, String), Digest>,
    /// The pods that are in the source now, by the first eight bytes of the digest: a look-up by a prefix of
    /// a digest tells nothing about a token, and the rest is compared in constant time.
    current: HashMap<[u8; 8], Vec<(Digest, Arc<PodIdentity>)>>,
}

/// The tokens of all pods that the source names.
pub struct FileTokens {
    dir: PathBuf,
    table: RwLock<Table>,
}

impl FileTokens {
    /// Opens `DATA_DIR/tokens`, making it (mode 0700) when missing.
    pub fn open(data_dir: &Path) -> Result<Self, TokenError> {
        let dir = data_dir.join("tokens");
        private_dir(&dir)?;
        Ok(Self { dir, table: RwLock::default() })
    }

    /// Makes `pods` the whole set of pods that may authenticate, writing a token file for each new one.
    ///
    /// A pod whose token cannot be made is left out and reported; the others are not affected.
    pub fn replace(&self, pods: impl IntoIterator<Item = PodIdentity>) -> Vec<TokenError> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut errors = Vec::new();
        let mut current: HashMap<[u8; 8], Vec<_>> = HashMap::new();
        let mut seen = HashSet::new();
        for pod in pods {
            let key = (pod.namespace.clone(), pod.pod.clone());
            if !seen.insert(key.clone()) {
                continue;
            }
            let found = table.digests.get(&key).copied();
            let digest = match found.map_or_else(|| self.load_or_make(&pod), Ok) {
                Ok(digest) => digest,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            table.digests.insert(key, digest);
            current.entry(prefix(&digest)).or_default().push((digest, Arc::new(pod)));
        }
        table.current = current;
        errors
    }

    /// The pod that `token` belongs to, if it is in the source now.
    pub fn verify(&self, token: &str) -> Option<Arc<PodIdentity>> {
        let digest = hash(token.as_bytes());
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let candidates = table.current.get(&prefix(&digest))?;
        let (_, pod) = candidates
            .iter()
            .find(|(known, _)| constant_time::verify_slices_are_equal(known, &digest).is_ok())?;
        Some(Arc::clone(pod))
    }

    fn load_or_make(&self, pod: &PodIdentity) -> Result<Digest, TokenError> {
        // The names become a path: nothing but Kubernetes' own alphabet may get there.
        if !is_dns_subdomain(&pod.namespace) || !is_dns_subdomain(&pod.pod) {
            return Err(TokenError::InvalidName { namespace: pod.namespace.clone(), pod: pod.pod.clone() });
        }
        let dir = self.dir.join(&pod.namespace);
        private_dir(&dir)?;
        let path = dir.join(&pod.pod);
        match fs::metadata(&path) {
            Ok(metadata) => load(&path, metadata.permissions().mode() & 0o777),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&dir, &path),
            Err(source) => Err(TokenError::Io { path, source }),
        }
    }
}

fn load(path: &Path, mode: u32) -> Result<Digest, TokenError> {
    if mode & 0o077 != 0 {
        return Err(TokenError::TooOpen { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
    let token = text.trim_end_matches('\n');
    match URL_SAFE_NO_PAD.decode(token) {
        Ok(bytes) if bytes.len() == TOKEN_BYTES => Ok(hash(token.as_bytes())),
        _ => Err(TokenError::Malformed(path.to_owned())),
    }
}

fn make(dir: &Path, path: &Path) -> Result<Digest, TokenError> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    // Written beside and renamed, so that a sidecar that waits for the file never reads half of it. The
    // leading dot keeps the name apart from every pod's.
    let part = dir.join(format!(".{}.part", path.file_name().unwrap_or_default().to_string_lossy()));
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(token.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
    Ok(hash(token.as_bytes()))
}

fn private_dir(dir: &Path) -> Result<(), TokenError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| TokenError::Io { path: dir.to_owned(), source })
}

fn hash(token: &[u8]) -> Digest {
    let mut out = [0; digest::SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    out
}

fn prefix(digest: &Digest) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

/// Whether `name` is a DNS subdomain (RFC 1123), the form of a Kubernetes object's name.
fn is_dns_subdomain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn pod(namespace: &str, name: &str) -> PodIdentity {
        PodIdentity { namespace: namespace.into(), pod: name.into(), service_account: "web".into() }
    }

    fn token_of(dir: &Path, namespace: &str, name: &str) -> String {
        fs::read_to_string(dir.join("tokens").join(namespace).join(name)).unwrap()
    }

    #[test]
    fn each_pod_gets_its_own_private_token() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = FileTokens::open(dir.path()).unwrap();
        assert!(tokens.replace([pod("shop", "web-0"), pod("shop", "web-1")]).is_empty());
        let (first, second) = (token_of(dir.path(), "shop", "web-0"), token_of(dir.path(), "shop", "web-1"));
        assert_ne!(first, second);
        assert_eq!(*tokens.verify(&first).unwrap(), pod("shop", "web-0"));
        assert_eq!(*tokens.verify(&second).unwrap(), pod("shop", "web-1"));
        let file = dir.path().join("tokens/shop/web-0");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let folder = dir.path().join("tokens");
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn other_texts_are_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = FileTokens::open(dir.path()).unwrap();
        tokens.replace([pod("shop", "web-0")]);
        let token = token_of(dir.path(), "shop", "web-0");
        for wrong in ["", "x", &token[1..], &format!("{token} "), &token.to_uppercase()] {
            assert!(tokens.verify(wrong).is_none());
        }
    }

    #[test]
    fn a_pod_that_left_is_refused_and_its_token_lives_on_when_it_returns() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = FileTokens::open(dir.path()).unwrap();
        tokens.replace([pod("shop", "web-0")]);
        let token = token_of(dir.path(), "shop", "web-0");
        tokens.replace([]);
        assert!(tokens.verify(&token).is_none());
        tokens.replace([pod("shop", "web-0")]);
        assert!(tokens.verify(&token).is_some());
        let restarted = FileTokens::open(dir.path()).unwrap();
        restarted.replace([pod("shop", "web-0")]);
        assert!(restarted.verify(&token).is_some());
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = FileTokens::open(dir.path()).unwrap();
        let errors = tokens.replace([
            pod("..", "web-0"),
            pod("shop", "../../root-key.pem"),
            pod("shop", ".hidden"),
            pod("shop", "good"),
        ]);
        assert_eq!(errors.len(), 3);
        assert!(errors.iter().all(|error| matches!(error, TokenError::InvalidName { .. })));
        assert!(dir.path().join("tokens/shop/good").exists());
    }

    #[test]
    fn a_token_that_others_may_read_or_that_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        FileTokens::open(dir.path()).unwrap().replace([pod("shop", "web-0"), pod("shop", "web-1")]);
        let path = dir.path().join("tokens/shop/web-0");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(dir.path().join("tokens/shop/web-1"), "hello").unwrap();
        let tokens = FileTokens::open(dir.path()).unwrap();
        let errors = tokens.replace([pod("shop", "web-0"), pod("shop", "web-1")]);
        assert!(matches!(errors[0], TokenError::TooOpen { mode: 0o644, .. }), "{errors:?}");
        assert!(matches!(errors[1], TokenError::Malformed(_)), "{errors:?}");
        assert!(tokens.verify("hello").is_none());
    }
}
