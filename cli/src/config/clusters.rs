//! Clusters: Istio's names taken apart.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::dump::{Entry, Kind};
use super::{Show, is, is_in, made_by};
use crate::output::{Table, text};

/// Which clusters.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of Services whose full name has this in it, or whose own name has
    #[arg(long, value_name = "TEXT")]
    fqdn: Option<String>,
    /// Only those of this port
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Only those of this subset
    #[arg(long, value_name = "SUBSET")]
    subset: Option<String>,
    /// Only those of this direction
    #[arg(long, value_enum, value_name = "DIRECTION")]
    direction: Option<Direction>,
}

/// Whose connections a cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// Of other workloads to this one
    Inbound,
    /// Of this workload to others
    Outbound,
}

const HEADINGS: [&str; 7] = ["SERVICE", "PORT", "SUBSET", "DIRECTION", "TYPE", "POLICY", "STATE"];

pub(super) async fn show(show: &Show<Filter>) -> anyhow::Result<()> {
    let filter = &show.filter;
    let is_wanted = |entry: &Entry<'_>| {
        let Name { service, port, subset, direction } = Name::of(entry.name);
        is_in(&filter.fqdn, service)
            && is(&filter.port.as_deref(), &port)
            && is(&filter.subset.as_deref(), &subset)
            && (filter.direction.is_none() || filter.direction == direction)
    };
    show.resources(Kind::Clusters, &HEADINGS, is_wanted, rows).await
}

pub(super) fn rows(entry: &Entry<'_>, table: &mut Table) {
    let Name { service, port, subset, direction } = Name::of(entry.name);
    let direction = match direction {
        Some(Direction::Inbound) => "inbound",
        Some(Direction::Outbound) => "outbound",
        None => "",
    };
    table.row([
        service.to_owned(),
        port.to_owned(),
        subset.to_owned(),
        direction.to_owned(),
        discovery(entry.resource).to_owned(),
        made_by(entry.resource),
        entry.state.note().to_owned(),
    ]);
}

/// `outbound|PORT|SUBSET|FQDN`, or any other name.
#[derive(Debug, PartialEq)]
struct Name<'a> {
    service: &'a str,
    port: &'a str,
    subset: &'a str,
    direction: Option<Direction>,
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        let parts: Vec<&str> = name.splitn(4, '|').collect();
        match parts.as_slice() {
            [direction @ ("inbound" | "outbound"), port, subset, service] => {
                let direction =
                    if *direction == "inbound" { Direction::Inbound } else { Direction::Outbound };
                Self { service, port, subset, direction: Some(direction) }
            }
            _ => Self { service: name, port: "", subset: "", direction: None },
        }
    }
}

/// How its hosts are found. `STATIC` is the default, which a dump leaves out.
fn discovery(cluster: &Value) -> &str {
    let names = [text(cluster, "/type"), text(cluster, "/cluster_type/name"), "STATIC"];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}
