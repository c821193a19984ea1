//! Two dumps, resource by resource.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::json;
use serde_json::{Map, Value};
use similar::TextDiff;

use crate::config::dump::{Kind, State, entries};
use crate::output::{list, printable, text};

/// Lines around a difference.
const CONTEXT: usize = 3;

/// A type that is compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub(super) kind: Kind,
    /// The control plane's name of it.
    pub(super) short: &'static str,
    /// One of it.
    pub(super) title: &'static str,
    /// Many of it.
    pub(super) plural: &'static str,
}

/// All of them, in the order in which they are shown.
pub(super) static TYPES: [Type; 4] = [
    Type { kind: Kind::Clusters, short: "cds", title: "cluster", plural: "clusters" },
    Type { kind: Kind::Endpoints, short: "eds", title: "endpoints of", plural: "endpoints" },
    Type { kind: Kind::Listeners, short: "lds", title: "listener", plural: "listeners" },
    Type { kind: Kind::Routes, short: "rds", title: "route configuration", plural: "route configurations" },
];

/// What comparing came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Same,
    /// With a unified diff of the YAML, from the control plane's to the proxy's.
    Differs(String),
    OnlyControlPlane,
    OnlyProxy,
}

/// One resource.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) of: &'static Type,
    pub(super) name: String,
    pub(crate) outcome: Outcome,
    /// Why the proxy refuses what the control plane has.
    pub(super) refused: Vec<String>,
}

/// Compares the control plane's dump with the proxy's. `known` is the proxy's row of `/proxies`.
pub(crate) fn dumps(wanted: &Value, running: &Value, known: Option<&Value>) -> Vec<Compared> {
    let mut compared = Vec::new();
    for of in &TYPES {
        let (wanted, running) = (newest(wanted, of.kind), newest(running, of.kind));
        let names: BTreeSet<&str> = wanted.keys().chain(running.keys()).copied().collect();
        for name in names {
            let outcome = match (wanted.get(name), running.get(name)) {
                (Some(wanted), Some(running)) => compare(wanted, running),
                (Some(_), None) => Outcome::OnlyControlPlane,
                _ => Outcome::OnlyProxy,
            };
            let refused = known.map(|row| refusals(row, of.short, name)).unwrap_or_default();
            compared.push(Compared { of, name: printable(name), outcome, refused });
        }
    }
    compared
}

/// The newest version of each resource that came from a control plane: what waits is newer than what is in force.
fn newest(dump: &Value, kind: Kind) -> BTreeMap<&str, &Value> {
    let of_control_plane =
        entries(dump, kind).into_iter().filter(|entry| matches!(entry.state, State::Active | State::Warming));
    // In the order of a dump what is warming comes last.
    of_control_plane.map(|entry| (entry.name, entry.resource)).collect()
}

fn compare(wanted: &Value, running: &Value) -> Outcome {
    // The order of fields and of the entries of a map means nothing.
    let (wanted, running) = (sorted(wanted), sorted(running));
    if wanted == running {
        return Outcome::Same;
    }
    let [wanted, running] = [wanted, running].map(|value| {
        let mut text = String::new();
        json::write_yaml(&value, &mut text);
        text
    });
    let diff = TextDiff::from_lines(&wanted, &running);
    let diff = diff.unified_diff().context_radius(CONTEXT).header("control plane", "proxy").to_string();
    Outcome::Differs(diff)
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = fields.into_iter().map(|(name, value)| (name.clone(), sorted(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

fn refusals(known: &Value, of: &str, name: &str) -> Vec<String> {
    let refusals = list(known, &format!("/types/{of}/refusals")).iter();
    let refusals = refusals.filter(|refusal| text(refusal, "/resource") == name);
    refusals
        .map(|refusal| match text(refusal, "/field") {
            "" => printable(text(refusal, "/reason")),
            field => printable(&format!("{field}: {}", text(refusal, "/reason"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dump(clusters: &Value) -> Value {
        json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "static_clusters": [{"cluster": {"name": "bootstrap"}}],
            "dynamic_active_clusters": clusters,
        }]})
    }

    #[test]
    fn each_resource_has_its_outcome() {
        let wanted = dump(&json!([
            {"version_info": "1", "cluster": {"name": "same", "map": {"a": 1, "b": 2}}},
            {"version_info": "1", "cluster": {"name": "other", "type": "EDS", "n": [1, 2]}},
            {"version_info": "1", "cluster": {"name": "missing"}},
        ]));
        let running = dump(&json!([
            {"version_info": "9", "cluster": {"map": {"b": 2, "a": 1}, "name": "same"}},
            {"cluster": {"name": "other", "type": "STATIC", "n": [1, 2]}},
            {"cluster": {"name": "extra"}},
        ]));
        let known = json!({"types": {"cds": {"refusals": [
            {"resource": "missing", "field": "type", "reason": "no"}, {"resource": "x", "field": "", "reason": "y"},
        ]}}});
        let compared = dumps(&wanted, &running, Some(&known));
        let found: Vec<(&str, &Outcome)> =
            compared.iter().map(|resource| (resource.name.as_str(), &resource.outcome)).collect();
        let diff = "--- control plane\n+++ proxy\n@@ -2,4 +2,4 @@\n - 1\n - 2\n name: other\n-type: EDS\n+type: STATIC\n";
        assert_eq!(
            found,
            [
                ("extra", &Outcome::OnlyProxy),
                ("missing", &Outcome::OnlyControlPlane),
                ("other", &Outcome::Differs(diff.to_owned())),
                ("same", &Outcome::Same),
            ]
        );
        assert_eq!(compared[1].refused, ["type: no"]);
    }

    #[test]
    fn what_waits_is_what_the_proxy_was_sent_last() {
        let running = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": [{"cluster": {"name": "a", "v": 1}}],
            "dynamic_warming_clusters": [{"cluster": {"name": "a", "v": 2}}],
        }]});
        let wanted = dump(&json!([{"cluster": {"name": "a", "v": 2}}]));
        assert_eq!(dumps(&wanted, &running, None)[0].outcome, Outcome::Same);
    }
}
