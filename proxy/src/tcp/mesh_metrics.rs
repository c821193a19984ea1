//! `istio_tcp_*` of one connection.

use std::sync::Arc;

use crate::mesh_peers::hop_labels;
use crate::stats::{MeshStats, Reporter, TcpHandles, TcpLabels};
use crate::stream_info::{ResponseFlags, StreamInfo};

/// The series that one connection counts in. Bytes are added when it ends.
#[derive(Debug)]
pub(super) struct MeshConnection(Arc<TcpHandles>);

impl MeshConnection {
    /// Resolves the series, and counts the connection as opened.
    pub(super) fn open(mesh: &MeshStats, reporter: Reporter, info: &StreamInfo) -> Self {
        let hop = hop_labels(info, reporter, &mesh.local());
        let handles = mesh.tcp(&TcpLabels { hop, response_flags: ResponseFlags::NONE });
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
