//! `outrigger-proxy`: flags, the main runtime, exit codes. Everything else is in the library.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use outrigger_proxy::bootstrap::{Document, NodeFlags};
use outrigger_proxy::capture::{self, CaptureFlags};
use outrigger_proxy::logging::{LogLevel, Logging};
use outrigger_proxy::sds::{self, SdsFlags};
use outrigger_proxy::server::{self, Options, Server, StartError};
use outrigger_proxy::sidecar::SidecarFlags;
use outrigger_proxy::sidecar::request::{self, RequestFlags, WaitFlags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A sidecar proxy that runs Envoy's configuration.
#[derive(Debug, Parser)]
#[command(name = "outrigger-proxy", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run beside a workload: the configuration comes from the control plane
    Sidecar {
        #[command(flatten)]
        sidecar: Box<SidecarFlags>,
        #[command(flatten)]
        process: ProcessFlags,
    },
    /// Hand the workload's certificate to another program beside it: by the Secret Discovery Service, or as files
    Sds {
        #[command(flatten)]
        sds: Box<SdsFlags>,
        #[command(flatten)]
        log: LogFlags,
    },
    /// Send a pod's connections to its sidecar: rules of the kernel's packet filter
    Capture(Box<CaptureFlags>),
    /// Ask the sidecar of this pod, as a lifecycle hook does
    Request(RequestFlags),
    /// Wait until the sidecar of this pod is ready
    Wait(WaitFlags),
}

/// Flags with Envoy's names and meanings.
#[derive(Debug, Args)]
struct ServeFlags {
    /// Bootstrap file, YAML or JSON
    #[arg(short = 'c', long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    /// Bootstrap as inline YAML, merged over that of --config-path
    #[arg(long, value_name = "YAML")]
    config_yaml: Option<String>,
    /// Serve, or only look at the configuration
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    /// Node name
    #[arg(long)]
    service_node: Option<String>,
    /// Cluster name of the node
    #[arg(long)]
    service_cluster: Option<String>,
    /// Zone of the node
    #[arg(long)]
    service_zone: Option<String>,
    /// Seconds that connections may take to end when the process ends
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    drain_time_s: u64,
    /// Write the address of the admin interface to this file
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    /// Accepted for Envoy's command lines: there is no hot restart
    #[arg(long, value_name = "SECONDS")]
    parent_shutdown_time_s: Option<u64>,
    /// Accepted for Envoy's command lines: there is no hot restart
    #[arg(long, value_name = "ID")]
    base_id: Option<u64>,
    /// Accepted for Envoy's command lines: there is no hot restart
    #[arg(long)]
    disable_hot_restart: bool,
    #[command(flatten)]
    process: ProcessFlags,
}

/// Flags of both ways to run.
#[derive(Debug, Args)]
struct ProcessFlags {
    /// Number of workers, 0 like 1; default: the CPU quota, rounded up
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1024))]
    concurrency: Option<u32>,
    #[command(flatten)]
    log: LogFlags,
}

/// Flags of the process log.
#[derive(Debug, Args)]
struct LogFlags {
    /// trace, debug, info, warning, error, critical or off
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    log_level: LogLevel,
    /// Levels of components, COMPONENT:LEVEL,...
    #[arg(long, default_value = "", value_name = "LEVELS")]
    component_log_level: String,
    /// Write the process log to this file
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
        }
    }
}

/// The allocator reads it before `main`. `0`: memory that is free goes back to the system at once, and not when the allocator
/// happens to be busy later.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Our image sets it; a process that was started without it starts again with it, under the same id. Does nothing where that
/// cannot be: such a process only keeps more memory than it needs.
fn ensure_purge_delay() {
    if let (None, Ok(program)) = (std::env::var_os(PURGE_DELAY), std::env::current_exe()) {
        let mut words = std::env::args_os();
        let mut again = std::process::Command::new(program);
        again.arg0(words.next().unwrap_or_default()).args(words).env(PURGE_DELAY, "0");
        // Returns only when it failed.
        let _ = again.exec();
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, None | Some(Command::Sidecar { .. })) && cli.serve.mode == Mode::Serve {
        ensure_purge_delay();
    }
    let outcome = match cli {
        Cli { command: Some(Command::Sidecar { sidecar, process }), .. } => run_sidecar(&sidecar, &process),
        Cli { command: Some(Command::Sds { sds, log }), .. } => run_sds(&sds, &log),
        Cli { command: Some(Command::Capture(flags)), .. } => return run_capture(&flags),
        Cli { command: Some(Command::Request(flags)), .. } => {
            request::run(&flags).map(|body| answer(body.trim_end())).map_err(anyhow::Error::msg)
        }
        Cli { command: Some(Command::Wait(flags)), .. } => request::wait(&flags).map_err(anyhow::Error::msg),
        Cli { command: None, serve } => run_file(&serve),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "a process that does not start says why on stderr")]
fn complain(error: &anyhow::Error) {
    eprintln!("{error:#}");
}

#[allow(clippy::print_stdout, reason = "the answers of --mode validate and of request go to stdout")]
fn answer(text: &str) {
    println!("{text}");
}

fn run_capture(flags: &CaptureFlags) -> ExitCode {
    match capture::run(flags, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = ExitCode::from(error.exit_code());
            complain(&error.into());
            code
        }
    }
}

fn run_file(flags: &ServeFlags) -> anyhow::Result<()> {
    let logging = start_logging(&flags.process.log)?;
    let document = read_document(flags)?;
    let node = NodeFlags {
        id: flags.service_node.clone(),
        cluster: flags.service_cluster.clone(),
        zone: flags.service_zone.clone(),
    };
    if flags.mode == Mode::Validate {
        server::validate(document, &node)?;
        let name = flags
            .config_path
            .as_ref()
            .map_or_else(|| "--config-yaml".to_owned(), |p| p.display().to_string());
        answer(&format!("configuration '{name}' OK"));
        return Ok(());
    }
    let concurrency = concurrency(&flags.process);
    let command_line = serde_json::json!({
        "concurrency": concurrency,
        "mode": flags.mode.as_str(),
        "config_path": flags.config_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        "config_yaml": flags.config_yaml.clone().unwrap_or_default(),
        "service_node": flags.service_node.clone().unwrap_or_default(),
        "service_cluster": flags.service_cluster.clone().unwrap_or_default(),
        "service_zone": flags.service_zone.clone().unwrap_or_default(),
        "drain_time": format!("{}s", flags.drain_time_s),
        "log_level": flags.process.log.log_level.as_str(),
        "component_log_level": flags.process.log.component_log_level,
        "log_path": flags.process.log.log_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        "base_id": flags.base_id.unwrap_or_default().to_string(),
        "disable_hot_restart": true,
    });
    let options = Options {
        concurrency,
        drain_time: Duration::from_secs(flags.drain_time_s),
        node,
        command_line,
        ..Options::new(logging)
    };
    serve(document, options, flags.admin_address_path.as_ref())
}

fn run_sidecar(flags: &SidecarFlags, process: &ProcessFlags) -> anyhow::Result<()> {
    let logging = start_logging(&process.log)?;
    let (document, options) =
        flags.configure(concurrency(process), logging, std::env::vars()).map_err(anyhow::Error::msg)?;
    serve(document, options, None)
}

fn run_sds(flags: &SdsFlags, log: &LogFlags) -> anyhow::Result<()> {
    start_logging(log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(sds::run(flags)).map_err(anyhow::Error::msg)
}

fn concurrency(flags: &ProcessFlags) -> usize {
    flags.concurrency.map_or_else(server::default_concurrency, |n| n.max(1) as usize)
}

fn start_logging(flags: &LogFlags) -> anyhow::Result<Arc<Logging>> {
    if let Some(path) = &flags.log_path {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| anyhow::anyhow!("Failed to open log-file '{}': {e}", path.display()))?;
        // The log goes to standard error, which becomes the file.
        rustix::stdio::dup2_stderr(&file)?;
    }
    Logging::start(flags.log_level, &flags.component_log_level).map(Arc::new).map_err(anyhow::Error::msg)
}

fn read_document(flags: &ServeFlags) -> anyhow::Result<Document> {
    let mut document = Document::default();
    if let Some(path) = &flags.config_path {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("unable to read file: {name}: {e}"))?;
        document.merge(&name, &text).map_err(StartError::Invalid)?;
    }
    if let Some(text) = &flags.config_yaml {
        document.merge("--config-yaml", text).map_err(StartError::Invalid)?;
    }
    if flags.config_path.is_none() && flags.config_yaml.is_none() {
        anyhow::bail!("At least one of --config-path or --config-yaml should be non-empty");
    }
    Ok(document)
}

/// Runs the main runtime until the process is to end.
fn serve(document: Document, options: Options, admin_address_path: Option<&PathBuf>) -> anyhow::Result<()> {
    outrigger_proxy::overload::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = Server::start(document, options).await?;
        server.handle_signals()?;
        if let (Some(path), Some(address)) = (admin_address_path, server.admin_address()) {
            std::fs::write(path, address.to_string())
                .map_err(|e| anyhow::anyhow!("cannot write admin address file '{}': {e}", path.display()))?;
        }
        server.run().await;
        Ok(())
    })
}
