//! A very small OpenAPI document: just enough to tell clients that the server checks fields itself.
//!
//! `kubectl` and Helm look for the parameter `fieldValidation` of a kind's PATCH; where they find it they leave the
//! checks to the server, and ask for no more of the document.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::http::respond::{Answer, no_such_page};

/// Answers `/openapi/v3` and what is below it.
pub(crate) fn answer(cluster: &Cluster, rest: &[&str]) -> Answer {
    let json = |value| Answer::Json { code: 200, value };
    match rest {
        ["v3"] => json(index(cluster)),
        ["v3", "api", version] => json(document(cluster, "", version)),
        ["v3", "apis", group, version] => json(document(cluster, group, version)),
        _ => no_such_page(),
    }
}

fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(cluster: &Cluster) -> Value {
    let mut paths = json!({});
    cluster.kinds(|kinds| {
        for resource in kinds.iter() {
            let path = group_path(&resource.group, &resource.version);
            paths[&path] = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
        }
    });
    json!({"paths": paths})
}

fn document(cluster: &Cluster, group: &str, version: &str) -> Value {
    let mut paths = json!({});
    cluster.kinds(|kinds| {
        let resources =
            kinds.iter().filter(|one| one.group == group && one.version == version && !one.review);
        for resource in resources {
            let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
            let path = format!("/{}{place}/{}/{{name}}", group_path(group, version), resource.plural);
            let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"]
                .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
            paths[&path] = json!({"patch": {
                "parameters": parameters,
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind":
                    {"group": resource.group, "version": resource.version, "kind": resource.kind},
            }});
        }
    });
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths})
}
