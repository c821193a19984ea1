//! `outrigger diff`: what the control plane has for a proxy, against what the proxy runs.
//!
//! Both say it in the same form. What the proxy has of its own bootstrap is no difference, and secrets are not compared: a
//! workload makes its own, and a control plane shows none.

pub(crate) mod compare;

use std::fmt::Write as _;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::output::{Format, Output, list, put, text, value_text};
use crate::reach::{ClusterOptions, ControlPlaneOptions, ProxyOptions, Target};
use crate::status::name_of;
use compare::{Compared, Outcome, TYPES};

/// Flags of `outrigger diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 the same; 1 a difference; 2 one of them cannot be asked.")]
pub(crate) struct Options {
    #[command(flatten)]
    proxy: ProxyOptions,
    #[command(flatten)]
    control_plane: ControlPlaneOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Prints the differences. Whether there are none.
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    let proxy = options.proxy.target(&options.cluster).await?;
    let info = proxy.json("/server_info").await?;
    let node_id = text(&info, "/node/id");
    if node_id.is_empty() {
        bail!("{}: /server_info names no node", proxy.name);
    }
    let running = proxy.json("/config_dump?include_eds").await?;
    let control_planes = options.control_plane.targets(&options.cluster).await?;
    let (control_plane, known) = control_plane_of(node_id, &control_planes).await?;
    let path = format!("/config_dump?proxy={node_id}");
    let wanted = control_plane.json(&path).await?;
    let compared = compare::dumps(&wanted, &running, known.as_ref());
    put(&match options.output.format {
        Format::Table => told(name_of(node_id), known.is_some(), &compared),
        format => value_text(&shown(name_of(node_id), known.is_some(), &compared), format),
    })?;
    Ok(compared.iter().all(|resource| resource.outcome == Outcome::Same))
}

/// The control plane that the proxy is connected to with its row of `/proxies`, or else the first one, which has the same
/// configuration.
async fn control_plane_of<'a>(
    node_id: &str,
    targets: &'a [Target],
) -> anyhow::Result<(&'a Target, Option<Value>)> {
    for target in targets {
        let page = target.json("/proxies").await?;
        let row = list(&page, "/proxies").iter().rfind(|proxy| text(proxy, "/id") == node_id);
        if let Some(row) = row {
            return Ok((target, Some(row.clone())));
        }
    }
    Ok((targets.first().context("there is no control plane")?, None))
}

/// Each difference, then how many there are of each type.
fn told(name: &str, is_connected: bool, compared: &[Compared]) -> String {
    let mut out = String::new();
    if !is_connected {
        let _ = writeln!(out, "{name} is not connected to the control plane: it runs what it had last\n");
    }
    for resource in compared {
        let (outcome, diff) = match &resource.outcome {
            Outcome::Same => continue,
            Outcome::OnlyControlPlane => ("only the control plane has it", ""),
            Outcome::OnlyProxy => ("only the proxy has it", ""),
            Outcome::Differs(diff) => ("differs", diff.as_str()),
        };
        let _ = writeln!(out, "{} {}: {outcome}", resource.of.title, resource.name);
        for reason in &resource.refused {
            let _ = writeln!(out, "  refused: {reason}");
        }
        let _ = writeln!(out, "{diff}");
    }
    for of in &TYPES {
        let found = || compared.iter().filter(|found| found.of == of);
        let same = found().filter(|found| found.outcome == Outcome::Same).count();
        let _ = writeln!(out, "{:<20}   {same} the same, {} different", of.plural, found().count() - same);
    }
    out
}

fn shown(name: &str, is_connected: bool, compared: &[Compared]) -> Value {
    let resources = compared.iter().map(|resource| {
        let (state, diff) = match &resource.outcome {
            Outcome::Same => ("same", None),
            Outcome::Differs(diff) => ("differs", Some(diff)),
            Outcome::OnlyControlPlane => ("only_control_plane", None),
            Outcome::OnlyProxy => ("only_proxy", None),
        };
        let mut row = json!({ "type": resource.of.short, "name": resource.name, "state": state });
        if let Some(diff) = diff {
            row["diff"] = diff.as_str().into();
        }
        if !resource.refused.is_empty() {
            row["refused"] = resource.refused.clone().into();
        }
        row
    });
    json!({ "proxy": name, "connected": is_connected, "resources": resources.collect::<Vec<_>>() })
}
