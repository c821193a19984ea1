//! What the mesh trusts: the CA's own root, and more roots that a file gives.
//!
//! So a root can be replaced with no connection lost: the new one is trusted everywhere first, then signs, and the old one is trusted as
//! long as something of it is in use. The file is read again for each use; one that cannot be read, or that holds something else, changes
//! nothing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::to_pem;

/// The roots that workloads trust.
#[derive(Debug)]
pub struct TrustBundle {
    own: CertificateDer<'static>,
    file: Option<PathBuf>,
    /// The file's roots when it was good last.
    more: Mutex<Vec<CertificateDer<'static>>>,
}

impl TrustBundle {
    /// The CA's own root, and those in `file`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn new(own: CertificateDer<'static>, file: Option<PathBuf>) -> Result<Self, String> {
        let more = file.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(Self { own, file, more: Mutex::new(more) })
    }

    /// All roots as PEM, the CA's own first.
    pub fn pem(&self) -> String {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file {
            match read(file) {
                Ok(roots) => *more = roots,
                Err(error) => tracing::warn!(%error, "the trusted roots stay as they were"),
            }
        }
        let others = more.iter().filter(|root| **root != self.own);
        std::iter::once(&self.own).chain(others).map(to_pem).collect()
    }
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let refused = |reason: String| format!("{}: {reason}", file.display());
    let pem = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
    let mut roots = Vec::new();
    for (number, root) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let root = root.map_err(|error| refused(format!("block {number}: {error}")))?;
        let (_, parsed) =
            X509Certificate::from_der(&root).map_err(|error| refused(format!("block {number}: {error}")))?;
        if !parsed.is_ca() {
            return Err(refused(format!("block {number}: is no certificate of an authority")));
        }
        roots.push(root);
    }
    if roots.is_empty() {
        return Err(refused("holds no certificate".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::ca::root::Root;
    use time::OffsetDateTime;

    fn root() -> CertificateDer<'static> {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open_or_create(folder.path(), "cluster.local", OffsetDateTime::now_utc()).unwrap();
        root.root_certificate().clone()
    }

    fn count(bundle: &TrustBundle) -> usize {
        bundle.pem().matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn the_file_is_followed_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roots.pem");
        let own = root();
        assert_eq!(count(&TrustBundle::new(own.clone(), None).unwrap()), 1);
        assert!(TrustBundle::new(own.clone(), Some(file.clone())).unwrap_err().contains("roots.pem: "));
        std::fs::write(&file, to_pem(&root())).unwrap();
        let bundle = TrustBundle::new(own.clone(), Some(file.clone())).unwrap();
        assert_eq!(count(&bundle), 2);
        assert!(bundle.pem().starts_with(&to_pem(&own)));
        std::fs::write(&file, to_pem(&root()) + &to_pem(&root()) + &to_pem(&own)).unwrap();
        assert_eq!(count(&bundle), 3, "its own counts once");
        for bad in ["", "no PEM", &to_pem(&CertificateDer::from(vec![1, 2, 3]))] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(count(&bundle), 3, "{bad}");
        }
    }
}
