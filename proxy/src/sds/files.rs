//! The certificate, its key and the roots as PEM files, with the names that Istio's agent gives them (`OUTPUT_CERTS`).
//!
//! All three change at once: they are in a folder of their own, and a link to it is moved. The names that readers open are links
//! through that one, as in a volume of Kubernetes.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::Access;
use crate::identity::Issued;

/// The link to the folder that counts.
const CURRENT: &str = "..data";
/// The certificate and its issuers, the key, the roots.
const FILES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Where the files are.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    access: Access,
}

impl Directory {
    /// Makes it; one that is there already is left with the mode that it has.
    pub(super) fn make(path: &Path, access: Access) -> io::Result<Self> {
        if !path.is_dir() {
            make_folder(path, access)?;
        }
        Ok(Self { path: path.to_owned(), access })
    }

    /// Keeps the files equal to what was issued last, until nothing more is.
    pub(super) async fn keep(self, mut source: watch::Receiver<Option<Arc<Issued>>>) {
        loop {
            let issued = source.borrow_and_update().clone();
            if let Some(issued) = issued
                && let Err(error) = self.write(&issued)
            {
                tracing::error!(
                    target: "secret", "cannot write the certificate to '{}': {error}", self.path.display()
                );
                sleep(RETRY).await;
                continue;
            }
            if source.changed().await.is_err() {
                return;
            }
        }
    }

    fn write(&self, issued: &Issued) -> io::Result<()> {
        let folder = format!("..{}", super::version_of(&issued.certificate_chain));
        let current = self.path.join(CURRENT);
        let leads_to = |link: &Path, target: &Path| fs::read_link(link).is_ok_and(|found| found == target);
        if !leads_to(&current, Path::new(&folder)) {
            self.fill(&folder, issued)?;
            replace_link(Path::new(&folder), &current)?;
        }
        // Also when only this failed the time before.
        for name in FILES {
            let (target, link) = (Path::new(CURRENT).join(name), self.path.join(name));
            if !leads_to(&link, &target) {
                replace_link(&target, &link)?;
            }
        }
        self.remove_others(&folder)
    }

    /// Makes the folder of a certificate.
    fn fill(&self, folder: &str, issued: &Issued) -> io::Result<()> {
        // One that a crash left behind may be there by halves.
        ignore_missing(fs::remove_dir_all(self.path.join(folder)))?;
        make_folder(&self.path.join(folder), self.access)?;
        let contents = [&issued.certificate_chain, issued.private_key.pem(), &issued.roots];
        for (name, content) in FILES.into_iter().zip(contents) {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(self.path.join(folder).join(name))?;
            file.set_permissions(Permissions::from_mode(self.access.file()))?;
            file.write_all(content.as_bytes())?;
        }
        Ok(())
    }

    /// Removes the folders of certificates before.
    fn remove_others(&self, folder: &str) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.starts_with("..") && name != folder);
            if is_ours && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Its mode does not depend on the umask.
fn make_folder(path: &Path, access: Access) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(access.directory()))
}

/// Makes `link` lead to `target` in one step, whatever it was before.
fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let mut beside = link.as_os_str().to_owned();
    beside.push(".part");
    ignore_missing(fs::remove_file(&beside))?;
    symlink(target, &beside)?;
    fs::rename(&beside, link)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
