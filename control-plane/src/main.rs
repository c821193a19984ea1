//! The binary `outrigger-control-plane`: flags, log, signals. All else is the library's.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use outrigger_control_plane::Options;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged when `RUST_LOG` does not say otherwise. The Kubernetes client would log failures that the source logs in
/// its own words.
const LOG: &str = "info,kube_client=error,kube_runtime=error";

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| LOG.to_owned());
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).parse_lossy(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = terminated()?;
        outrigger_control_plane::run(options, shutdown).await?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Completes at the first SIGTERM or SIGINT.
fn terminated() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
