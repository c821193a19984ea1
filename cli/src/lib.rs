//! What a person types. A library, so that `fuzz/` reaches its parsers; the program is `main.rs`.

mod analyze;
mod check;
mod config;
mod demo;
mod diff;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod inject;
mod output;
mod reach;
mod status;

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
    /// Show how far every connected proxy is: synced, stale or refused, and why
    Status(status::Options),
    /// Show the configuration that one proxy runs
    Config(config::Options),
    /// Compare what the control plane has for a proxy with what the proxy runs
    Diff(diff::Options),
    /// Judge objects before they are applied, or those of a cluster, as the control plane does
    Analyze(analyze::Options),
    /// Run a whole mesh on this machine and show what it does: no root, no cluster, no network
    Demo(demo::Options),
    /// Ask a control plane whether it serves: readiness, certificate, injection webhook
    Check(check::Options),
    /// Put sidecars into the workloads of a file, as the webhook does it in a cluster; writes to standard output
    Inject(inject::Options),
}

/// Of commands whose answer may be "no": that is 1, so that no answer is something else. (Wrong flags are 2 as well.)
const NO_ANSWER: u8 = 2;

/// Runs the command that the arguments say; what the process is to end with.
pub fn main() -> ExitCode {
    let (outcome, failure) = match Cli::parse().command {
        Command::Status(options) => (run(status::run(options)), NO_ANSWER),
        Command::Config(options) => (run(config::run(options)), NO_ANSWER),
        Command::Diff(options) => (run(diff::run(options)), NO_ANSWER),
        Command::Analyze(options) => (run(analyze::run(options)), NO_ANSWER),
        Command::Demo(options) => (run(demo::run(options)), 1),
        Command::Check(options) => (run(check::run(options)), 1),
        Command::Inject(options) => (inject::run(&options).map(|()| true), 1),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&error);
            failure.into()
        }
    }
}

/// Runs a command that waits for others; whether all went well.
fn run(command: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<bool> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[allow(clippy::print_stderr, reason = "a command-line tool says on stderr why it failed")]
fn tell(error: &anyhow::Error) {
    eprintln!("outrigger: {error:#}");
}
