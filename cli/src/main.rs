//! `outrigger`: what a person types.

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
}

fn main() -> ExitCode {
    let Command::Demo(options) = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(demo::run(options)) {
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
