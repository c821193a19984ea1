//! Kubelet probes through the sidecar.
//!
//! The kubelet has no certificate of the mesh, and a TCP probe of a captured port asks the sidecar instead of the
//! application. So HTTP, TCP and gRPC probes of the Pod go to the sidecar's port 15020, which is not captured, as an HTTP
//! probe of `/app-health/CONTAINER/{livez,readyz,startupz}`; the sidecar asks the application in the original's way,
//! which it finds in `ISTIO_KUBE_APP_PROBERS`. Paths and document are Istio's.

use serde_json::{Map, Value, json};

use super::fields;

/// The sidecar's port for probes and metrics.
const PORT: u16 = 15020;
/// The variable that tells the sidecar of the original probes.
const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// Kubernetes' default of `timeoutSeconds`.
const TIMEOUT_S: i64 = 1;

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];

/// Points the Pod's probes at the sidecar; returns the variable with the originals, if there are any.
pub(super) fn rewrite(
    pod: &mut Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Option<(&'static str, String)> {
    let mut originals = Map::new();
    let mut rewritten = Vec::new();
    for (container, field) in fields::containers(pod) {
        for (name, page) in PROBES {
            let Some(probe) = container.get(name).and_then(Value::as_object) else { continue };
            match original(probe, container) {
                Original::NotOurs => {}
                Original::NoPort => warnings.push(format!(
                    "{field}.{name}: its port is neither a number nor the name of a port of this container; the probe \
                     stays as it is"
                )),
                Original::Of(original) => {
                    let path =
                        format!("/app-health/{}/{page}", fields::text(container, "name").unwrap_or_default());
                    let mut probe = probe.clone();
                    for handler in ["tcpSocket", "grpc"] {
                        probe.shift_remove(handler);
                    }
                    probe.insert("httpGet".to_owned(), json!({"path": path, "port": PORT}));
                    originals.insert(path, original);
                    rewritten.push((format!("{field}.{name}"), probe));
                }
            }
        }
    }
    for (path, probe) in rewritten {
        // `spec.containers[0].livenessProbe` -> `/spec/containers/0/livenessProbe`
        let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
        let of_spec = pointer.strip_prefix("/spec").unwrap_or(&pointer);
        if let Some(place) = pod.get_mut("spec").and_then(|spec| spec.pointer_mut(of_spec)) {
            *place = probe.into();
        }
    }
    (!originals.is_empty()).then(|| (VARIABLE, Value::Object(originals).to_string()))
}

enum Original {
    /// A command, or a probe of another machine.
    NotOurs,
    /// A port that nobody can find.
    NoPort,
    /// What the sidecar has to do, with the defaults that the API server would have put in.
    Of(Value),
}

fn original(probe: &Map<String, Value>, container: &Map<String, Value>) -> Original {
    let timeout_s = fields::number(probe, "timeoutSeconds").unwrap_or(TIMEOUT_S);
    let (name, handler) = match ["httpGet", "tcpSocket", "grpc"]
        .iter()
        .find_map(|name| Some((*name, probe.get(*name)?.as_object()?)))
    {
        Some(found) => found,
        None => return Original::NotOurs,
    };
    if fields::text(handler, "host").is_some_and(|host| !host.is_empty()) {
        return Original::NotOurs;
    }
    let Some(port) = port(handler, container) else { return Original::NoPort };
    let mut asked = Map::new();
    match name {
        "httpGet" => {
            asked.insert(
                "path".to_owned(),
                fields::text(handler, "path").filter(|p| !p.is_empty()).unwrap_or("/").into(),
            );
            asked.insert("port".to_owned(), port.into());
            asked.insert("scheme".to_owned(), fields::text(handler, "scheme").unwrap_or("HTTP").into());
            if let Some(headers) = fields::at(handler, "httpHeaders") {
                asked.insert("httpHeaders".to_owned(), headers.clone());
            }
        }
        _ => {
            asked.insert("port".to_owned(), port.into());
            if let Some(service) = fields::text(handler, "service").filter(|service| !service.is_empty()) {
                asked.insert("service".to_owned(), service.into());
            }
        }
    }
    Original::Of(json!({name: asked, "timeoutSeconds": timeout_s}))
}

/// The number of a probe's port: a number, the name of one of the container's ports, or a number in a text.
fn port(handler: &Map<String, Value>, container: &Map<String, Value>) -> Option<u16> {
    match handler.get("port")? {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok(),
        Value::String(name) => {
            let mut ports = fields::list(container, "ports").iter();
            match ports.find(|port| port.get("name").and_then(Value::as_str) == Some(name)) {
                Some(port) => u16::try_from(port.get("containerPort")?.as_u64()?).ok(),
                None => name.parse().ok(),
            }
        }
        _ => None,
    }
    .filter(|port| *port > 0)
}
