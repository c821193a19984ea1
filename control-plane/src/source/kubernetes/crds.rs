//! Which kinds are installed, by their CustomResourceDefinitions.

use std::collections::BTreeMap;

use serde::Deserialize;
use tracing::warn;

use crate::source::Object;
use crate::source::kubernetes::follow::News;
use crate::source::kubernetes::kinds::{CUSTOM, Kind};

/// The definitions that exist, by name.
#[derive(Debug, Default)]
pub(super) struct Installed {
    served: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Definition {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Spec {
    group: String,
    names: Names,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
struct Names {
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Installed {
    /// Takes in what the watch of the definitions says.
    pub(super) fn take(&mut self, news: &News) {
        match news {
            News::Listed(objects) => {
                let before = std::mem::take(&mut self.served);
                for object in objects {
                    self.define(object, before.contains_key(&object.key().name));
                }
            }
            News::Changed(object) => {
                let was_there = self.served.remove(&object.key().name).is_some();
                self.define(object, was_there);
            }
            News::Gone(key) => {
                self.served.remove(&key.name);
            }
            News::Failed(_) => {}
        }
    }

    /// The best version in which a kind can be read; `None` when it is not installed.
    pub(super) fn version_of(&self, kind: &Kind) -> Option<&'static str> {
        let served = self.served.get(&kind.crd_name())?;
        kind.versions.iter().find(|version| served.iter().any(|served| served == *version)).copied()
    }

    fn define(&mut self, object: &Object, was_there: bool) {
        // The API server checked it; what cannot be read is none of our kinds.
        let Ok(Definition { spec, status }) = Definition::deserialize(&*object.document) else { return };
        if !was_there && is_ignored(&spec.group, &spec.names.kind) {
            let (kind, group) = (spec.names.kind, spec.group);
            warn!(kind, group, "rules of this kind are installed and not supported: they have no effect");
        }
        let established =
            |condition: &Condition| condition.r#type == "Established" && condition.status == "True";
        // Until then its URLs answer 404. One that was served stays so until it is deleted.
        if was_there || status.conditions.iter().any(established) {
            let served = spec.versions.into_iter().filter(|version| version.served);
            self.served.insert(object.key().name.clone(), served.map(|version| version.name).collect());
        }
    }
}

/// Whether users may take a kind for rules of this mesh that it does not read. Of Gateway API only routes: the rest belongs
/// to gateways.
fn is_ignored(group: &str, kind: &str) -> bool {
    let is_rule = match group {
        "gateway.networking.k8s.io" => kind.ends_with("Route"),
        "outrigger.dev" => true,
        group => group.ends_with(".istio.io"),
    };
    is_rule && !CUSTOM.iter().any(|custom| custom.group == group && custom.kind == kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::kubernetes::kinds::CUSTOM;
    use crate::source::test_objects;

    fn definition(versions: &str, established: &str) -> Object {
        let text = format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, \
             metadata: {{name: httproutes.gateway.networking.k8s.io}}, spec: {{group: gateway.networking.k8s.io, names: {{kind: HTTPRoute}}, versions: [{versions}]}}, \
             status: {{conditions: [{{type: NamesAccepted, status: 'True'}}, {{type: Established, status: '{established}'}}]}}}}"
        );
        test_objects(&text).remove(0)
    }

    #[test]
    fn the_best_served_version_of_an_established_definition() {
        let route = &CUSTOM[0];
        let mut installed = Installed::default();
        let v1 = "{name: v1, served: true}";
        let old = "{name: v1beta1, served: true}, {name: v1, served: false}, {name: v1alpha2, served: true}";
        installed.take(&News::Listed(vec![]));
        assert_eq!(installed.version_of(route), None);
        installed.take(&News::Changed(definition(old, "False")));
        assert_eq!(installed.version_of(route), None, "its URLs are not there yet");
        installed.take(&News::Changed(definition(old, "True")));
        assert_eq!(installed.version_of(route), Some("v1beta1"));
        installed.take(&News::Listed(vec![definition(&format!("{old}, {v1}"), "False")]));
        assert_eq!(installed.version_of(route), Some("v1"), "what was served stays so until it is deleted");
        installed.take(&News::Changed(definition("{name: v2, served: true}", "True")));
        assert_eq!(installed.version_of(route), None, "no version that can be read");
        installed.take(&News::Changed(definition(v1, "True")));
        installed.take(&News::Gone(definition(v1, "True").key().clone()));
        assert_eq!(installed.version_of(route), None);
    }

    #[test]
    fn rules_that_are_not_read_are_told_from_what_is_not_ours() {
        for (group, kind, expected) in [
            ("networking.istio.io", "EnvoyFilter", true),
            ("networking.istio.io", "DestinationRule", false),
            ("security.istio.io", "AuthorizationPolicy", true),
            ("gateway.networking.k8s.io", "TCPRoute", true),
            ("gateway.networking.k8s.io", "HTTPRoute", false),
            ("gateway.networking.k8s.io", "GatewayClass", false),
            ("cert-manager.io", "Certificate", false),
        ] {
            assert_eq!(is_ignored(group, kind), expected, "{kind}.{group}");
        }
    }
}
