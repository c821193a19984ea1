//! The binary `outrigger-control-plane`: flags, commands, log, signals. All else is the library's.

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Command, CommandFactory as _, FromArgMatches as _};
use outrigger_control_plane::{Options, api};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged when `RUST_LOG` does not say otherwise. The Kubernetes client would log failures that the source logs in
/// its own words.
const LOG: &str = "info,kube_client=off,kube_runtime=off";

/// The command that prints the definitions of our own kinds.
const CRDS: &str = "crds";

fn main() -> ExitCode {
    let matches = command().get_matches();
    if matches.subcommand_name() == Some(CRDS) {
        return print(&api::definitions());
    }
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
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

/// The flags of the control plane, or a command that only prints.
fn command() -> Command {
    let about = "Print the CustomResourceDefinitions of the mesh's own kinds, as YAML";
    Options::command()
        .subcommand(Command::new(CRDS).about(about))
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
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
