//! What an image and its Pod say for a container that does not say it itself: entry point and user.

use std::collections::BTreeMap;

use serde_json::Value;

use super::container::Program;
use crate::pods::APPLICATION;

/// Fills it in, in each container of the Pod.
pub(super) fn fill_in(pod: &mut Value, images: &BTreeMap<String, Program>) {
    let of_pod = pod["spec"]["securityContext"].clone();
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let Some(program) = container["image"].as_str().and_then(|image| images.get(image)) else {
                continue;
            };
            let (entrypoint, own_user) = match program {
                Program::Binary { entrypoint, user } => (entrypoint.clone(), *user),
                Program::Server(_) | Program::Task(_) => (Vec::new(), APPLICATION),
            };
            if container["command"].is_null() {
                container["command"] = entrypoint.into();
            }
            for field in ["runAsUser", "runAsGroup"] {
                let of_pod = of_pod[field].as_u64();
                let value =
                    container["securityContext"][field].as_u64().or(of_pod).unwrap_or(own_user.into());
                container["securityContext"][field] = value.into();
            }
        }
    }
}
