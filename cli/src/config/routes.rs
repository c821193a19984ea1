//! Route configurations: a row for each route of each virtual host.

use clap::Args;
use serde_json::Value;

use super::dump::{Entry, Kind};
use super::{Show, is_in, made_by};
use crate::output::{Table, list, some, text};

/// Which routes.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only route configurations whose name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only route configurations with a virtual host for a domain that has this in it; a table shows only these virtual hosts
    #[arg(long, value_name = "TEXT")]
    domain: Option<String>,
}

const HEADINGS: [&str; 7] = ["NAME", "VIRTUAL HOST", "DOMAINS", "MATCH", "DESTINATION", "MADE BY", "STATE"];

pub(super) async fn show(show: &Show<Filter>) -> anyhow::Result<()> {
    let filter = &show.filter;
    let has_domain = |host: &Value| domains(host).any(|domain| is_in(&filter.domain, domain));
    let is_wanted = |entry: &Entry<'_>| {
        let mut hosts = list(entry.resource, "/virtual_hosts").iter();
        is_in(&filter.name, entry.name) && (filter.domain.is_none() || hosts.any(has_domain))
    };
    show.resources(Kind::Routes, &HEADINGS, is_wanted, |entry, table| rows(entry, &has_domain, table)).await
}

pub(super) fn rows(entry: &Entry<'_>, is_wanted: &dyn Fn(&Value) -> bool, table: &mut Table) {
    for host in list(entry.resource, "/virtual_hosts").iter().filter(|host| is_wanted(host)) {
        for route in list(host, "/routes") {
            table.row([
                entry.name.to_owned(),
                text(host, "/name").to_owned(),
                some(domains(host), 1),
                matched(route.get("match").unwrap_or(&Value::Null)),
                destination(route),
                made_by(route),
                entry.state.note().to_owned(),
            ]);
        }
    }
}

fn domains(host: &Value) -> impl Iterator<Item = &str> {
    list(host, "/domains").iter().filter_map(Value::as_str)
}

/// `/a*` by prefix, `=/a` exactly, `~a.*` by expression; then method and headers.
fn matched(wanted: &Value) -> String {
    let path = ["path", "prefix", "path_separated_prefix"].into_iter().find_map(|field| {
        let path = wanted.get(field)?.as_str()?;
        Some(match field {
            "path" => format!("={path}"),
            "prefix" => format!("{path}*"),
            _ => format!("{path}/*"),
        })
    });
    let expression = || match text(wanted, "/safe_regex/regex") {
        "" => "any path".to_owned(),
        expression => format!("~{expression}"),
    };
    let mut parts = vec![path.unwrap_or_else(expression)];
    for header in list(wanted, "/headers") {
        let value = [("exact", "="), ("prefix", "=^"), ("suffix", "=$"), ("contains", "=*")].into_iter();
        let value = value
            .map(|(field, sign)| (text(header, &format!("/string_match/{field}")), sign))
            .chain([(text(header, "/string_match/safe_regex/regex"), "~")])
            .find(|(value, _)| !value.is_empty());
        let (name, inverted) = (text(header, "/name"), header.get("invert_match") == Some(&true.into()));
        let not = if inverted { "not " } else { "" };
        parts.push(match (name, value) {
            (":method", Some((method, _))) => format!("{not}{method}"),
            (name, Some((value, sign))) => format!("{not}{name}{sign}{value}"),
            (name, None) => format!("{not}{name}"),
        });
    }
    parts.join(" ")
}

fn destination(route: &Value) -> String {
    let cluster = text(route, "/route/cluster");
    if !cluster.is_empty() {
        return cluster.to_owned();
    }
    let shares = list(route, "/route/weighted_clusters/clusters");
    if !shares.is_empty() {
        let shares = shares.iter().map(|share| {
            let weight = share.get("weight").and_then(Value::as_u64).unwrap_or_default();
            format!("{weight}: {}", text(share, "/name"))
        });
        let shares: Vec<String> = shares.collect();
        return some(shares.iter().map(String::as_str), 3);
    }
    let number = |pointer: &str| route.pointer(pointer).map(Value::to_string);
    if let Some(status) = number("/direct_response/status") {
        return format!("answer {status}");
    }
    if let Some(redirect) = route.get("redirect") {
        let host = text(redirect, "/host_redirect");
        return format!("redirect {host}").trim_end().to_owned();
    }
    "other".to_owned()
}
