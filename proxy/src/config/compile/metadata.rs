//! `google.protobuf.Struct`, and `Metadata`, which is made of them.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_xds_api::wire::core::v3 as wire;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::protobuf::{Struct, Value};

use crate::metadata::Metadata;

/// Compiles a field `metadata`. What is in `typed_filter_metadata` nobody here asks for.
pub(crate) fn compile_metadata(value: &Option<wire::Metadata>) -> Option<Arc<Metadata>> {
    let wire::Metadata { filter_metadata, typed_filter_metadata: _ } = value.as_ref()?;
    let namespaces = filter_metadata.iter().map(|(name, fields)| (name.clone(), json_object(fields)));
    Metadata::new(namespaces).map(Arc::new)
}

/// A `Struct` as JSON, keys sorted.
pub(crate) fn json_object(value: &Struct) -> serde_json::Map<String, serde_json::Value> {
    fn object(fields: &HashMap<String, Value>) -> serde_json::Map<String, serde_json::Value> {
        let mut keys: Vec<&String> = fields.keys().collect();
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), json(&fields[key]))).collect()
    }
    fn json(value: &Value) -> serde_json::Value {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
            Some(Kind::BoolValue(b)) => (*b).into(),
            // All numbers are floating point; whole ones print without a point.
            Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 1e15 => (*n as i64).into(),
            Some(Kind::NumberValue(n)) => (*n).into(),
            Some(Kind::StringValue(s)) => s.as_str().into(),
            Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
            Some(Kind::StructValue(inner)) => serde_json::Value::Object(object(&inner.fields)),
        }
    }
    object(&value.fields)
}
