//! YAML and JSON texts: to the wire, to JSON and back. The first line names the message: `# envoy.config.cluster.v3.Cluster`.

use outrigger_xds_api::json::{self, Notation};
use outrigger_xds_api::schema::Message;

use crate::input::text;

/// What is read can be printed, and what is printed means the same again.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let name = text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
    let name = Message::find(name).map_or("google.protobuf.Struct", Message::full_name);
    let Ok(node) = json::parse_one(text) else { return };
    yaml(&node.to_json());
    let Ok(wire) = json::encode(name, &node, Notation::Yaml) else { return };
    let printed = json::to_json(name, &wire).unwrap();
    let again = printed.to_string();
    if again.contains("[redacted]") {
        return;
    }
    let node = json::parse_one(&again).unwrap();
    let wire = json::encode(name, &node, Notation::Json).unwrap();
    assert_eq!(json::to_json(name, &wire).unwrap(), printed, "{again}");
}

/// What is written as YAML is the same when it is read.
fn yaml(value: &serde_json::Value) {
    let mut text = String::new();
    json::write_yaml(value, &mut text);
    let read = json::parse_one(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!(read.to_json(), *value, "{text:?}");
}
