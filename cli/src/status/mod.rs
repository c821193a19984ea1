//! `outrigger status`: how far every connected proxy is, as the control plane sees it.
//!
//! A proxy that is gone is not shown, as with istioctl: the control plane forgets it with its stream.

mod ejections;
pub(crate) mod table;

use clap::Args;
use hyper::Uri;
use serde_json::{Value, json};

use crate::output::{Format, Output, list, put, text, value_text};
use crate::reach::{ClusterOptions, ControlPlaneOptions, Target, url};
use ejections::Ejections;

/// Flags of `outrigger status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all is well; 1 a proxy refuses something, or has not answered for longer than \
    --stale-after; 2 the control plane cannot be asked."
)]
pub(crate) struct Options {
    #[command(flatten)]
    control_plane: ControlPlaneOptions,
    /// Only the proxies of this namespace
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only proxies whose name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// A proxy that has not answered for so long is not well
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    stale_after: u64,
    /// Ask each proxy which endpoints it has taken out, and why
    #[arg(long)]
    ejections: bool,
    /// Address of a proxy's admin interface to ask, as http://127.0.0.1:15000, may be repeated; without it Pods are reached through the
    /// cluster
    #[arg(long, value_name = "URL", value_parser = url, requires = "ejections")]
    proxy_admin: Vec<Uri>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// How far a proxy is with one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It accepted everything.
    Synced,
    /// It has not answered yet.
    Stale,
    /// It refuses some of it.
    Refused,
    /// It did not ask for it.
    NotSent,
}

impl State {
    /// By the control plane's word for it; but what it refuses, it refuses also while something else is on its way.
    fn of(status: &Value) -> Self {
        match text(status, "/state") {
            _ if !list(status, "/rejected").is_empty() => Self::Refused,
            "synced" => Self::Synced,
            "stale" => Self::Stale,
            _ => Self::NotSent,
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
            Self::Refused => "REFUSED",
            Self::NotSent => "NOT SENT",
        }
    }
}

/// Prints the proxies. Whether all is well.
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    let mut proxies = Vec::new();
    let targets = options.control_plane.targets(&options.cluster).await?;
    for target in &targets {
        let version = target.json("/version").await?;
        for proxy in list(&target.json("/proxies").await?, "/proxies") {
            let mut proxy = proxy.clone();
            proxy["name"] = name_of(text(&proxy, "/id")).into();
            proxy["control_plane"] = json!({ "name": target.name, "version": text(&version, "/version") });
            proxies.push(proxy);
        }
    }
    proxies.retain(|proxy| {
        let (pod, namespace) = text(proxy, "/name").rsplit_once('.').unwrap_or_default();
        options.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && options.name.as_ref().is_none_or(|wanted| pod.contains(wanted.as_str()))
    });
    proxies.sort_by(|a, b| text(a, "/name").cmp(text(b, "/name")));
    let proxies = joined(proxies);
    let is_well = proxies.iter().all(|proxy| is_well(proxy, options.stale_after * 1000));
    let ejections = match options.ejections {
        true => Some(Ejections::ask(&options.proxies(&proxies).await?).await),
        false => None,
    };
    put(&match options.output.format {
        Format::Table => {
            let ejections = ejections.map(|ejections| ejections.text()).unwrap_or_default();
            table::text_of(&proxies, targets.len() > 1) + &ejections
        }
        format => {
            let mut all = json!({ "well": is_well, "proxies": proxies });
            if let Some(ejections) = ejections {
                all["ejections"] = ejections.found.into();
                all["not_asked"] = ejections.silent.into();
            }
            value_text(&all, format)
        }
    })?;
    Ok(is_well)
}

impl Options {
    /// The admin interfaces of the proxies.
    async fn proxies(&self, proxies: &[Value]) -> anyhow::Result<Vec<Target>> {
        if !self.proxy_admin.is_empty() {
            return Ok(self.proxy_admin.iter().map(Target::at).collect());
        }
        let mut names: Vec<&str> = proxies.iter().map(|proxy| text(proxy, "/name")).collect();
        names.dedup();
        Target::proxies(&names, &self.cluster).await
    }
}

/// A proxy that has a stream for each type is one proxy.
fn joined(streams: Vec<Value>) -> Vec<Value> {
    let mut proxies: Vec<Value> = Vec::new();
    for stream in streams {
        let is_same = |proxy: &&mut Value| {
            proxy["id"] == stream["id"] && proxy["control_plane"] == stream["control_plane"]
        };
        // A proxy that comes again may have two aggregated streams for a moment: both are shown.
        let is_part = text(&stream, "/service") != "ads";
        match proxies.iter_mut().find(is_same).filter(|_| is_part) {
            Some(proxy) => {
                for (of, status) in types(&stream).filter(|(_, status)| State::of(status) != State::NotSent) {
                    proxy["types"][of] = status.clone();
                }
            }
            None => proxies.push(stream),
        }
    }
    proxies
}

/// `POD.NAMESPACE` of a node id.
pub(crate) fn name_of(node_id: &str) -> &str {
    node_id.split('~').nth(2).unwrap_or(node_id)
}

/// The types of a proxy with their status, in the order of the control plane.
fn types(proxy: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let types = proxy.get("types").and_then(Value::as_object).into_iter().flatten();
    types.map(|(of, status)| (of.as_str(), status))
}

fn is_well(proxy: &Value, limit_ms: u64) -> bool {
    types(proxy).all(|(_, status)| match State::of(status) {
        State::Synced | State::NotSent => true,
        State::Refused => false,
        State::Stale => status["last_sent_age_ms"].as_u64().is_none_or(|age| age <= limit_ms),
    })
}

#[cfg(test)]
mod tests;
