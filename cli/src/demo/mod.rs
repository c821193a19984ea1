//! `outrigger demo`: a control plane, four workloads with sidecars and a stranger, on loopback addresses that stand for pods.
//!
//! Every process is the real binary, every certificate comes from the control plane's CA, every figure is measured while it
//! runs. Each step checks what it claims; the exit code is 0 only when all held.

#![allow(clippy::print_stdout, reason = "the demo talks to the person who started it")]

mod application;
mod envoy;
mod http;
mod load;
mod mesh;
mod objects;
mod prometheus;
mod report;
mod steps;

use std::path::PathBuf;

use clap::Args;

/// `outrigger demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave the mesh running afterwards and print commands to try
    #[arg(long)]
    keep: bool,
    /// Where outrigger-proxy and outrigger-control-plane are; by default beside this binary
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// Runs the demo; true when every step held.
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    let bin_dir = match options.bin_dir {
        Some(dir) => dir,
        None => {
            let own = std::env::current_exe()?;
            own.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    let mut report = report::Report::default();
    let mut mesh = mesh::Mesh::start(&bin_dir).await?;
    let outcome = steps::run(&mut mesh, &mut report).await;
    report.print();
    if let Err(error) = &outcome {
        println!("\nstopped early: {error:#}");
        println!("logs: {}", mesh.log_dir().display());
        mesh.print_last_log_lines();
    }
    let held = outcome.is_ok() && report.all_held();
    println!("\n{}", if held { "Every step held." } else { "NOT every step held: see FAILED above." });
    if options.keep {
        mesh.print_commands_to_try();
        tokio::signal::ctrl_c().await?;
    }
    mesh.stop().await;
    Ok(held)
}
