//! What the server tells about itself: version, health, and the discovery documents in their old and new form.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::http::respond::{Answer, no_such_page};
use crate::kinds::Resource;
use crate::openapi;

/// Answers a path that is no object.
pub(crate) fn answer(cluster: &Cluster, segments: &[String], aggregated: bool) -> Answer {
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let json = |value| Answer::Json { code: 200, value };
    let groups = groups(cluster);
    match words.as_slice() {
        ["healthz" | "readyz" | "livez", ..] => Answer::Text { code: 200, text: "ok".into() },
        ["version"] => json(version()),
        ["api"] if aggregated => Answer::Discovery(group_list(groups.iter().filter(|(g, _)| g.is_empty()))),
        ["apis"] if aggregated => Answer::Discovery(group_list(groups.iter().filter(|(g, _)| !g.is_empty()))),
        ["api"] => json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = groups
                .iter()
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, of)| group(name, of))
                .collect();
            json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", version] => resource_list(&groups, "", version),
        ["apis", name] => match groups.get(*name) {
            Some(of) => {
                let mut one = json!({"kind": "APIGroup", "apiVersion": "v1"});
                for (key, value) in group(name, of).as_object().into_iter().flatten() {
                    one[key] = value.clone();
                }
                json(one)
            }
            None => no_such_page(),
        },
        ["apis", name, version] => resource_list(&groups, name, version),
        ["openapi", rest @ ..] => openapi::answer(cluster, rest),
        _ => no_such_page(),
    }
}

type Groups = BTreeMap<String, Vec<Arc<Resource>>>;

fn groups(cluster: &Cluster) -> Groups {
    let mut groups = Groups::new();
    cluster.kinds(|kinds| {
        for resource in kinds.iter() {
            groups.entry(resource.group.clone()).or_default().push(resource.clone());
        }
    });
    groups
}

fn version() -> Value {
    json!({"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
           "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": "v1.36.0",
           "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
           "compiler": "", "platform": "linux/amd64"})
}

/// The versions of a group, the preferred one first.
fn versions(resources: &[Arc<Resource>]) -> Vec<&str> {
    let mut versions: Vec<&str> = resources.iter().map(|resource| resource.version.as_str()).collect();
    versions.sort_by_key(|version| (stability(version), version.to_string()));
    versions.dedup();
    versions
}

/// Stable before beta before alpha; within one, the higher number first.
fn stability(version: &str) -> (u8, i64) {
    let number = |text: &str| {
        text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<i64>().unwrap_or(0)
    };
    let major = -number(version.trim_start_matches('v'));
    match (version.contains("alpha"), version.contains("beta")) {
        (true, _) => (2, major),
        (_, true) => (1, major),
        _ => (0, major),
    }
}

fn group(name: &str, resources: &[Arc<Resource>]) -> Value {
    let versions: Vec<Value> = versions(resources)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn resource_list(groups: &Groups, group: &str, version: &str) -> Answer {
    let of_group = groups.get(group).map(Vec::as_slice).unwrap_or_default();
    let resources: Vec<&Arc<Resource>> = of_group.iter().filter(|one| one.version == version).collect();
    if resources.is_empty() {
        return no_such_page();
    }
    let mut entries = Vec::new();
    for resource in resources {
        let mut entry = json!({"name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs()});
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.clone().into();
        }
        if !resource.categories.is_empty() {
            entry["categories"] = resource.categories.clone().into();
        }
        entries.push(entry);
        for sub in resource.subresources() {
            let mut entry = json!({"name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced});
            if sub.group != resource.group {
                entry["group"] = sub.group.into();
                entry["version"] = sub.version.into();
            }
            entry["kind"] = sub.kind.into();
            entry["verbs"] = json!(sub.verbs);
            entries.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut value = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        value["apiVersion"] = "v1".into();
    }
    value["groupVersion"] = group_version.into();
    value["resources"] = entries.into();
    Answer::Json { code: 200, value }
}

fn group_list<'a>(groups: impl Iterator<Item = (&'a String, &'a Vec<Arc<Resource>>)>) -> Value {
    let items: Vec<Value> = groups
        .map(|(name, resources)| {
            let versions: Vec<Value> = versions(resources)
                .iter()
                .map(|version| {
                    let of_version = resources.iter().filter(|one| one.version == *version);
                    let entries: Vec<Value> = of_version.map(|one| aggregated_entry(one)).collect();
                    json!({"version": version, "resources": entries, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_entry(resource: &Resource) -> Value {
    // Kubernetes' own kinds leave group and version of the kind empty when they are those of the document.
    let (group, version) = match resource.custom {
        Some(_) => (resource.group.as_str(), resource.version.as_str()),
        None => ("", ""),
    };
    let mut entry = json!({"resource": resource.plural,
        "responseKind": {"group": group, "version": version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs()});
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.clone().into();
    }
    let subresources: Vec<Value> = resource
        .subresources()
        .into_iter()
        .map(|sub| {
            let own = sub.group == resource.group && resource.custom.is_none();
            let (group, version) = if own { (String::new(), String::new()) } else { (sub.group, sub.version) };
            json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind},
                   "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
