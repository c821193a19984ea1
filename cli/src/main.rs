//! `outrigger`: what a person types.

mod check;
mod demo;
mod inject;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "outrigger", version, about = "Outrigger, a sidecar service mesh")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole mesh on this machine and show what it does: no root, no cluster, no network
    Demo(demo::Options),
    /// Ask a control plane whether it serves: readiness, certificate, injection webhook
    Check(check::Options),
    /// Put sidecars into the workloads of a file, as the webhook does it in a cluster; writes to standard output
    Inject(inject::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => run(demo::run(options)),
        Command::Check(options) => run(check::run(options)),
        Command::Inject(options) => inject::run(&options).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

/// Runs a command that waits for others; whether all went well.
fn run(command: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<bool> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[allow(clippy::print_stderr, reason = "a command-line tool says on stderr why it failed")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("outrigger: {error:#}");
    ExitCode::FAILURE
}
