//! Secrets: the public facts of the certificates in use. A file tells only which there are.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::dump::{Entry, Kind};
use super::{Show, Source, is_in};
use crate::output::{Format, Table, list, put, some, text, value_text};

/// Which secrets.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those whose name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

const HEADINGS: [&str; 7] = ["NAME", "TYPE", "VALID", "NOT AFTER", "NOT BEFORE", "SERIAL NUMBER", "SUBJECT"];

pub(super) async fn show(show: &Show<Filter>) -> anyhow::Result<()> {
    let name = &show.filter.name;
    let Source::Proxy(target) = show.source().await? else {
        let is_wanted = |entry: &Entry<'_>| is_in(name, entry.name);
        return show.resources(Kind::Secrets, &["NAME", "VERSION", "STATE"], is_wanted, rows).await;
    };
    let page = target.json("/certs").await?;
    let certificates: Vec<Value> = list(&page, "/certificates")
        .iter()
        .filter(|entry| certificates(entry).any(|(_, certificate)| is_in(name, text(certificate, "/path"))))
        .cloned()
        .collect();
    put(&match show.output.format {
        Format::Table => table(&certificates, name, OffsetDateTime::now_utc()).text(),
        format => value_text(&certificates.into(), format),
    })
}

fn rows(entry: &Entry<'_>, table: &mut Table) {
    table.row([entry.name.to_owned(), entry.version.to_owned(), entry.state.note().to_owned()]);
}

/// Those of an entry of `/certs` (`envoy.admin.v3.Certificate`).
fn certificates(entry: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let chain = list(entry, "/cert_chain").iter().map(|certificate| ("certificate", certificate));
    chain.chain(list(entry, "/ca_cert").iter().map(|certificate| ("CA", certificate)))
}

pub(super) fn table(entries: &[Value], name: &Option<String>, now: OffsetDateTime) -> Table {
    let mut table = Table::new(&HEADINGS);
    for (kind, certificate) in entries.iter().flat_map(certificates) {
        let path = text(certificate, "/path");
        if !is_in(name, path) {
            continue;
        }
        let time = |pointer: &str| OffsetDateTime::parse(text(certificate, pointer), &Rfc3339).ok();
        let validity = match (time("/valid_from"), time("/expiration_time")) {
            (Some(from), _) if now < from => "not yet",
            (_, Some(until)) if now > until => "expired",
            (Some(_), Some(_)) => "yes",
            _ => "unknown",
        };
        let names = list(certificate, "/subject_alt_names").iter();
        let names = names.filter_map(|name| name.as_object()?.values().next()?.as_str());
        table.row([
            path.to_owned(),
            kind.to_owned(),
            validity.to_owned(),
            text(certificate, "/expiration_time").to_owned(),
            text(certificate, "/valid_from").to_owned(),
            text(certificate, "/serial_number").to_owned(),
            some(names, 1),
        ]);
    }
    table
}
