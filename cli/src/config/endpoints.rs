//! Endpoints: the hosts of each cluster. A proxy tells their health and what was sent to them; a dump only what it was told.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::dump::{Kind, entries};
use super::{Show, Source, is, is_in};
use crate::output::{Format, Table, list, put, text, value_text};

/// Which endpoints.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of clusters whose name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only those at this IP address
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Only those at this port
    #[arg(long, value_name = "PORT")]
    port: Option<u64>,
    /// Only those that are so
    #[arg(long, value_enum, value_name = "STATUS")]
    status: Option<Status>,
}

/// Whether an endpoint gets traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// It does
    Healthy,
    /// The control plane says that it is not ready, or it failed too often
    Unhealthy,
}

/// One host of one cluster.
#[derive(Debug)]
pub(super) struct Endpoint<'a> {
    cluster: &'a str,
    address: String,
    port: u64,
    status: Status,
    ejected: bool,
    /// Requests, and failed ones; a dump does not tell.
    requests: Option<[&'a str; 2]>,
    raw: &'a Value,
}

const HEADINGS: [&str; 6] = ["ENDPOINT", "STATUS", "OUTLIER CHECK", "REQUESTS", "ERRORS", "CLUSTER"];

pub(super) async fn show(show: &Show<Filter>) -> anyhow::Result<()> {
    let filter = &show.filter;
    let page = match show.source().await? {
        Source::Proxy(target) => target.json("/clusters?format=json").await?,
        Source::File(dump) => dump,
    };
    let mut found = match page.get("cluster_statuses") {
        Some(_) => of_clusters(&page),
        None => of_dump(&page),
    };
    found.retain(|endpoint| {
        is_in(&filter.name, endpoint.cluster)
            && is(&filter.address, &endpoint.address)
            && is(&filter.port, &endpoint.port)
            && is(&filter.status, &endpoint.status)
    });
    put(&match show.output.format {
        Format::Table => table(&found).text(),
        format => {
            let shown = found.iter().map(|endpoint| {
                let mut shown = serde_json::json!({ "cluster": endpoint.cluster });
                if let (Some(shown), Some(fields)) = (shown.as_object_mut(), endpoint.raw.as_object()) {
                    shown.extend(fields.clone());
                }
                shown
            });
            value_text(&shown.collect(), format)
        }
    })
}

pub(super) fn table(endpoints: &[Endpoint<'_>]) -> Table {
    let mut table = Table::new(&HEADINGS);
    for endpoint in endpoints {
        let address = match (endpoint.address.contains(':'), endpoint.port) {
            (_, 0) => endpoint.address.clone(),
            (true, port) => format!("[{}]:{port}", endpoint.address),
            (false, port) => format!("{}:{port}", endpoint.address),
        };
        let [requests, errors] = endpoint.requests.unwrap_or(["-", "-"]);
        let status = if endpoint.status == Status::Healthy { "HEALTHY" } else { "UNHEALTHY" };
        table.row([
            address,
            status.to_owned(),
            if endpoint.ejected { "EJECTED" } else { "OK" }.to_owned(),
            requests.to_owned(),
            errors.to_owned(),
            endpoint.cluster.to_owned(),
        ]);
    }
    table
}

/// Of `/clusters?format=json` (`envoy.admin.v3.Clusters`).
pub(super) fn of_clusters(page: &Value) -> Vec<Endpoint<'_>> {
    let clusters = list(page, "/cluster_statuses").iter();
    let hosts = clusters.flat_map(|cluster| {
        list(cluster, "/host_statuses").iter().map(move |host| (text(cluster, "/name"), host))
    });
    hosts
        .map(|(cluster, host)| {
            let stat = |name: &str| {
                let stat = list(host, "/stats").iter().find(|stat| text(stat, "/name") == name);
                // Zero is left out.
                stat.map(|stat| text(stat, "/value")).filter(|value| !value.is_empty()).unwrap_or("0")
            };
            let failed = |check: &str| host["health_status"].get(check) == Some(&true.into());
            let ejected = failed("failed_outlier_check");
            let health = text(host, "/health_status/eds_health_status");
            let is_healthy = matches!(health, "" | "HEALTHY" | "UNKNOWN")
                && !ejected
                && !failed("failed_active_health_check");
            endpoint(
                cluster,
                &host["address"],
                is_healthy,
                ejected,
                host,
                Some([stat("rq_total"), stat("rq_error")]),
            )
        })
        .collect()
}

/// Of a dump (`envoy.admin.v3.EndpointsConfigDump`).
pub(super) fn of_dump(dump: &Value) -> Vec<Endpoint<'_>> {
    let mut found = Vec::new();
    for entry in entries(dump, Kind::Endpoints) {
        for locality in list(entry.resource, "/endpoints") {
            for host in list(locality, "/lb_endpoints") {
                let health = text(host, "/health_status");
                let is_healthy = matches!(health, "" | "HEALTHY" | "UNKNOWN");
                let address = &host["endpoint"]["address"];
                found.push(endpoint(entry.name, address, is_healthy, false, host, None));
            }
        }
    }
    found
}

fn endpoint<'a>(
    cluster: &'a str,
    address: &Value,
    is_healthy: bool,
    ejected: bool,
    raw: &'a Value,
    requests: Option<[&'a str; 2]>,
) -> Endpoint<'a> {
    let path = text(address, "/pipe/path");
    let ip = if path.is_empty() { text(address, "/socket_address/address") } else { path };
    let port = address.pointer("/socket_address/port_value").and_then(Value::as_u64).unwrap_or_default();
    let status = if is_healthy { Status::Healthy } else { Status::Unhealthy };
    Endpoint { cluster, address: ip.to_owned(), port, status, ejected, requests, raw }
}
