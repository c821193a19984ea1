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

/// The identity that was kept, if it is this one's and still valid; otherwise it is told why not.
pub(super) fn load(directory: &Path, principal: &str) -> Option<Answer> {
    let bytes = std::fs::read(path(directory)).ok()?;
    read(&bytes, principal)
        .inspect_err(
            |reason| tracing::warn!(target: "identity", "the certificate from before the start does not count: {reason}"),
        )
        .ok()
}

/// What is wrong with the content is not quoted: it holds the key.
fn read(bytes: &[u8], principal: &str) -> Result<Answer, &'static str> {
    let saved: Saved = serde_json::from_slice(bytes).map_err(|_| "it is damaged")?;
    if saved.principal != principal {
        return Err("it is another workload's");
    }
    let answer =
        request::read(principal, saved.chain, PrivateKey(saved.private_key)).map_err(|_| "it is damaged")?;
    let leaf = answer.certificate.leaf();
    match (leaf.not_before..leaf.not_after).contains(&SystemTime::now()) {
        true => Ok(answer),
        false => Err("it is out of its time"),
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}
