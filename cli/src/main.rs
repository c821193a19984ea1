//! `outrigger`: what a person types.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger_cli::main()
}
