//! `meta.k8s.io/v1 Table`: what command lines print.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::http::respond::metadata_only;
use crate::kinds::Resource;
use crate::object;

/// A column: its definition, and how its cell comes out of an object.
struct Column {
    name: String,
    kind: String,
    format: &'static str,
    description: String,
    cell: Cell,
}

enum Cell {
    Name,
    Age,
    /// A dotted path.
    Path(String),
    /// How many entries a map has.
    Count(&'static str),
    /// `80/TCP,9090/TCP`: the ports of a service.
    Ports,
    /// The addresses of a service's load balancer.
    Addresses,
    /// `app=web`: the selector of a service.
    Selector,
    /// `2/2`: the containers of a Pod that are ready, with its native sidecars, and all of them.
    ReadyContainers,
    /// The phase of a Pod, unless it is being deleted.
    PodStatus,
    /// How often containers of a Pod have been started again.
    Restarts,
    /// `1/1`: the replicas of a Deployment that are ready, and those that it should have.
    ReadyReplicas,
    /// A number of the status that is left out when it is 0.
    Number(&'static str),
    /// A JSON path of a custom resource.
    JsonPath(String),
}

/// A table of objects; the column definitions are left out (null) in all but the first event of a watch.
pub(crate) fn table(resource: &Resource, metadata: &Value, objects: &[&Value], with_columns: bool) -> Value {
    let columns = columns(resource);
    let definitions: Value = if with_columns {
        let definition = |column: &Column| {
            json!({"name": column.name, "type": column.kind, "format": column.format,
                   "description": column.description, "priority": column.priority()})
        };
        columns.iter().map(definition).collect()
    } else {
        Value::Null
    };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|column| column.cell.of(object)).collect();
            json!({"cells": cells, "object": metadata_only(object)})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
           "columnDefinitions": definitions, "rows": rows})
}

fn columns(resource: &Resource) -> Vec<Column> {
    let column = |name: &str, cell: Cell| Column {
        name: name.to_owned(),
        kind: if matches!(cell, Cell::Count(_) | Cell::Number(_)) { "integer" } else { "string" }.to_owned(),
        format: if matches!(cell, Cell::Name) { "name" } else { "" },
        description: format!("{name} of the object"),
        cell,
    };
    let path = |name: &str, path: &str| column(name, Cell::Path(path.to_owned()));
    let mut columns = vec![column("Name", Cell::Name)];
    match &resource.custom {
        Some(definition) if !definition.columns.is_empty() => {
            columns.extend(definition.columns.iter().map(|one| {
                let path = one["jsonPath"].as_str().unwrap_or_default().to_owned();
                Column {
                    name: one["name"].as_str().unwrap_or_default().to_owned(),
                    kind: one["type"].as_str().unwrap_or("string").to_owned(),
                    format: "",
                    description: format!("Custom resource definition column (in JSONPath format): {path}"),
                    cell: Cell::JsonPath(path),
                }
            }));
            return columns;
        }
        _ => {}
    }
    match resource.plural.as_str() {
        "configmaps" => columns.push(column("Data", Cell::Count("data"))),
        "secrets" => columns.extend([path("Type", "type"), column("Data", Cell::Count("data"))]),
        "services" => {
            columns.extend([
                path("Type", "spec.type"),
                path("Cluster-IP", "spec.clusterIP"),
                column("External-IP", Cell::Addresses),
                column("Port(s)", Cell::Ports),
                column("Age", Cell::Age),
                column("Selector", Cell::Selector),
            ]);
            return columns;
        }
        "pods" => {
            columns.extend([
                column("Ready", Cell::ReadyContainers),
                column("Status", Cell::PodStatus),
                column("Restarts", Cell::Restarts),
            ]);
        }
        "deployments" => columns.extend([
            column("Ready", Cell::ReadyReplicas),
            column("Up-to-date", Cell::Number("status.updatedReplicas")),
            column("Available", Cell::Number("status.availableReplicas")),
        ]),
        "namespaces" => columns.push(path("Status", "status.phase")),
        "leases" => columns.push(path("Holder", "spec.holderIdentity")),
        _ => {}
    }
    columns.push(column("Age", Cell::Age));
    columns
}

impl Column {
    /// 1: only in wide output.
    fn priority(&self) -> u8 {
        u8::from(matches!(self.cell, Cell::Selector))
    }
}

impl Cell {
    fn of(&self, object: &Value) -> Value {
        let at = |path: &str| {
            path.split('.').filter(|key| !key.is_empty()).fold(object, |value, key| &value[key]).clone()
        };
        match self {
            Cell::Name => object::name(object).into(),
            Cell::Age => age(object::meta(object, "creationTimestamp")).into(),
            Cell::Path(path) => match at(path) {
                Value::Null => "<none>".into(),
                value => value,
            },
            Cell::Count(path) => at(path).as_object().map_or(0, serde_json::Map::len).into(),
            Cell::Ports => joined(at("spec.ports").as_array().into_iter().flatten().map(|port| {
                let protocol = port["protocol"].as_str().unwrap_or("TCP");
                match port["nodePort"].as_u64() {
                    Some(node_port) => format!("{}:{node_port}/{protocol}", port["port"]),
                    None => format!("{}/{protocol}", port["port"]),
                }
            })),
            Cell::Addresses => {
                let ingress = at("status.loadBalancer.ingress");
                joined(
                    ingress
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str()).map(str::to_owned)),
                )
            }
            Cell::Selector => {
                let selector = at("spec.selector");
                let pair =
                    |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
                joined(selector.as_object().into_iter().flatten().map(pair))
            }
            Cell::ReadyContainers => {
                let containers = containers(object);
                let ready = containers.iter().filter(|status| status["ready"] == true).count();
                format!("{ready}/{}", containers.len()).into()
            }
            Cell::PodStatus if object::terminating(object) => "Terminating".into(),
            Cell::PodStatus => at("status.phase"),
            Cell::Restarts => {
                let restarts =
                    containers(object).into_iter().filter_map(|status| status["restartCount"].as_u64());
                restarts.sum::<u64>().to_string().into()
            }
            Cell::ReadyReplicas => {
                let number = |path: &str| at(path).as_u64().unwrap_or_default();
                format!("{}/{}", number("status.readyReplicas"), number("spec.replicas")).into()
            }
            Cell::Number(path) => at(path).as_u64().unwrap_or_default().into(),
            Cell::JsonPath(path) if path == ".metadata.creationTimestamp" => {
                age(object::meta(object, "creationTimestamp")).into()
            }
            Cell::JsonPath(path) => json_path(object, path),
        }
    }
}

/// The statuses, null where there is none yet, of the containers that count as the Pod's: native sidecars do, other init
/// containers do not.
fn containers(pod: &Value) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let sidecars = all(&spec["initContainers"]).into_iter().filter(|one| one["restartPolicy"] == "Always");
    let statuses = [all(&status["initContainerStatuses"]), all(&status["containerStatuses"])].concat();
    let status = |container: Value| statuses.iter().find(|one| one["name"] == container["name"]).cloned();
    sidecars.chain(all(&spec["containers"])).map(|container| status(container).unwrap_or_default()).collect()
}

/// A list with commas; `<none>` when it is empty.
fn joined(parts: impl Iterator<Item = String>) -> Value {
    let text = parts.collect::<Vec<_>>().join(",");
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// The JSON paths that columns use: fields, indexes and `[?(@.key=="value")]`.
fn json_path(object: &Value, path: &str) -> Value {
    let mut value = object;
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let Some((condition, after)) = filter.split_once(")]") else { return Value::Null };
            let Some((key, wanted)) = condition.split_once("==") else { return Value::Null };
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            let found = value.as_array().into_iter().flatten().find(|item| item[key.trim()] == wanted);
            let Some(found) = found else { return Value::Null };
            (value, rest) = (found, after.trim_start_matches('.'));
        } else if let Some(index) = rest.strip_prefix('[') {
            let Some((index, after)) = index.split_once(']') else { return Value::Null };
            let Ok(index) = index.parse::<usize>() else { return Value::Null };
            (value, rest) = (&value[index], after.trim_start_matches('.'));
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            (value, rest) = (&value[&rest[..end]], rest[end..].trim_start_matches('.'));
        }
    }
    value.clone()
}

/// The time since then, as `kubectl` prints it.
fn age(since: &str) -> String {
    let Ok(since) = OffsetDateTime::parse(since, &Rfc3339) else { return "<unknown>".to_owned() };
    let seconds = (OffsetDateTime::now_utc() - since).whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_counts_and_an_init_container_does_not() {
        let pod = json!({
            "spec": {"initContainers": [{"name": "init"}, {"name": "proxy", "restartPolicy": "Always"}],
                "containers": [{"name": "app"}]},
            "status": {"phase": "Running", "initContainerStatuses": [
                {"name": "init", "ready": true, "restartCount": 5}, {"name": "proxy", "ready": true, "restartCount": 2}]},
        });
        assert_eq!(Cell::ReadyContainers.of(&pod), "1/2");
        assert_eq!(Cell::Restarts.of(&pod), "2");
        assert_eq!(Cell::PodStatus.of(&pod), "Running");
    }

    #[test]
    fn json_paths_of_columns() {
        let object = json!({"spec": {"retries": 2}, "status": {"conditions": [
            {"type": "Ready", "status": "False"}, {"type": "Accepted", "status": "True"}]}});
        assert_eq!(json_path(&object, ".spec.retries"), 2);
        assert_eq!(json_path(&object, ".status.conditions[?(@.type==\"Accepted\")].status"), "True");
        assert_eq!(json_path(&object, ".status.conditions[0].status"), "False");
        assert_eq!(json_path(&object, ".spec.none.x"), Value::Null);
    }
}
