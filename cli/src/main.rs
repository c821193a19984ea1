//! `outrigger`: what a person types.

mod check;
mod demo;

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
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(async {
        match command {
            Command::Demo(options) => demo::run(options).await,
            Command::Check(options) => check::run(options).await,
        }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

#[allow(clippy::print_stderr, reason = "a command-line tool says on stderr why it failed")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("outrigger: {error:#}");
    ExitCode::FAILURE
}
