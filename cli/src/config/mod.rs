//! `outrigger config`: the configuration that one proxy runs, as tables or as it is.
//!
//! It is read from the proxy itself, or from a file with the answer of its `/config_dump`, of ours or of a real Envoy. A proxy
//! never shows a key, so neither does this.

mod clusters;
pub(crate) mod dump;
mod endpoints;
mod listeners;
mod routes;
mod secrets;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::output::{Format, Output, Table, put, value_text};
use crate::reach::{ClusterOptions, ProxyOptions, Target};
use dump::{Entry, Kind, entries};

/// Flags of `outrigger config`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

/// What is shown.
#[derive(Debug, Subcommand)]
enum What {
    /// Where the proxy listens, and what each filter chain takes and does
    #[command(visible_alias = "listener")]
    Listeners(Show<listeners::Filter>),
    /// Which requests go where, and which object says so
    #[command(visible_alias = "route")]
    Routes(Show<routes::Filter>),
    /// Where the proxy can send to, and which policy shapes it
    #[command(visible_alias = "cluster")]
    Clusters(Show<clusters::Filter>),
    /// The hosts of the clusters, with their health
    #[command(visible_alias = "endpoint")]
    Endpoints(Show<endpoints::Filter>),
    /// The certificates in use, without their keys
    #[command(visible_alias = "secret")]
    Secrets(Show<secrets::Filter>),
}

/// Flags of each.
#[derive(Debug, Args)]
struct Show<F: Args> {
    #[command(flatten)]
    proxy: ProxyOptions,
    /// Read a file with the answer of a proxy's /config_dump?include_eds instead of asking a proxy
    #[arg(long, value_name = "FILE", conflicts_with_all = ["proxy", "proxy_admin", "namespace"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: F,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Where the configuration comes from.
enum Source {
    Proxy(Target),
    File(Value),
}

impl<F: Args> Show<F> {
    async fn source(&self) -> anyhow::Result<Source> {
        let Some(file) = &self.file else {
            return Ok(Source::Proxy(self.proxy.target(&self.cluster).await?));
        };
        let shown = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("{shown}"))?;
        Ok(Source::File(serde_json::from_str(&text).with_context(|| format!("{shown}: is no JSON"))?))
    }

    /// Prints the resources of a kind that `is_wanted`: as rows that `add` makes, or as they are.
    async fn resources(
        &self,
        kind: Kind,
        headings: &[&str],
        is_wanted: impl Fn(&Entry<'_>) -> bool,
        add: impl Fn(&Entry<'_>, &mut Table),
    ) -> anyhow::Result<()> {
        let dump = self.source().await?.dump().await?;
        let mut found = entries(&dump, kind);
        found.retain(is_wanted);
        put(&match self.output.format {
            Format::Table => {
                let mut table = Table::new(headings);
                found.iter().for_each(|entry| add(entry, &mut table));
                table.text()
            }
            format => value_text(&found.iter().map(|entry| entry.resource.clone()).collect(), format),
        })
    }
}

impl Source {
    async fn dump(&self) -> anyhow::Result<Value> {
        match self {
            Self::Proxy(target) => target.json("/config_dump?include_eds").await,
            Self::File(dump) => Ok(dump.clone()),
        }
    }
}

/// Prints what was asked for.
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    match options.what {
        What::Listeners(show) => listeners::show(&show).await,
        What::Routes(show) => routes::show(&show).await,
        What::Clusters(show) => clusters::show(&show).await,
        What::Endpoints(show) => endpoints::show(&show).await,
        What::Secrets(show) => secrets::show(&show).await,
    }
    .map(|()| true)
}

/// `filter_metadata.istio.config`, as `KIND NAMESPACE/NAME`; empty when nobody is named.
fn made_by(resource: &Value) -> String {
    let path = crate::output::text(resource, "/metadata/filter_metadata/istio/config");
    let parts: Vec<&str> = path.split('#').next().unwrap_or_default().split('/').collect();
    match parts.as_slice() {
        ["", "apis", _, _, "namespaces", namespace, kind, name] => {
            let kind = match *kind {
                "destination-rule" => "DestinationRule",
                "grpc-route" => "GRPCRoute",
                "http-route" => "HTTPRoute",
                "service-entry" => "ServiceEntry",
                "traffic-policy" => "TrafficPolicy",
                "virtual-service" => "VirtualService",
                other => other,
            };
            format!("{kind} {namespace}/{name}")
        }
        _ => String::new(),
    }
}

/// Whether a filter is not given, or is met.
fn is<T: PartialEq>(filter: &Option<T>, value: &T) -> bool {
    filter.as_ref().is_none_or(|wanted| wanted == value)
}

/// Whether a filter is not given, or is a part of the text.
fn is_in(filter: &Option<String>, text: &str) -> bool {
    filter.as_ref().is_none_or(|wanted| text.contains(wanted.as_str()))
}

#[cfg(test)]
mod tests;
