//! `outrigger`: what a person types.

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
    /// Put sidecars into the workloads of a file, as the webhook does it in a cluster; writes to standard output
    Inject(inject::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => run_demo(options),
        Command::Inject(options) => inject::run(&options).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

/// Whether everything was shown.
fn run_demo(options: demo::Options) -> anyhow::Result<bool> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(demo::run(options))
}

#[allow(clippy::print_stderr, reason = "a command-line tool says on stderr why it failed")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("outrigger: {error:#}");
    ExitCode::FAILURE
}
