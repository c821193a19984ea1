//! The client: where the API server is and who we are there.

use std::path::Path;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::source::kubernetes::follow::WATCH_S;

/// A connection on which nothing is read for this long is closed. More than the life of one watch, which ends by itself.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_S as u64 + 10);

/// There is no usable client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of `--kubeconfig`.
    #[error("--kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// No file was named and the process does not run in a Pod.
    #[error("not in a cluster, and no --kubeconfig was given: {0}")]
    InCluster(#[from] InClusterError),
    /// The certificates or the address cannot be used.
    #[error("the client of the API server: {0}")]
    Client(#[from] kube::Error),
}

/// A client by the files of `--kubeconfig` (several with `:` between, of which the first wins, as for kubectl), or else by
/// the service account of the Pod. Nothing is connected yet; files of tokens and certificates are read again as they
/// change.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(files) => {
            let mut merged = Kubeconfig::default();
            for file in std::env::split_paths(files) {
                merged = merged.merge(Kubeconfig::read_from(file)?)?;
            }
            Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster()?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    let name = HeaderValue::from_static(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, name));
    Ok(Client::try_from(config)?)
}
