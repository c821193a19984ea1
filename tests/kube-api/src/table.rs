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
    /// A JSON path of a custom resource.
    JsonPath(String),
}

/// A table of objects; the column definitions are left out (null) in all but the first event of a watch.
pub(crate) fn table(resource: &Resource, metadata: &Value, objects: &[&Value], with_columns: bool) -> Value {
    let columns = columns(resource);
    let definitions: Value = if with_columns {
        let definition = |column: &Column| {
            json!({"name": column.name, "type": column.kind, "format": column.format,
                   "description": column.description, "priority": 0})
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
        kind: if matches!(cell, Cell::Count(_)) { "integer" } else { "string" }.to_owned(),
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
        "services" => columns.extend([path("Type", "spec.type"), path("Cluster-IP", "spec.clusterIP")]),
        "pods" => columns.extend([path("Status", "status.phase"), path("IP", "status.podIP")]),
        "namespaces" => columns.push(path("Status", "status.phase")),
        "leases" => columns.push(path("Holder", "spec.holderIdentity")),
        _ => {}
    }
    columns.push(column("Age", Cell::Age));
    columns
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
            Cell::JsonPath(path) if path == ".metadata.creationTimestamp" => {
                age(object::meta(object, "creationTimestamp")).into()
            }
            Cell::JsonPath(path) => json_path(object, path),
        }
    }
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
    fn json_paths_of_columns() {
        let object = json!({"spec": {"retries": 2}, "status": {"conditions": [
            {"type": "Ready", "status": "False"}, {"type": "Accepted", "status": "True"}]}});
        assert_eq!(json_path(&object, ".spec.retries"), 2);
        assert_eq!(json_path(&object, ".status.conditions[?(@.type==\"Accepted\")].status"), "True");
        assert_eq!(json_path(&object, ".status.conditions[0].status"), "False");
        assert_eq!(json_path(&object, ".spec.none.x"), Value::Null);
    }
}
