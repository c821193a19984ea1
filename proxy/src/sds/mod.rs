//! `outrigger-proxy sds`: the workload's secrets for another program beside it, a real Envoy for instance, or a gRPC client.
//!
//! The identity is a sidecar's own (`identity`): the key is made here, certified by the control plane and renewed at half of its
//! life. [`service`] serves it over a Unix [`socket`] as the secrets `default` (certificate and key) and `ROOTCA` (trusted roots),
//! by the Secret Discovery Service in both variants; [`files`] keeps it in a directory of PEM files. Each renewal is handed on at
//! once. Whoever may open the socket or the directory is the workload: both are the user's alone unless a group is let in.
//!
//! One runtime, one thread. A key never reaches a log or an error.

mod files;
mod flags;
mod secrets;
mod service;
mod session;
mod socket;
#[cfg(test)]
mod tests;

use std::future::pending;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::signal::unix::{SignalKind, signal};

pub use self::flags::SdsFlags;
use crate::identity;
use crate::stats::Stats;

/// Hands the secrets on until SIGTERM or SIGINT. Must be called on a tokio runtime.
///
/// # Errors
/// The socket or the directory cannot be made, or the flags cannot work together. A certificate service that is away is no
/// error: whoever asks for secrets waits.
pub async fn run(flags: &SdsFlags) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let access = if flags.share_with_group { Access::Group } else { Access::Owner };
    let socket = match &flags.uds {
        Some(path) => Some(socket::bind(path, access.socket()).map_err(|e| format!("--uds: {e}"))?),
        None => None,
    };
    let directory = match &flags.output_certs {
        Some(path) => Some(
            files::Directory::make(path, access)
                .map_err(|e| format!("--output-certs '{}': {e}", path.display()))?,
        ),
        None => None,
    };
    let identity = identity::start(flags.identity.options(&flags.ca_address), Stats::new())?;
    let (listener, _file) = socket.unzip();
    let served = async {
        match listener {
            Some(listener) => service::serve(listener, identity.issued()).await,
            None => pending().await,
        }
    };
    let written = async {
        match directory {
            Some(directory) => directory.keep(identity.issued()).await,
            None => pending().await,
        }
    };
    tracing::info!(target: "secret", "handing on the secrets of {}", identity.principal);
    let signal = tokio::select! {
        result = served => return result.map_err(|e| format!("--uds: {e}")),
        () = written => return Ok(()),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::warn!(target: "main", "caught {signal}");
    Ok(())
}

/// Who may take the secrets.
#[derive(Debug, Clone, Copy)]
enum Access {
    /// This user.
    Owner,
    /// Also the group of the file: whatever the directory that it is made in gives it.
    Group,
}

impl Access {
    fn socket(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }

    fn file(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o640,
        }
    }

    fn directory(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group => 0o750,
        }
    }
}

/// The version of a secret, by the part of it that is no secret.
fn version_of(public: &str) -> String {
    let digest = digest(&SHA256, public.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
