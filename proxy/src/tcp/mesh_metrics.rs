//! `istio_tcp_*` of one connection.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::stats::{MeshStats, PeerLabels, Reporter, SecurityPolicy, TcpHandles, TcpLabels};
use crate::stream_info::{ResponseFlags, StreamInfo};

/// The series that one connection counts in. Bytes are added when it ends.
#[derive(Debug)]
pub(super) struct MeshConnection(Arc<TcpHandles>);

impl MeshConnection {
    /// Resolves the series, and counts the connection as opened.
    pub(super) fn open(mesh: &MeshStats, reporter: Reporter, cluster: &Cluster, info: &StreamInfo) -> Self {
        let local = mesh.local();
        let host = info.upstream_host.as_ref().and_then(|host| host.workload.as_deref());
        let (source, destination, policy) = match reporter {
            Reporter::Source => {
                let tls = info.upstream_tls.as_deref();
                let peer = host.map(PeerLabels::from_workload_metadata).unwrap_or_default();
                (
                    local.with_principal(tls.and_then(|t| t.local_principal.clone())),
                    peer.with_principal(tls.and_then(|t| t.peer_principal.clone())),
                    SecurityPolicy::Unknown,
                )
            }
            Reporter::Destination => {
                let tls = info.connection.tls.as_ref();
                let peer = tls.and_then(|t| t.peer_principal.clone());
                let policy = if peer.is_some() { SecurityPolicy::MutualTls } else { SecurityPolicy::None };
                (
                    PeerLabels::default().with_principal(peer),
                    local.with_principal(tls.and_then(|t| t.local_principal.clone())),
                    policy,
                )
            }
        };
        let service = &cluster.destination;
        let handles = mesh.tcp(&TcpLabels {
            reporter,
            source: Arc::new(source),
            destination: Arc::new(destination),
            destination_service: service.service.clone(),
            destination_service_name: service.service_name.clone(),
            destination_service_namespace: service.service_namespace.clone(),
            response_flags: ResponseFlags::NONE,
            connection_security_policy: policy,
        });
        handles.connections_opened.inc();
        Self(handles)
    }

    /// Counts its end: bytes received from downstream and sent to it.
    pub(super) fn close(&self, received: u64, sent: u64) {
        self.0.connections_closed.inc();
        self.0.received_bytes.inc_by(received);
        self.0.sent_bytes.inc_by(sent);
    }
}
