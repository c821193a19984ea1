//! `filter_metadata` of a resource, for those who print it or match on it: immutable, made when the resource is compiled.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// Namespace of a host's metadata that says what balancing goes by.
pub const BALANCING: &str = "envoy.lb";

/// `envoy.config.core.v3.Metadata.filter_metadata`; never empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metadata(BTreeMap<Box<str>, Value>);

impl Metadata {
    /// The fields of each namespace; `None` when there is none.
    pub fn new(namespaces: impl IntoIterator<Item = (String, Map<String, Value>)>) -> Option<Self> {
        let namespaces: BTreeMap<Box<str>, Value> = namespaces
            .into_iter()
            .map(|(namespace, fields)| (namespace.into_boxed_str(), Value::Object(fields)))
            .collect();
        (!namespaces.is_empty()).then_some(Self(namespaces))
    }

    /// What stands at this path of a namespace; a namespace alone is an object.
    pub fn find(&self, namespace: &str, path: &[Box<str>]) -> Option<&Value> {
        path.iter().try_fold(self.0.get(namespace)?, |value, key| value.as_object()?.get(&**key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_found_by_path() {
        let fields = json!({"a": {"b": 1}}).as_object().unwrap().clone();
        let metadata = Metadata::new([("ns".to_owned(), fields)]).unwrap();
        let path = |keys: &[&str]| keys.iter().map(|k| Box::from(*k)).collect::<Vec<Box<str>>>();
        assert_eq!(metadata.find("ns", &path(&["a", "b"])), Some(&json!(1)));
        assert_eq!(metadata.find("ns", &[]), Some(&json!({"a": {"b": 1}})));
        assert_eq!(metadata.find("ns", &path(&["a", "b", "c"])), None);
        assert_eq!(metadata.find("other", &[]), None);
        assert_eq!(Metadata::new([]), None);
    }
}
