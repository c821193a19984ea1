//! Why the control plane does not run.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::addresses::ADDRESSES_FILE;
use super::options::Source;
use crate::auth::TokenError;
use crate::ca::root::RootError;
use crate::ca::secret::RootSecretError;
use crate::ca::serving::ServingError;
use crate::source::kubernetes::ConnectError;

/// Why the control plane did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A plaintext listener that others could reach.
    #[error(
        "--xds-address {0}: is not a loopback address; tokens and configuration travel in plaintext there, use --xds-tls-address"
    )]
    NotLoopback(SocketAddr),
    /// The CA has no usable root, or the data directory is not private.
    #[error("certificate authority: {0}")]
    Root(#[from] RootError),
    /// The Secret with the CA's root.
    #[error("certificate authority: {0}")]
    RootSecret(#[from] RootSecretError),
    /// The token directory cannot be made.
    #[error("tokens: {0}")]
    Tokens(#[from] TokenError),
    /// The file of roots that the mesh trusts cannot be used.
    #[error("--trusted-roots {0}")]
    TrustedRoots(String),
    /// The control plane's own certificate.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// rustls refuses the configuration.
    #[error("--xds-tls-address: {0}")]
    Tls(#[from] rustls::Error),
    /// The settings of injection cannot be used.
    #[error("--injection-settings {}: {reason}", path.display())]
    InjectionSettings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The files of statuses would be taken for objects.
    #[error("--status-dir {}: is in the directory of --source, so what is written there would be read as objects", .0.display())]
    StatusDir(PathBuf),
    /// An address cannot be bound.
    #[error("{flag} {address}: {source}")]
    Bind {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: String,
        /// What is wrong, or what the system said.
        source: io::Error,
    },
    /// The source cannot be read.
    #[error("--source {location}: {source}")]
    Source {
        /// The source as it was given.
        location: Source,
        /// What the system said.
        source: io::Error,
    },
    /// There is no way to the API server.
    #[error("--source kubernetes: {0}")]
    Connect(#[from] ConnectError),
    /// `addresses.json` cannot be written.
    #[error("{ADDRESSES_FILE} in --data-dir: {0}")]
    Addresses(io::Error),
    /// Two metrics have one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task that lives as long as the process ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}
