//! Settings of injection in YAML (`--injection-config`), and a Pod injected with them.

use outrigger_control_plane::inject::decision::{Namespace, NamespacePolicy};
use outrigger_control_plane::inject::settings::InjectionSettings;
use outrigger_control_plane::inject::{Outcome, inject};
use serde_json::json;

use crate::input::text;

/// With settings that are accepted, a plain Pod can be injected.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(Ok(settings)) = text(bytes).map(InjectionSettings::parse) else { return };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    let namespace = Namespace { name: "shop".to_owned(), policy: NamespacePolicy::Selected };
    let outcome = inject(&pod, &namespace, &settings).unwrap();
    assert!(matches!(outcome, Outcome::Injected { .. }));
}
