//! `istio_requests_total` and its duration: the series that a connection's requests need are looked up once and kept.

use std::cell::RefCell;
use std::sync::Arc;

use super::downstream::DownstreamConnection;
use crate::mesh_peers::hop_labels;
use crate::stats::Reporter;
use crate::stats::mesh::{MeshHandles, PeerLabels, RequestLabels, RequestProtocol};
use crate::stream_info::StreamInfo;

/// Series of one downstream connection.
#[derive(Debug, Default)]
pub(crate) struct MeshSeries {
    known: RefCell<Vec<(Key, Arc<MeshHandles>)>>,
}

/// What makes two requests of one connection count in different series.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Key {
    reporter: Reporter,
    cluster: usize,
    host: u64,
    upstream_tls: usize,
    code: u16,
    grpc_status: Option<u8>,
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
            reporter,
            cluster: info.upstream_cluster.as_ref().map_or(0, |c| Arc::as_ptr(&c.destination) as usize),
            host: info.upstream_host.as_ref().map_or(0, |h| h.id),
            upstream_tls: info.upstream_tls.as_ref().map_or(0, |t| Arc::as_ptr(t) as usize),
            code: info.response_code,
            grpc_status: info.grpc_status,
            flags: info.flags.bits(),
            grpc,
        };
        let mut known = self.known.borrow_mut();
        let at = known.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            let mesh = connection.worker.shared.stats.mesh();
            known.push((key, mesh.request(&labels(reporter, info, grpc, &mesh.local()))));
            known.len() - 1
        });
        let handles = &known[at].1;
        handles.requests.inc();
        handles.duration.observe_duration(info.duration);
    }
}

fn labels(reporter: Reporter, info: &StreamInfo, grpc: bool, local: &PeerLabels) -> RequestLabels {
    RequestLabels {
        hop: hop_labels(info, reporter, local),
        request_protocol: if grpc { RequestProtocol::Grpc } else { RequestProtocol::Http },
        response_code: info.response_code,
        grpc_response_status: info.grpc_status,
        response_flags: info.flags,
    }
}
