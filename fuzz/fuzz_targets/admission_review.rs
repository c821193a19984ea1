//! Bodies that an API server posts to the admission webhooks: `AdmissionReview`s of Pods to inject and of objects to judge. The first
//! byte chooses the webhook.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use outrigger_control_plane::fuzzing::{inject_review, validate_review};
use outrigger_control_plane::inject::settings::InjectionSettings;
use outrigger_control_plane::model::MeshSettings;
use outrigger_control_plane::webhook::{WebhookMetrics, Webhooks};
use serde_json::Value;

use crate::input::choose;

static WEBHOOKS: LazyLock<Webhooks> = LazyLock::new(|| Webhooks {
    injection: InjectionSettings::default(),
    mesh: MeshSettings::default(),
    metrics: Arc::new(WebhookMetrics::register(&prometheus::Registry::new()).unwrap()),
});

/// The patch fits the object, and an object that has its sidecar gets no other one.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((injects, body)) = choose(&[true, false], bytes) else { return };
    if !injects {
        drop(validate_review(body, &WEBHOOKS));
        return;
    }
    let Ok(answer) = inject_review(body, &WEBHOOKS) else { return };
    let Some(patch) = answer["response"]["patch"].as_str() else { return };
    let patch: Patch = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
    // What the webhook skips over may be no text.
    let Ok(mut review) = serde_json::from_slice::<Value>(body) else { return };
    json_patch::patch(&mut review["request"]["object"], &patch).unwrap();
    let again = inject_review(review.to_string().as_bytes(), &WEBHOOKS).unwrap();
    assert_eq!(again["response"]["allowed"], true, "{again}");
    assert!(again["response"].get("patch").is_none(), "{again}");
}
