//! The annotation `proxy.istio.io/config`: Istio's ProxyConfig (`mesh/v1alpha1`) in YAML, as far as it maps.

use std::time::Duration;

use outrigger_xds_api::json;
use serde_json::Value;

use super::annotations::{PROXY_CONFIG, at};
use super::pod_settings::PodSettings;
use super::settings::InterceptionMode;
use crate::api::{Refusal, duration};

/// Most workers that the sidecar takes.
const CONCURRENCY_MAX: u64 = 1024;

/// What Istio's `concurrency: 0` gets.
const NO_WORKER_PER_CORE: &str = "0, a worker for each core of the node, is not supported; leave it out for a worker for \
                                  each core of the CPU limit";

/// Fields of Istio's that say how an Envoy is run, observed or tuned. Without them a Pod runs as safely.
const WITHOUT_EFFECT: [&str; 24] = [
    "binaryPath",
    "configPath",
    "customConfigFile",
    "drainDuration",
    "envoyAccessLogService",
    "envoyMetricsService",
    "extraStatTags",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "gatewayTopology",
    "image",
    "proxyAdminPort",
    "proxyBootstrapTemplatePath",
    "proxyHeaders",
    "proxyStatsMatcher",
    "readinessProbe",
    "runtimeValues",
    "serviceCluster",
    "statNameLength",
    "statsCompression",
    "statsEvictionInterval",
    "statsdUdpAddress",
    "tracing",
    "zipkinAddress",
];

/// Fields of Istio's that say whom to trust or whom to ask.
const REFUSED: [&str; 4] =
    ["caCertificatesPem", "controlPlaneAuthPolicy", "discoveryAddress", "privateKeyProvider"];

/// Applies the document to what holds for the Pod.
///
/// # Errors
/// A document that cannot be read, a field that Istio does not know, has a bad value, or is not supported and must not
/// be ignored.
pub(super) fn apply(text: &str, of_pod: &mut PodSettings, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let refuse = |reason: String| at(PROXY_CONFIG, reason);
    if text.trim().is_empty() {
        return Ok(());
    }
    let document = json::parse_one(text).map_err(|error| refuse(error.to_string()))?.to_json();
    let Value::Object(fields) = document else {
        return Err(refuse("must be a map of ProxyConfig's fields".to_owned()));
    };
    for (name, value) in &fields {
        field(name, value, of_pod, warnings).map_err(|reason| refuse(format!("{name}: {reason}")))?;
    }
    Ok(())
}

fn field(
    name: &str,
    value: &Value,
    of_pod: &mut PodSettings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let wrong = |expected: &str| format!("must be {expected}, not {value}");
    match name {
        "holdApplicationUntilProxyStarts" => {
            of_pod.holds = value.as_bool().ok_or_else(|| wrong("true or false"))?;
        }
        "concurrency" => match value.as_u64() {
            Some(count) if (1..=CONCURRENCY_MAX).contains(&count) => {
                of_pod.concurrency = u32::try_from(count).ok();
            }
            Some(0) => return Err(NO_WORKER_PER_CORE.to_owned()),
            _ => return Err(wrong(&format!("a whole number from 1 to {CONCURRENCY_MAX}"))),
        },
        "terminationDrainDuration" => {
            let text = value.as_str().ok_or_else(|| wrong("a duration such as 20s"))?;
            let drain = duration::parse_go(text)?;
            if drain < Duration::from_secs(1) || drain.subsec_nanos() != 0 {
                return Err(format!("{text:?} is not a whole number of seconds, at least 1s"));
            }
            of_pod.drain_time = Some(drain);
        }
        "interceptionMode" => {
            let mode = value.as_str().ok_or_else(|| wrong("REDIRECT or NONE"))?;
            of_pod.interception_mode = InterceptionMode::parse(mode)?;
        }
        "statusPort" if value.as_u64() == Some(15020) => {}
        "statusPort" => return Err(wrong("15020")),
        "proxyMetadata" => {
            let entries = value.as_object().ok_or_else(|| wrong("a map of texts"))?;
            for (key, value) in entries {
                let text = value.as_str().ok_or_else(|| format!("{key}: must be a text, not {value}"))?;
                metadata(key, text, of_pod, warnings).map_err(|reason| format!("{key}: {reason}"))?;
            }
        }
        "meshId" => {
            let id = value.as_str().ok_or_else(|| wrong("a text"))?;
            of_pod.metadata.insert("ISTIO_META_MESH_ID".to_owned(), id.to_owned());
        }
        _ if REFUSED.contains(&name) => {
            return Err("is not supported, and a Pod that relies on it must not start without it".to_owned());
        }
        _ if WITHOUT_EFFECT.contains(&name) => {
            warnings.push(format!("{PROXY_CONFIG}: {name} is not supported; it has no effect"));
        }
        _ => return Err("is not a field of ProxyConfig".to_owned()),
    }
    Ok(())
}

/// Metadata of the node: what the sidecar tells the control plane of itself.
fn metadata(
    name: &str,
    text: &str,
    of_pod: &mut PodSettings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    if name.starts_with("ISTIO_METAJSON_") {
        serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map_err(|error| format!("must be JSON: {error}"))?;
    } else if !name.starts_with("ISTIO_META_") {
        warnings.push(format!("{PROXY_CONFIG}: proxyMetadata: {name} is not supported; it has no effect"));
        return Ok(());
    }
    of_pod.metadata.insert(name.to_owned(), text.to_owned());
    Ok(())
}
