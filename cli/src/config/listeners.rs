//! Listeners: a row for each filter chain.

use clap::Args;
use serde_json::Value;

use super::dump::{Entry, Kind};
use super::{Show, is, is_in};
use crate::output::{Table, list, some, text};

/// Which listeners.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those whose name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only those at this IP address
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Only those at this port
    #[arg(long, value_name = "PORT")]
    port: Option<u64>,
}

const HEADINGS: [&str; 6] = ["NAME", "ADDRESS", "PORT", "MATCH", "DESTINATION", "STATE"];

pub(super) async fn show(show: &Show<Filter>) -> anyhow::Result<()> {
    let filter = &show.filter;
    let is_wanted = |entry: &Entry<'_>| {
        let (address, port) = address(entry.resource);
        is_in(&filter.name, entry.name) && is(&filter.address, &address) && is(&filter.port, &port)
    };
    show.resources(Kind::Listeners, &HEADINGS, is_wanted, rows).await
}

pub(super) fn rows(entry: &Entry<'_>, table: &mut Table) {
    let (address, port) = address(entry.resource);
    let chains =
        list(entry.resource, "/filter_chains").iter().chain(entry.resource.get("default_filter_chain"));
    for chain in chains {
        table.row([
            entry.name.to_owned(),
            address.clone(),
            port.to_string(),
            matched(chain),
            destination(chain),
            entry.state.note().to_owned(),
        ]);
    }
}

fn address(listener: &Value) -> (String, u64) {
    let port = listener.pointer("/address/socket_address/port_value").and_then(Value::as_u64);
    let path = text(listener, "/address/pipe/path");
    let address = if path.is_empty() { text(listener, "/address/socket_address/address") } else { path };
    (address.to_owned(), port.unwrap_or_default())
}

/// What a connection must be like.
fn matched(chain: &Value) -> String {
    let Some(wanted) = chain.get("filter_chain_match") else { return "all".to_owned() };
    let mut parts = Vec::new();
    match text(wanted, "/transport_protocol") {
        "" => {}
        "raw_buffer" => parts.push("plaintext".to_owned()),
        other => parts.push(other.to_owned()),
    }
    let texts = |field: &str| -> Vec<&str> {
        wanted.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    };
    for (title, field) in [("SNI", "server_names"), ("ALPN", "application_protocols")] {
        let names = texts(field);
        if !names.is_empty() {
            parts.push(format!("{title} {}", some(names, 2)));
        }
    }
    let ranges = list(wanted, "/prefix_ranges").iter().map(|range| {
        let length = range.get("prefix_len").and_then(Value::as_u64).unwrap_or_default();
        format!("{}/{length}", text(range, "/address_prefix"))
    });
    let ranges: Vec<String> = ranges.collect();
    if !ranges.is_empty() {
        parts.push(format!("to {}", some(ranges.iter().map(String::as_str), 2)));
    }
    if let Some(port) = wanted.get("destination_port") {
        parts.push(format!("port {port}"));
    }
    match text(wanted, "/source_type") {
        "" => {}
        "SAME_IP_OR_LOOPBACK" => parts.push("from this workload".to_owned()),
        other => parts.push(format!("from {}", other.to_lowercase())),
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join("; ") }
}

/// What happens to a connection: the last filter says it.
fn destination(chain: &Value) -> String {
    let Some(filter) = list(chain, "/filters").last() else { return "none".to_owned() };
    let config = filter.get("typed_config").unwrap_or(&Value::Null);
    let routes = text(config, "/rds/route_config_name");
    let cluster = text(config, "/cluster");
    let weighted = list(config, "/weighted_clusters/clusters");
    if !routes.is_empty() {
        return format!("routes {routes}");
    }
    if !cluster.is_empty() {
        return format!("cluster {cluster}");
    }
    if !weighted.is_empty() {
        return format!("clusters {}", some(weighted.iter().map(|share| text(share, "/name")), 2));
    }
    match config.get("route_config") {
        Some(routes) => {
            let mut clusters = Vec::new();
            clusters_in(routes, &mut clusters);
            clusters.sort_unstable();
            clusters.dedup();
            format!("own routes to {}", some(clusters, 2))
        }
        None => text(filter, "/name").to_owned(),
    }
}

/// The clusters that routes name.
fn clusters_in<'a>(routes: &'a Value, found: &mut Vec<&'a str>) {
    for host in list(routes, "/virtual_hosts") {
        for route in list(host, "/routes") {
            let cluster = text(route, "/route/cluster");
            if !cluster.is_empty() {
                found.push(cluster);
            }
            let shares = list(route, "/route/weighted_clusters/clusters");
            found.extend(shares.iter().map(|share| text(share, "/name")));
        }
    }
}
