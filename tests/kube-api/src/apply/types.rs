//! What a place in an object is: which lists are keyed, which maps are one value. For custom resources their schema says
//! it, for Kubernetes' own kinds a table does.

use serde_json::Value;

use super::lists::{self, ListType};
use crate::kinds::Resource;

/// The type at one place.
#[derive(Clone, Debug)]
pub(super) enum Type<'a> {
    /// A node of a custom resource's schema.
    Custom { schema: &'a Value, is_root: bool },
    /// Kind and field names.
    BuiltIn(Vec<String>),
}

/// How a list is merged.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum List {
    Atomic,
    Set,
    Map(Vec<String>),
}

impl<'a> Type<'a> {
    pub(super) fn of(resource: &'a Resource) -> Self {
        match &resource.custom {
            Some(definition) => Type::Custom { schema: &definition.schema, is_root: true },
            None => Type::BuiltIn(vec![resource.kind.clone()]),
        }
    }

    pub(super) fn field(&self, name: &str) -> Type<'a> {
        match self {
            Type::Custom { is_root: true, .. } if name == "metadata" => {
                Type::BuiltIn(vec![String::new(), "metadata".to_owned()])
            }
            Type::Custom { schema, .. } => {
                let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                Type::Custom { schema, is_root: false }
            }
            Type::BuiltIn(path) => {
                let mut path = path.clone();
                path.push(name.to_owned());
                Type::BuiltIn(path)
            }
        }
    }

    pub(super) fn item(&self) -> Type<'a> {
        match self {
            Type::Custom { schema, .. } => Type::Custom { schema: &schema["items"], is_root: false },
            Type::BuiltIn(path) => Type::BuiltIn(path.clone()),
        }
    }

    pub(super) fn list(&self) -> List {
        match self {
            Type::Custom { schema, .. } => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => List::Set,
                Some("map") => {
                    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                    List::Map(keys.filter_map(|key| key.as_str().map(str::to_owned)).collect())
                }
                _ => List::Atomic,
            },
            Type::BuiltIn(path) => match lists::list_type(path) {
                ListType::Atomic => List::Atomic,
                ListType::Set => List::Set,
                ListType::Map(keys) => List::Map(keys.iter().map(|key| (*key).to_owned()).collect()),
            },
        }
    }

    pub(super) fn is_atomic_map(&self) -> bool {
        match self {
            Type::Custom { schema, .. } => schema["x-kubernetes-map-type"] == "atomic",
            Type::BuiltIn(path) => lists::is_atomic_map(path),
        }
    }

    /// A map with keys of any name, as opposed to an object with fields: its being there is owned too.
    pub(super) fn is_free_map(&self) -> bool {
        match self {
            Type::Custom { schema, .. } => !schema["additionalProperties"].is_null(),
            Type::BuiltIn(path) => matches!(
                path.last().map(String::as_str),
                Some(
                    "labels"
                        | "annotations"
                        | "data"
                        | "binaryData"
                        | "stringData"
                        | "matchLabels"
                        | "limits"
                        | "requests"
                        | "capacity"
                        | "allocatable"
                )
            ),
        }
    }

    /// The key of an item, with what the server fills in: `{"port":80,"protocol":"TCP"}`.
    pub(super) fn key(&self, item: &Value, keys: &[String]) -> Value {
        let mut key = serde_json::Map::new();
        let mut sorted: Vec<&String> = keys.iter().collect();
        sorted.sort();
        for name in sorted {
            let default = match self {
                Type::Custom { schema, .. } => schema["items"]["properties"][name].get("default").cloned(),
                Type::BuiltIn(_) if name == "protocol" => Some("TCP".into()),
                Type::BuiltIn(_) => None,
            };
            if let Some(value) = item.get(name).cloned().or(default) {
                key.insert(name.clone(), value);
            }
        }
        Value::Object(key)
    }
}
