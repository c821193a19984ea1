//! `outrigger-proxy capture`: sends a pod's TCP connections to its sidecar, by rules of the kernel's packet filter.
//!
//! It runs before the sidecar and the application, with `CAP_NET_ADMIN`, in the pod's network namespace, and ends. Nothing of
//! it runs later. What is captured: [`options`]; as rules: [`rules`]; in a packet filter's language: [`nftables`], [`iptables`],
//! [`netlink`]; by which of them: [`backend`]. At the end it proves itself ([`proof`]).
//!
//! Invariants: one set of rules at any time, made or replaced in one transaction for each family of addresses; a run with rules
//! as they should be changes nothing; other programs' rules are never touched.

pub mod addresses;
pub mod backend;
pub mod command;
pub mod iptables;
pub mod netlink;
pub mod nftables;
pub mod options;
pub mod proof;
pub mod rules;
pub mod step;

use std::io::{self, Write};

use addresses::Pod;
use backend::{Backend, available};
pub use options::CaptureFlags;
use options::{BackendChoice, CaptureOptions};
use proof::ProofError;
use rules::Rules;
use step::Step;

/// Why a pod is not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Flags that contradict each other.
    #[error("{0}")]
    Options(String),
    /// The rules can neither be read nor changed.
    #[error(
        "no CAP_NET_ADMIN in this network namespace: run as root with NET_ADMIN in securityContext.capabilities.add"
    )]
    NotPermitted,
    /// None of the chosen ways to a packet filter has its programs here.
    #[error("--backend needs a program that is not in the PATH ('{0}')")]
    NoProgram(String),
    /// Each packet filter with what it complained of.
    #[error("cannot program the packet filter:{}", .0.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    Program(Vec<String>),
    /// `--check`: the rules are missing or damaged.
    #[error("the rules are not as they should be: missing, changed or of other options")]
    NotCurrent,
    /// The rules are there, but do not do it.
    #[error("the rules do not work")]
    NotProven(#[from] ProofError),
    /// The answer cannot be written.
    #[error("cannot say what was done")]
    Output(#[from] io::Error),
}

impl CaptureError {
    /// Exit code: 126 (Istio's code of a failed validation) when the pod is not captured as it should be, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            CaptureError::NotCurrent | CaptureError::NotProven(_) => 126,
            _ => 1,
        }
    }
}

/// Does what the flags say, and says on `out` what it did.
///
/// # Errors
/// The pod is not captured as it should be; the text says why.
pub fn run(flags: &CaptureFlags, out: &mut impl Write) -> Result<(), CaptureError> {
    let options = &flags.options;
    options.validate().map_err(CaptureError::Options)?;
    let rules = Rules::new(options);
    let pod = Pod::read();
    if flags.dry_run {
        return show(&flags.backend, &rules, &pod, out);
    }
    if !has_net_admin() {
        return Err(CaptureError::NotPermitted);
    }
    if flags.undo {
        return undo(&pod, out);
    }
    let backends = some(available(&flags.backend))?;
    let current = backends.iter().find(|backend| is_current(backend, &rules, &pod));
    match current {
        Some(backend) => writeln!(out, "{backend}: the rules are as they should be")?,
        None if flags.check => return Err(CaptureError::NotCurrent),
        None => {
            let backend = program(&backends, &rules, &pod)?;
            writeln!(out, "{backend}: {} rules", rules.count())?;
        }
    }
    if flags.prove || flags.check { prove(options, current.is_some() && !flags.check, out) } else { Ok(()) }
}

fn is_current(backend: &Backend, rules: &Rules, pod: &Pod) -> bool {
    backend.is_current(rules, pod.has_ipv6()) && (!pod.has_ipv6() || pod.has_loopback())
}

fn some(backends: Vec<Backend>) -> Result<Vec<Backend>, CaptureError> {
    if backends.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        return Err(CaptureError::NoProgram(path.to_string_lossy().into_owned()));
    }
    Ok(backends)
}

/// Programs the first packet filter that takes the rules, and cleans the others.
fn program<'a>(backends: &'a [Backend], rules: &Rules, pod: &Pod) -> Result<&'a Backend, CaptureError> {
    let mut complaints = Vec::new();
    for backend in backends {
        let steps = backend.programming(rules, pod.has_ipv6()).map(|mut steps| {
            steps.extend(pod.adding_loopback());
            steps
        });
        match steps.and_then(|steps| run_all(&steps)) {
            Ok(()) => {
                let all = available(&[BackendChoice::Auto]);
                for other in all.iter().filter(|other| !other.is_same_place(backend)) {
                    run_all(&other.cleaning()).map_err(|error| CaptureError::Program(vec![error]))?;
                }
                return Ok(backend);
            }
            Err(complaint) => {
                complaints.push(format!("{backend}: {complaint}"));
                // The half that succeeded, of one family; what fails here fails as above.
                let _ = run_all(&backend.cleaning());
            }
        }
    }
    Err(CaptureError::Program(complaints))
}

fn run_all(steps: &[Step]) -> Result<(), String> {
    steps.iter().try_for_each(Step::run)
}

fn undo(pod: &Pod, out: &mut impl Write) -> Result<(), CaptureError> {
    let mut complaints = Vec::new();
    let mut removed = false;
    for backend in available(&[BackendChoice::Auto]) {
        let steps = backend.cleaning();
        match run_all(&steps) {
            Err(complaint) => complaints.push(format!("{backend}: {complaint}")),
            Ok(()) if steps.is_empty() => {}
            Ok(()) => {
                removed = true;
                writeln!(out, "{backend}: removed")?;
            }
        }
    }
    if let Err(complaint) = run_all(pod.removing_loopback().as_slice()) {
        complaints.push(complaint);
    }
    if !complaints.is_empty() {
        return Err(CaptureError::Program(complaints));
    }
    if !removed {
        writeln!(out, "there is nothing to remove")?;
    }
    Ok(())
}

/// `--dry-run`.
fn show(
    choices: &[BackendChoice],
    rules: &Rules,
    pod: &Pod,
    out: &mut impl Write,
) -> Result<(), CaptureError> {
    let backends = some(available(choices))?;
    if let Some(backend) = backends.iter().find(|backend| is_current(backend, rules, pod)) {
        writeln!(out, "# {backend}: the rules are as they should be")?;
        return Ok(());
    }
    for (number, backend) in backends.iter().enumerate() {
        let otherwise = if number == 0 { "" } else { ", if the ones before do not work" };
        writeln!(out, "# {backend}{otherwise}")?;
        match backend.programming(rules, pod.has_ipv6()) {
            Ok(steps) => steps.iter().try_for_each(|step| writeln!(out, "{step}"))?,
            Err(complaint) => writeln!(out, "# {complaint}")?,
        }
    }
    if let Some(step) = pod.adding_loopback() {
        writeln!(out, "# for the sidecar's calls to its application\n{step}")?;
    }
    Ok(())
}

/// `may_be_running`: the rules were right before, so the sidecar may have its ports already.
fn prove(options: &CaptureOptions, may_be_running: bool, out: &mut impl Write) -> Result<(), CaptureError> {
    // Once more: the loopback interface may have its address only now.
    match proof::prove(options, &Pod::read()) {
        Ok(proven) => Ok(proven.iter().try_for_each(|one| writeln!(out, "{one}"))?),
        Err(error) if may_be_running && error.is_in_use() => {
            Ok(writeln!(out, "not proven again: the sidecar is running ({error})")?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this process may program the network (capability 12).
fn has_net_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set & (1 << 12) != 0)
}
