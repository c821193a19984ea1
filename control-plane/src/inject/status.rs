//! The marks of an injected Pod: Istio's annotation `sidecar.istio.io/status` with what was put in, and Istio's label
//! `security.istio.io/tlsMode`, by which peers know that the Pod speaks mTLS.

use serde_json::{Map, Value, json};

use super::fields::{self, take_object};
use super::pod_settings::{Form, PodSettings};
use super::settings::InjectionSettings;
use super::{CAPTURE_CONTAINER, PROXY_CONTAINER, volumes};
use crate::api::Refusal;

const STATUS: &str = "sidecar.istio.io/status";
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Which container `kubectl logs` and `kubectl exec` mean.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Whether the Pod has the containers that its status names, whoever put them in. A status without its containers was
/// copied from elsewhere: the Pod is not in the mesh.
///
/// # Errors
/// A status that is none.
pub(super) fn is_injected(pod: &Map<String, Value>) -> Result<bool, Refusal> {
    let Some(text) = fields::metadata(pod, "annotations", STATUS) else { return Ok(false) };
    let refuse = || {
        Refusal::new(
            format!("metadata.annotations[{STATUS:?}]"),
            "is not what an injector writes; remove the annotation",
        )
    };
    let status: Map<String, Value> = serde_json::from_str(text).map_err(|_| refuse())?;
    let mut count = 0;
    for list in ["initContainers", "containers"] {
        let names = match status.get(list) {
            None | Some(Value::Null) => continue,
            Some(names) => names.as_array().ok_or_else(refuse)?,
        };
        for name in names {
            let name = name.as_str().ok_or_else(refuse)?;
            if !fields::names(pod).any(|(of, other, _)| of == list && other == name) {
                return Ok(false);
            }
            count += 1;
        }
    }
    Ok(count > 0)
}

/// Marks the Pod.
pub(super) fn mark(
    pod: &mut Map<String, Value>,
    of_pod: &PodSettings,
    is_captured: bool,
    settings: &InjectionSettings,
) {
    let mut init: Vec<&str> = is_captured.then_some(CAPTURE_CONTAINER).into_iter().collect();
    let mut containers = Vec::new();
    match of_pod.form() {
        Form::Native => init.push(PROXY_CONTAINER),
        Form::Container { .. } => containers.push(PROXY_CONTAINER),
    }
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": settings.revision,
        "initContainers": init,
        "containers": containers,
        "volumes": volumes::NAMES,
        "imagePullSecrets": settings.image_pull_secrets,
    });
    let application = fields::list(pod, "spec.containers").first();
    let application = application.and_then(|container| Some(container.get("name")?.as_str()?.to_owned()));
    let mut metadata = take_object(pod, "metadata");
    let mut annotations = take_object(&mut metadata, "annotations");
    annotations.insert(STATUS.to_owned(), status.to_string().into());
    if let Some(name) = application {
        annotations.entry(DEFAULT_CONTAINER).or_insert(name.into());
    }
    metadata.insert("annotations".to_owned(), annotations.into());
    let mut labels = take_object(&mut metadata, "labels");
    labels.insert(TLS_MODE.to_owned(), "istio".into());
    metadata.insert("labels".to_owned(), labels.into());
    pod.insert("metadata".to_owned(), metadata.into());
}
