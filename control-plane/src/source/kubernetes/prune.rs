//! Cutting an object down to the fields that are kept.

use serde_json::{Map, Value};

/// Kept of every kind.
const ALWAYS: &[&str] = &["apiVersion", "kind", "metadata.name", "metadata.namespace"];

/// The document with the fields at `paths` and those of [`ALWAYS`] only; see [`Kind::keep`](super::kinds::Kind::keep).
pub(super) fn prune(document: Value, paths: &[&str]) -> Value {
    let paths: Vec<&str> = ALWAYS.iter().chain(paths).copied().collect();
    keep(document, &paths)
}

/// `paths` begin at `value`.
fn keep(value: Value, paths: &[&str]) -> Value {
    match value {
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (name, value) in fields {
                // A name may hold dots, so the paths are compared with it, not taken apart.
                let rests: Vec<&str> =
                    paths.iter().filter_map(|path| path.strip_prefix(name.as_str())).collect();
                if rests.contains(&"") {
                    kept.insert(name, value);
                    continue;
                }
                let below = rests.into_iter().filter_map(|rest| match value {
                    Value::Object(_) => rest.strip_prefix('.'),
                    Value::Array(_) => rest.strip_prefix("[]."),
                    _ => None,
                });
                let below: Vec<&str> = below.collect();
                if !below.is_empty() {
                    kept.insert(name, keep(value, &below));
                }
            }
            Value::Object(kept)
        }
        Value::Array(elements) => elements.into_iter().map(|element| keep(element, paths)).collect(),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api;
    use crate::model::{MeshSettings, Sidecars};
    use crate::source::kubernetes::kinds::{BUILT_IN, CUSTOM, Kind};
    use crate::source::{Object, test_objects};

    /// Full objects of each kind that has fields to read: together they have all of them.
    const FULL: &str = include_str!("full_objects.yaml");

    fn kind_of(object: &Object) -> &'static Kind {
        BUILT_IN.iter().chain(CUSTOM).find(|kind| kind.kind == object.key().kind).unwrap()
    }

    fn pruned(object: &Object) -> Value {
        prune((*object.document).clone(), kind_of(object).keep)
    }

    #[test]
    fn the_front_ends_read_nothing_that_is_cut_off() {
        for object in test_objects(FULL) {
            let document = pruned(&object).into();
            let cut = Object { document, ..object.clone() };
            for sidecars in [Sidecars::Assumed, Sidecars::Injected] {
                let settings = MeshSettings { sidecars, ..MeshSettings::default() };
                let decode = |object: &Object| format!("{:?}", api::decode(object, &settings).unwrap());
                assert_eq!(decode(&object), decode(&cut));
            }
        }
    }

    #[test]
    fn every_path_leads_somewhere() {
        let objects = test_objects(FULL);
        for kind in BUILT_IN.iter().chain(CUSTOM) {
            let all: Vec<_> = objects.iter().filter(|object| object.key().kind == kind.kind).collect();
            let pruned = |paths: &[&str]| -> Vec<Value> {
                all.iter().map(|object| prune((*object.document).clone(), paths)).collect()
            };
            for path in kind.keep {
                assert_ne!(pruned(&[path]), pruned(&[]), "{}: {path}", kind.kind);
            }
        }
    }

    #[test]
    fn a_pod_loses_what_is_not_read() {
        let objects = test_objects(FULL);
        let pod = objects.iter().find(|object| object.key().kind == "Pod").unwrap();
        let expected = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "reviews-7d4b9c-x2x",
                "namespace": "shop",
                "labels": {"app": "reviews", "pod-template-hash": "7d4b9c"},
                "annotations": {
                    "inject.istio.io/templates": "sidecar",
                    "sidecar.istio.io/inject": "true",
                    "sidecar.istio.io/interceptionMode": "REDIRECT",
                    "sidecar.istio.io/status": "{}",
                },
                "deletionTimestamp": "2026-11-21T05:00:00Z",
                "ownerReferences": [{"kind": "ReplicaSet", "name": "reviews-7d4b9c", "controller": true}],
            },
            "spec": {
                "serviceAccountName": "reviews",
                "nodeName": "n1",
                "hostNetwork": false,
                "containers": [
                    {"ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}]},
                    {},
                ],
            },
            "status": {
                "phase": "Running",
                "podIP": "10.1.0.7",
                "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            },
        });
        assert_eq!(pruned(pod), expected);
    }

    #[test]
    fn names_with_dots_are_not_taken_apart() {
        let document = serde_json::json!({"a": {"b.c/d": "x", "b": "scalar", "b.c": {"d": 1}}});
        assert_eq!(prune(document, &["a.b.c/d"]), serde_json::json!({"a": {"b.c/d": "x"}}));
        let document = serde_json::json!({"list": {"x": 1}, "map": [{"x": 1}], "no": {"listed": 1}});
        assert_eq!(prune(document, &["list[].x", "map.x"]), serde_json::json!({}));
    }
}
