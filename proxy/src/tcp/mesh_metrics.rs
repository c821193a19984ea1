//! `istio_tcp_*` of one connection.

use std::sync::Arc;

use crate::mesh_peers::hop_labels;
use crate::stats::{MeshStats, Reporter, TcpHandles, TcpLabels};
use crate::stream_info::StreamInfo;

/// The series that one connection counts in: one set of labels from its beginning to its end, as in Istio.
#[derive(Debug)]
pub(super) struct MeshConnection(Arc<TcpHandles>);

impl MeshConnection {
    /// Resolves the series by what is known now, and counts the connection as opened.
    pub(super) fn open(mesh: &MeshStats, reporter: Reporter, info: &StreamInfo) -> Self {
        let hop = hop_labels(info, reporter, &mesh.local());
        let handles = mesh.tcp(&TcpLabels { hop, response_flags: info.flags });
        handles.connections_opened.inc();
        Self(handles)
    }

    /// Counts bytes received from downstream and sent to it since the last report.
    pub(super) fn report(&self, received: u64, sent: u64) {
        self.0.received_bytes.inc_by(received);
        self.0.sent_bytes.inc_by(sent);
    }

    /// Counts its end.
    pub(super) fn close(&self) {
        self.0.connections_closed.inc();
    }
}
