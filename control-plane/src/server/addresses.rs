//! The addresses that were bound, also in `DATA_DIR/addresses.json` for whoever started us with port 0.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::XdsAddress;

/// The file's name in the data directory.
pub const ADDRESSES_FILE: &str = "addresses.json";

/// Where the control plane listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Plaintext gRPC: xDS and the certificate service. A Unix socket is `unix:PATH`.
    pub xds: XdsAddress,
    /// The same over TLS.
    pub xds_tls: Option<SocketAddr>,
    /// HTTP: the admin pages.
    pub admin: SocketAddr,
    /// HTTPS: the admission webhooks.
    pub webhook: Option<SocketAddr>,
}

impl Addresses {
    /// Writes the file as a whole: a reader finds either nothing or all of it.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let part = data_dir.join(format!("{ADDRESSES_FILE}.part"));
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&part, data_dir.join(ADDRESSES_FILE))
    }

    /// Removes the file of an earlier run, which would name ports that are no longer ours.
    pub(super) fn forget(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(ADDRESSES_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
