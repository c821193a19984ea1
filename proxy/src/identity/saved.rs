//! The identity on disk, so that a sidecar which starts while the certificate service is away is who it was. One file, 0600.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::request::{self, Answer, PrivateKey};
use crate::state::private;

/// The file in the state directory.
const FILE: &str = "identity";

/// What is kept: everything as PEM.
#[derive(Serialize, Deserialize)]
struct Saved {
    principal: String,
    private_key: String,
    /// The workload's certificate first, the roots last.
    chain: Vec<String>,
}

/// Keeps an identity; a failure is logged.
pub(super) fn save(directory: &Path, principal: &str, answer: &Answer) {
    let saved = Saved {
        principal: principal.to_owned(),
        private_key: answer.private_key.0.clone(),
        chain: answer.chain.clone(),
    };
    let written = private::make_directory(directory)
        .and_then(|()| Ok(serde_json::to_vec(&saved)?))
        .and_then(|bytes| private::replace(&path(directory), &bytes));
    if let Err(error) = written {
        tracing::warn!(target: "identity", "cannot keep the certificate in '{}': {error}", directory.display());
    }
}

/// The identity that was kept, if it is this one's and still valid.
pub(super) fn load(directory: &Path, principal: &str) -> Option<Answer> {
    let bytes = std::fs::read(path(directory)).ok()?;
    // What is wrong with it is not told: an error could quote the key.
    let saved: Saved = serde_json::from_slice(&bytes).ok()?;
    if saved.principal != principal {
        return None;
    }
    let answer = request::read(principal, saved.chain, PrivateKey(saved.private_key)).ok()?;
    let leaf = answer.certificate.leaf();
    (leaf.not_before <= SystemTime::now() && SystemTime::now() < leaf.not_after).then_some(answer)
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}
