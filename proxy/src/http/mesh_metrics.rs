//! `istio_requests_total` and its duration: the series that a connection's requests need are looked up once and kept.

use std::cell::RefCell;
use std::sync::Arc;

use super::connection_manager::DownstreamConnection;
use crate::stats::Reporter;
use crate::stats::mesh::{MeshHandles, PeerLabels, RequestLabels, RequestProtocol, SecurityPolicy};
use crate::stream_info::StreamInfo;

/// Series of one downstream connection.
#[derive(Debug, Default)]
pub(crate) struct MeshSeries {
    known: RefCell<Vec<(Key, Arc<MeshHandles>)>>,
}

/// What makes two requests of one connection count in different series.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Key {
    cluster: usize,
    host: u64,
    upstream_tls: usize,
    code: u16,
    flags: u32,
    grpc: bool,
}

/// More than a well-behaved connection needs; beyond it the memory is given back and filled again.
const MAX_KNOWN: usize = 64;

impl MeshSeries {
    /// Counts one finished request.
    pub(crate) fn record(
        &self,
        reporter: Reporter,
        connection: &DownstreamConnection,
        info: &StreamInfo,
        grpc: bool,
    ) {
        let key = Key {
            cluster: info.upstream_cluster.as_ref().map_or(0, |c| Arc::as_ptr(&c.destination) as usize),
            host: info.upstream_host.as_ref().map_or(0, |h| h.id),
            upstream_tls: info.upstream_tls.as_ref().map_or(0, |t| Arc::as_ptr(t) as usize),
            code: info.response_code,
            flags: info.flags.bits(),
            grpc,
        };
        let mut known = self.known.borrow_mut();
        let at = known.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            let mesh = connection.worker.shared.stats.mesh();
            known.push((key, mesh.request(&labels(reporter, connection, info, grpc, mesh.local()))));
            known.len() - 1
        });
        let handles = &known[at].1;
        handles.requests.inc();
        handles.duration.observe_duration(info.duration);
    }
}

fn labels(
    reporter: Reporter,
    connection: &DownstreamConnection,
    info: &StreamInfo,
    grpc: bool,
    local: Arc<PeerLabels>,
) -> RequestLabels {
    let service = info.upstream_cluster.as_ref().map(|c| c.destination.clone()).unwrap_or_default();
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
            let tls = connection.info.tls.as_ref();
            let principal = tls.and_then(|t| t.peer_principal.clone());
            let security = if principal.is_some() { SecurityPolicy::MutualTls } else { SecurityPolicy::None };
            let mut source = PeerLabels::default();
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
    RequestLabels {
        reporter,
        source: Arc::new(source),
        destination: Arc::new(destination),
        destination_service: known(&service.service),
        destination_service_name: known(&service.service_name),
        destination_service_namespace: known(&service.service_namespace),
        request_protocol: if grpc { RequestProtocol::Grpc } else { RequestProtocol::Http },
        response_code: info.response_code,
        grpc_response_status: None,
        response_flags: info.flags,
        connection_security_policy: security,
    }
}

/// `spiffe://td/ns/NAMESPACE/sa/...` → the namespace.
fn spiffe_namespace(principal: &str) -> Option<&str> {
    let mut parts = principal.strip_prefix("spiffe://")?.split('/').skip(1);
    (parts.next() == Some("ns")).then(|| parts.next()).flatten()
}
