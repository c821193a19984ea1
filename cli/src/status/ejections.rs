//! The endpoints that proxies have taken out, as each of them tells it: `outrigger status --ejections`.
//!
//! The control plane does not know: a proxy decides that by itself. So each proxy is asked; one that cannot be asked is told, and the
//! others are shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::name_of;
use crate::output::{list, printable, text};
use crate::reach::Target;

/// What the proxies say.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    /// Of all of them.
    pub(super) found: Vec<Value>,
    /// Why some could not be asked.
    pub(super) silent: Vec<String>,
}

impl Ejections {
    /// Asks them, one after the other.
    pub(super) async fn ask(targets: &[Target]) -> Self {
        let mut all = Self::default();
        for target in targets {
            match of(target).await {
                Ok(found) => all.found.extend(found),
                Err(error) => all.silent.push(format!("{error:#}")),
            }
        }
        all
    }

    /// A line for each, behind what else is printed.
    pub(super) fn text(&self) -> String {
        let mut shown = String::new();
        for ejection in &self.found {
            let [proxy, host, cluster, reason, until] =
                ["/proxy", "/address", "/cluster", "/reason", "/until"]
                    .map(|part| printable(text(ejection, part)));
            let _ = write!(shown, "  {proxy} {host} {cluster}: {reason}");
            let _ = if until.is_empty() { writeln!(shown) } else { writeln!(shown, ", until {until}") };
        }
        let mut text = match shown.is_empty() {
            true => "\nEjected: none\n".to_owned(),
            false => format!("\nEjected:\n{shown}"),
        };
        for silent in &self.silent {
            let _ = writeln!(text, "  not asked: {}", printable(silent));
        }
        text
    }
}

async fn of(target: &Target) -> anyhow::Result<Vec<Value>> {
    let page = target.json("/clusters?format=json").await?;
    let info = target.json("/server_info").await?;
    let name = match text(&info, "/node/id") {
        "" => target.name.clone(),
        id => name_of(id).to_owned(),
    };
    Ok(of_page(&name, &page))
}

/// Of `/clusters?format=json`. An Envoy says that a host is out, but not why.
pub(super) fn of_page(proxy: &str, page: &Value) -> Vec<Value> {
    let clusters = list(page, "/cluster_statuses").iter();
    let hosts =
        clusters.flat_map(|cluster| list(cluster, "/host_statuses").iter().map(move |host| (cluster, host)));
    hosts
        .filter(|(_, host)| host.pointer("/health_status/failed_outlier_check") == Some(&true.into()))
        .map(|(cluster, host)| {
            let ip = text(host, "/address/socket_address/address");
            let port = host
                .pointer("/address/socket_address/port_value")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
            let reason = match text(host, "/ejection/reason") {
                "" => "it does not say why",
                reason => reason,
            };
            json!({
                "proxy": proxy,
                "cluster": text(cluster, "/name"),
                "address": address,
                "type": text(host, "/ejection/type"),
                "reason": reason,
                "at": text(host, "/ejection/at"),
                "until": text(host, "/ejection/until"),
            })
        })
        .collect()
}
