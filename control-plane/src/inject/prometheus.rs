//! Prometheus scrapes sidecar and application at once.
//!
//! The annotations that a Prometheus looks for point at the sidecar's `15020/stats/prometheus`; where the application
//! serves its own metrics goes to the sidecar in `ISTIO_PROMETHEUS_ANNOTATIONS`, which merges them in. Document and
//! defaults are Istio's. A Pod that says `prometheus.io/scrape: "false"` is left as it is.

use serde_json::{Map, Value, json};

use super::fields::{self, take_object};
use crate::api::Refusal;

const SCRAPE: &str = "prometheus.io/scrape";
const PATH: &str = "prometheus.io/path";
const PORT: &str = "prometheus.io/port";
const SCHEME: &str = "prometheus.io/scheme";

/// The variable that tells the sidecar where the application's metrics are.
const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Where an application's metrics are that does not say it (Istio's).
const DEFAULT_PATH: &str = "/metrics";
const DEFAULT_PORT: &str = "80";

const MERGED_PATH: &str = "/stats/prometheus";
const MERGED_PORT: &str = "15020";

/// Points the Pod's annotations at the sidecar; returns the variable with the application's own, if it has any.
///
/// # Errors
/// A port that is none.
pub(super) fn merge(pod: &mut Map<String, Value>) -> Result<Option<(&'static str, String)>, Refusal> {
    let annotation = |name: &str| fields::metadata(pod, "annotations", name).filter(|text| !text.is_empty());
    if annotation(SCRAPE).is_some_and(|text| text != "true") {
        return Ok(None);
    }
    let (scrape, path, port) = (annotation(SCRAPE), annotation(PATH), annotation(PORT));
    let own = match (scrape, path, port) {
        (None, None, None) => None,
        // Copied from an injected Pod: the sidecar must not scrape itself.
        (_, _, Some(MERGED_PORT)) => None,
        _ => {
            let port = port.unwrap_or(DEFAULT_PORT);
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                let field = format!("metadata.annotations[{PORT:?}]");
                return Err(Refusal::new(field, format!("{port:?} is not a port (1 to 65535)")));
            }
            if let Some(scheme) = annotation(SCHEME).filter(|scheme| *scheme != "http") {
                let field = format!("metadata.annotations[{SCHEME:?}]");
                let reason = format!(
                    "{scheme:?}: the sidecar fetches the application's metrics over plain HTTP only; set \
                     prometheus.istio.io/merge-metrics: \"false\""
                );
                return Err(Refusal::new(field, reason));
            }
            let own = json!({"scrape": "true", "path": path.unwrap_or(DEFAULT_PATH), "port": port});
            Some((VARIABLE, own.to_string()))
        }
    };
    let mut metadata = take_object(pod, "metadata");
    let mut annotations = take_object(&mut metadata, "annotations");
    for (name, value) in [(SCRAPE, "true"), (PATH, MERGED_PATH), (PORT, MERGED_PORT)] {
        annotations.insert(name.to_owned(), value.into());
    }
    metadata.insert("annotations".to_owned(), annotations.into());
    pod.insert("metadata".to_owned(), metadata.into());
    Ok(own)
}
