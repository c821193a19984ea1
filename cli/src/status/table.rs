//! The table of proxies, and below it what is refused.

use std::fmt::Write as _;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{State, types};
use crate::output::{Table, age, list, printable, text};

const HEADINGS: [&str; 8] = ["NAME", "PROXY", "CDS", "EDS", "LDS", "RDS", "SDS", "CONNECTED"];

/// The proxies; with the control plane of each, when there are several.
pub(crate) fn text_of(proxies: &[Value], several: bool) -> String {
    if proxies.is_empty() {
        return "no proxy is connected\n".to_owned();
    }
    rows(proxies, several, OffsetDateTime::now_utc()).text() + &refusals(proxies)
}

pub(super) fn rows(proxies: &[Value], several: bool, now: OffsetDateTime) -> Table {
    let headings: Vec<&str> = HEADINGS.into_iter().chain(several.then_some("CONTROL PLANE")).collect();
    let mut table = Table::new(&headings);
    for proxy in proxies {
        let cell = |of: &str| {
            let status = types(proxy).find(|(name, _)| *name == of);
            status.map_or_else(|| State::NotSent.shown().to_owned(), |(_, status)| cell(status))
        };
        let since = OffsetDateTime::parse(text(proxy, "/since"), &Rfc3339).ok();
        let connected = since.and_then(|since| u64::try_from((now - since).whole_milliseconds()).ok());
        let cells = [
            text(proxy, "/name").to_owned(),
            text(proxy, "/agent").to_owned(),
            cell("cds"),
            cell("eds"),
            cell("lds"),
            cell("rds"),
            cell("sds"),
            connected.map(age).unwrap_or_default(),
        ];
        match several {
            false => table.row(cells),
            true => {
                let [a, b, c, d, e, f, g, h] = cells;
                table.row([a, b, c, d, e, f, g, h, text(proxy, "/control_plane/name").to_owned()]);
            }
        }
    }
    table
}

/// The state, and for how long it is so: since the last answer, or since what is not answered was sent.
fn cell(status: &Value) -> String {
    let state = State::of(status);
    let (count, since) = match state {
        State::Synced => (String::new(), "/last_ack_age_ms"),
        State::Stale => (String::new(), "/last_sent_age_ms"),
        State::Refused => (format!(" {}", list(status, "/rejected").len()), "/last_nack/age_ms"),
        State::NotSent => return state.shown().to_owned(),
    };
    match status.pointer(since).and_then(Value::as_u64) {
        Some(since) => format!("{}{count} ({})", state.shown(), age(since)),
        None => format!("{}{count}", state.shown()),
    }
}

/// Each refused resource with its reason and the object that it was made of.
pub(super) fn refusals(proxies: &[Value]) -> String {
    let mut text_of_all = String::new();
    for proxy in proxies {
        for (of, status) in types(proxy) {
            for refusal in list(status, "/refusals") {
                let parts =
                    ["/resource", "/field", "/reason"].map(|pointer| printable(text(refusal, pointer)));
                let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                let (name, of) = (text(proxy, "/name"), of.to_uppercase());
                let _ = writeln!(text_of_all, "  {name} {of} {}", parts.join(": "));
                for object in list(refusal, "/objects") {
                    let _ = writeln!(text_of_all, "    from {}", printable(&place(object)));
                }
            }
        }
    }
    if text_of_all.is_empty() { text_of_all } else { format!("\nRefused:\n{text_of_all}") }
}

/// `KIND NAMESPACE/NAME: FIELD (FILE:LINE)`, without what is not known.
fn place(finding: &Value) -> String {
    let object = ["/object/kind", "/object/namespace", "/object/name"].map(|pointer| text(finding, pointer));
    let mut place = format!("{} {}/{}", object[0], object[1], object[2]);
    let field = text(finding, "/field");
    if !field.is_empty() {
        let _ = write!(place, ": {field}");
    }
    let file = text(finding, "/file");
    if let (false, Some(line)) = (file.is_empty(), finding["line"].as_u64()) {
        let _ = write!(place, " ({file}:{line})");
    }
    place
}
