//! `outrigger analyze`: what the control plane would say of objects, before they are applied.
//!
//! It is the control plane's own code that judges: what passes here is in force there. With `--cluster` the objects that the
//! cluster has are judged; files beside it are judged as if they had been applied to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use outrigger_control_plane::analyze::{Analysis, applied};
use outrigger_control_plane::metrics::Metrics;
use outrigger_control_plane::model::{Finding, MeshSettings, Sidecars};
use outrigger_control_plane::source::{self, Event};
use serde_json::{Value, json};

use crate::output::{Format, Output, printable, put, value_text};
use crate::reach::ClusterOptions;

/// Flags of `outrigger analyze`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong; 1 there are findings, with --fail-on=error only errors; 2 the objects \
    cannot be read."
)]
pub(crate) struct Options {
    /// Kubernetes YAML or JSON, or a directory of it; `-` is the standard input. Repeatable
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required_unless_present = "use_cluster")]
    files: Vec<PathBuf>,
    /// Read what the cluster has; with --filename: what it would have once these were applied
    #[arg(long = "cluster")]
    use_cluster: bool,
    /// Which findings make the exit code 1
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Severity::Warning)]
    fail_on: Severity,
    /// Seconds until the cluster must be read
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// DNS suffix of Services
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Namespace whose policies hold for the whole mesh
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Severity {
    /// The object is in force, but not with its whole effect
    Warning,
    /// The object is refused
    Error,
}

impl Severity {
    fn shown(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Prints the findings. Whether there are none that count.
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    let files = read(&options.files)?;
    let settings = MeshSettings {
        cluster_domain: options.cluster_domain.clone(),
        root_namespace: options.root_namespace.clone(),
        sidecars: if options.use_cluster { Sidecars::Injected } else { Sidecars::Assumed },
        ..MeshSettings::default()
    };
    let analysis = if options.use_cluster {
        let client = options.cluster.client().await?;
        let limit = Duration::from_secs(options.timeout);
        let read = source::kubernetes::read_once(client, limit, Arc::new(Metrics::new()?)).await;
        let cluster = read.map_err(anyhow::Error::msg).context("the cluster cannot be read")?;
        let now = Analysis::of(settings.clone(), &cluster);
        match files.is_empty() {
            true => now,
            false => Analysis::of(settings, &applied(&cluster, files)).since(&now),
        }
    } else {
        Analysis::of(settings, &files)
    };
    let errors = analysis.errors.iter().map(|finding| (Severity::Error, finding));
    let warnings = analysis.warnings.iter().map(|finding| (Severity::Warning, finding));
    let mut findings: Vec<(Severity, &Finding)> = errors.chain(warnings).collect();
    findings.sort_by_key(|(_, finding)| (&finding.file, &finding.position, &finding.object));
    put(&match options.output.format {
        Format::Table => told(&findings, &analysis),
        format => value_text(&shown(&findings, &analysis), format),
    })?;
    Ok(!findings.iter().any(|(severity, _)| *severity >= options.fail_on))
}

/// What the files say. One that is not there is a mistake of the caller, not a finding.
fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Event>> {
    let path = |file: &PathBuf| if file.as_os_str() == "-" { "/dev/stdin".into() } else { file.clone() };
    let paths: Vec<PathBuf> = files.iter().map(path).collect();
    for path in &paths {
        std::fs::metadata(path).with_context(|| path.display().to_string())?;
    }
    let events = source::read_files(&paths);
    if !paths.is_empty() && events.is_empty() {
        bail!("there is no object in these files");
    }
    Ok(events)
}

/// A line for each finding, as compilers write it, so that editors find the place; then how many there are.
fn told(findings: &[(Severity, &Finding)], analysis: &Analysis) -> String {
    let mut out: String =
        findings.iter().map(|(severity, finding)| line(*severity, finding) + "\n").collect();
    let Analysis { errors, warnings, objects } = analysis;
    let counts = [(errors.len(), "error"), (warnings.len(), "warning")].map(|(n, what)| count(n, what));
    out.push_str(&format!("{} in {}\n", counts.join(", "), count(*objects, "object")));
    out
}

fn line(severity: Severity, finding: &Finding) -> String {
    let mut parts = Vec::new();
    match (&finding.file, finding.position) {
        (Some(file), Some(position)) => parts.push(format!("{file}:{}:{}", position.line, position.column)),
        (Some(file), None) => parts.push(file.to_string()),
        (None, _) => {}
    }
    parts.push(severity.shown().to_owned());
    parts.extend(finding.object.as_ref().map(ToString::to_string));
    parts.extend(Some(finding.field.clone()).filter(|field| !field.is_empty()));
    parts.push(finding.reason.clone());
    printable(&parts.join(": "))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn shown(findings: &[(Severity, &Finding)], analysis: &Analysis) -> Value {
    let rows = findings.iter().map(|(severity, finding)| {
        json!({
            "severity": severity.shown(),
            "file": finding.file.as_deref(),
            "line": finding.position.map(|position| position.line),
            "column": finding.position.map(|position| position.column),
            "object": finding.object.as_ref().map(|object| json!({
                "group": object.group,
                "kind": object.kind,
                "namespace": object.namespace,
                "name": object.name,
            })),
            "field": finding.field,
            "reason": finding.reason,
        })
    });
    json!({
        "errors": analysis.errors.len(),
        "warnings": analysis.warnings.len(),
        "objects": analysis.objects,
        "findings": rows.collect::<Vec<_>>(),
    })
}
