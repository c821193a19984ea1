//! The Pod's volumes for the sidecar: its token, the mesh's root certificate, a place for its state.

use serde_json::{Map, Value, json};

use super::fields::{take_list, take_object};
use super::settings::InjectionSettings;

const TOKEN: &str = "outrigger-token";
const ROOT_CERT: &str = "outrigger-ca-root-cert";
const STATE: &str = "outrigger-state";

/// The volumes' names.
pub(super) const NAMES: [&str; 3] = [TOKEN, ROOT_CERT, STATE];

/// Istio's folder of the token.
pub(super) const TOKEN_FOLDER: &str = "/var/run/secrets/tokens";
pub(super) const TOKEN_FILE: &str = "istio-token";
/// Istio's folder and key of the root certificate.
pub(super) const ROOT_CERT_FOLDER: &str = "/var/run/secrets/istio";
pub(super) const ROOT_CERT_FILE: &str = "root-cert.pem";
/// What the sidecar keeps. In memory: it may hold keys.
pub(super) const STATE_FOLDER: &str = "/var/lib/outrigger";

/// Life of the token; the kubelet renews it at 80 %. Istio's.
const TOKEN_LIFE_S: u32 = 43200;

/// Mounts of the sidecar.
pub(super) fn proxy_mounts() -> Value {
    json!([
        {"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true},
        {"name": ROOT_CERT, "mountPath": ROOT_CERT_FOLDER, "readOnly": true},
        {"name": STATE, "mountPath": STATE_FOLDER},
    ])
}

/// Mounts of the capture.
pub(super) fn capture_mounts() -> Value {
    json!([{"name": STATE, "mountPath": STATE_FOLDER}])
}

/// Adds the volumes, and the Secrets that the image is pulled with.
pub(super) fn add(pod: &mut Map<String, Value>, settings: &InjectionSettings) {
    let mut spec = take_object(pod, "spec");
    let mut volumes = take_list(&mut spec, "volumes");
    volumes.extend([
        json!({"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": {
            "audience": settings.token_audience, "expirationSeconds": TOKEN_LIFE_S, "path": TOKEN_FILE,
        }}]}}),
        json!({"name": ROOT_CERT, "configMap": {"name": settings.root_cert_config_map}}),
        // Without a size: the sidecar's memory limit counts it.
        json!({"name": STATE, "emptyDir": {"medium": "Memory"}}),
    ]);
    spec.insert("volumes".to_owned(), volumes.into());
    let mut secrets = take_list(&mut spec, "imagePullSecrets");
    for name in &settings.image_pull_secrets {
        let secret = json!({"name": name});
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }
    if secrets.is_empty() {
        // Taking it left a null where there was an empty list.
        spec.shift_remove("imagePullSecrets");
    } else {
        spec.insert("imagePullSecrets".to_owned(), secrets.into());
    }
    pod.insert("spec".to_owned(), spec.into());
}
