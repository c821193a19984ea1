//! `outrigger-kube-api`: the test API server as a process, for shells and for tests that kill it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use outrigger_kube_api::{ApiServer, Options};

/// A Kubernetes API server for tests. It serves until it gets SIGTERM or SIGINT and keeps nothing.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Writes a kubeconfig of the administrator to this file
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Another address that clients use, for the certificate (repeatable)
    #[arg(long)]
    address: Vec<IpAddr>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let server = ApiServer::start_with(Options { address: arguments.listen, addresses: arguments.address })?;
    if let Some(file) = arguments.kubeconfig {
        std::fs::write(&file, server.kubeconfig()).with_context(|| format!("write {}", file.display()))?;
    }
    writeln!(std::io::stdout(), "{}", server.url())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    })?;
    Ok(())
}
