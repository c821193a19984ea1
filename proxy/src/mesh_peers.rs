//! Who talks to whom on one hop: the labels of both ends for mesh metrics, of HTTP and of TCP. Runs on the workers.

use std::sync::Arc;

use crate::stats::{HopLabels, PeerLabels, Reporter, SecurityPolicy};
use crate::stream_info::StreamInfo;

/// Both ends of a hop and how it is secured, as one reporter sees them. `local` is this workload. The caller's sidecar knows the other
/// end by the endpoint's metadata, the callee's by its certificate.
pub(crate) fn hop_labels(info: &StreamInfo, reporter: Reporter, local: &PeerLabels) -> HopLabels {
    let (source, destination, security) = match reporter {
        Reporter::Source => {
            let tls = info.upstream_tls.as_deref();
            let host = info.upstream_host.as_ref().and_then(|h| h.workload.as_deref());
            let peer = host.map(PeerLabels::from_workload_metadata).unwrap_or_default();
            (
                local.with_principal(tls.and_then(|t| t.local_principal.clone())),
                peer.with_principal(tls.and_then(|t| t.peer_principal.clone())),
                SecurityPolicy::Unknown,
            )
        }
        Reporter::Destination => {
            let tls = info.connection.tls.as_ref();
            let principal = tls.and_then(|t| t.peer_principal.clone());
            let security = if principal.is_some() { SecurityPolicy::MutualTls } else { SecurityPolicy::None };
            let workload = tls.and_then(|t| t.peer_workload.as_deref());
            let mut source = workload.map(PeerLabels::from_workload_metadata).unwrap_or_default();
            // A certificate of another CA names no workload, but its identity has a namespace.
            if let Some(namespace) = principal.as_deref().and_then(spiffe_namespace) {
                source.workload_namespace = namespace.into();
            }
            (
                source.with_principal(principal),
                local.with_principal(tls.and_then(|t| t.local_principal.clone())),
                security,
            )
        }
    };
    let known = |label: &Arc<str>| if label.is_empty() { Arc::from("unknown") } else { label.clone() };
    let service = info.upstream_cluster.as_ref().map(|c| c.destination.clone()).unwrap_or_default();
    HopLabels {
        reporter,
        source: Arc::new(source),
        destination: Arc::new(destination),
        destination_service: known(&service.service),
        destination_service_name: known(&service.service_name),
        destination_service_namespace: known(&service.service_namespace),
        connection_security_policy: security,
    }
}

/// `spiffe://td/ns/NAMESPACE/sa/...` → the namespace.
fn spiffe_namespace(principal: &str) -> Option<&str> {
    let mut parts = principal.strip_prefix("spiffe://")?.split('/').skip(1);
    (parts.next() == Some("ns")).then(|| parts.next()).flatten()
}
