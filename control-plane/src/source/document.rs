//! The text of one file -> Kubernetes objects with positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_xds_api::json::{self, Node, Value};

use crate::source::{Object, ObjectKey, Origin, Position, Text, without_nulls};

/// Why a file could not be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    pub(crate) position: Option<Position>,
    pub(crate) reason: String,
}

/// Parses all documents of a file (YAML, of which JSON is a part). Empty documents are skipped; `kind: List` stands for
/// its items.
pub(crate) fn parse(file: &Arc<str>, content: &[u8]) -> Result<Vec<Object>, ParseError> {
    let text = std::str::from_utf8(content).map_err(|error| ParseError {
        position: None,
        reason: format!("is not UTF-8 text (at byte {})", error.valid_up_to()),
    })?;
    let documents = json::parse(text).map_err(|error| ParseError {
        position: Some(Position { line: error.line, column: error.column }),
        reason: error.reason,
    })?;
    let mut objects = Vec::new();
    for document in &documents {
        if document.value == Value::Null {
            continue;
        }
        if document.get("kind").and_then(Node::as_str) == Some("List") {
            let Some(Node { value: Value::Seq(items), .. }) = document.get("items") else {
                return Err(at(document, "a List must have items"));
            };
            for item in items {
                objects.push(object(file, item)?);
            }
            continue;
        }
        objects.push(object(file, document)?);
    }
    Ok(objects)
}

fn object(file: &Arc<str>, document: &Node) -> Result<Object, ParseError> {
    let text = |node: &Node, field: &str, path: &str| match node.get(field) {
        Some(value) => match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => {
                let reason =
                    format!("{path} must be a text that is not empty, not {}", value.value.describe());
                Err(at(value, &reason))
            }
        },
        None => Err(at(node, &format!("a Kubernetes object must have {path}"))),
    };
    let api_version = text(document, "apiVersion", "apiVersion")?;
    let kind = text(document, "kind", "kind")?;
    let Some(metadata) = document.get("metadata") else {
        return Err(at(document, "a Kubernetes object must have metadata.name"));
    };
    let name = text(metadata, "name", "metadata.name")?;
    let namespace = match metadata.get("namespace") {
        Some(_) => text(metadata, "namespace", "metadata.namespace")?,
        None => "default".to_owned(),
    };
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    let mut fields = BTreeMap::new();
    positions(document, String::new(), &mut fields);
    let text =
        Text { file: file.clone(), start: Position { line: document.line, column: document.column }, fields };
    let origin =
        Origin { object: ObjectKey { group, kind, namespace, name }, text: Some(text), generation: 0 };
    Ok(Object {
        api_version,
        origin: Arc::new(origin),
        document: Arc::new(without_nulls(document.to_json())),
    })
}

/// Notes where each field is: a field at its key, an element of a list where it begins.
fn positions(node: &Node, path: String, fields: &mut BTreeMap<String, Position>) {
    match &node.value {
        Value::Map(map) => {
            for entry in map.iter() {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                fields.insert(path.clone(), Position { line: entry.line, column: entry.column });
                positions(&entry.value, path, fields);
            }
        }
        Value::Seq(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let path = format!("{path}[{index}]");
                fields.insert(path.clone(), Position { line: element.line, column: element.column });
                positions(element, path, fields);
            }
        }
        _ => {}
    }
}

fn at(node: &Node, reason: &str) -> ParseError {
    ParseError {
        position: Some(Position { line: node.line, column: node.column }),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn objects_know_file_and_lines() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\n---\n---\n\
                    apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: b, namespace: x}\n\
                    spec:\n  rules:\n  - name: one\n  - name: two\n";
        let objects = parse(&"f.yaml".into(), text.as_bytes()).unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0].key().to_string(), "Service default/a");
        let text = |index: usize| objects[index].origin.text.as_ref().unwrap();
        assert_eq!(text(0).start.line, 3);
        assert_eq!(objects[1].key().to_string(), "HTTPRoute x/b");
        assert_eq!(objects[1].key().group, "gateway.networking.k8s.io");
        assert_eq!(text(1).position_of("spec.rules[1].name"), Position { line: 15, column: 5 });
        assert_eq!(text(1).position_of("spec.rules[1].matches[0].path").line, 15);
    }

    #[test]
    fn null_fields_are_absent() {
        let text =
            "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: }, spec: {containers: [{ports: null}]}}";
        let objects = parse(&"f.yaml".into(), text.as_bytes()).unwrap();
        let expected = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{}]}});
        assert_eq!(*objects[0].document, expected);
    }

    #[test]
    fn a_list_stands_for_its_items() {
        let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]}"#;
        let objects = parse(&"f.json".into(), text.as_bytes()).unwrap();
        assert_eq!(objects[0].key().to_string(), "Pod default/a");
        assert_eq!(objects[0].origin.text.as_ref().unwrap().start.line, 2);
    }

    #[test]
    fn refusals_have_a_position() {
        let parse = |text: &str| parse(&"f.yaml".into(), text.as_bytes()).unwrap_err();
        let error = parse("apiVersion: v1\nkind: Service\nmetadata:\n  namespace: a\n");
        assert_eq!(error.position.map(|position| position.line), Some(4));
        assert_eq!(error.reason, "a Kubernetes object must have metadata.name");
        let error = parse("apiVersion: v1\nkind: [\n");
        assert!(error.position.is_some(), "{error:?}");
        let error = parse("just a text");
        assert_eq!(error.reason, "a Kubernetes object must have apiVersion");
    }
}
