//! The JSON that injection hands to a sidecar in its environment: `ISTIO_KUBE_APP_PROBERS`, `ISTIO_PROMETHEUS_ANNOTATIONS`.

use outrigger_proxy::sidecar::metrics::ApplicationMetrics;
use outrigger_proxy::sidecar::probes::Probes;

use crate::input::text;

/// What is refused is told by the variable's name.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Err(reason) = Probes::parse(text) {
        assert!(reason.starts_with("ISTIO_KUBE_APP_PROBERS"), "{reason}");
    }
    if let Err(reason) = ApplicationMetrics::parse(text, 15020) {
        assert!(reason.starts_with("ISTIO_PROMETHEUS_ANNOTATIONS"), "{reason}");
    }
}
