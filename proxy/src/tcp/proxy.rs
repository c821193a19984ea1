//! `tcp_proxy`: one downstream connection, one upstream connection, bytes between them.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::TcpProxy;
use super::copy::{ByteCounts, CopyEnd, CopyLimits, copy_bidirectional};
use super::mesh_metrics::MeshConnection;
use crate::cluster::{self, ConnectError, Connected, lb, outlier};
use crate::net::Stream;
use crate::stream_info::{ConnectionInfo, ResponseFlags, StreamInfo};
use crate::transport_socket::failure_reason;
use crate::worker::{ConnectionHandle, Worker};

const MAX_DURATION: &str = "max_downstream_connection_duration";

/// Serves one connection until both sides have ended, or an error, a timeout or the end of the worker.
pub async fn serve(
    worker: Rc<Worker>,
    proxy: Arc<TcpProxy>,
    mut downstream: Stream,
    info: Arc<ConnectionInfo>,
    handle: Rc<ConnectionHandle>,
) {
    proxy.stats.downstream_cx_total.inc();
    let deadline = proxy.max_connection_duration.map(|limit| Instant::now() + limit);
    let mut session = Session::new(worker, proxy, info);
    tokio::select! {
        biased;
        () = handle.killed() => {}
        () = run(&mut session, &mut downstream, deadline) => {}
    }
}

async fn run(session: &mut Session, downstream: &mut Stream, deadline: Option<Instant>) {
    // Boxed: connecting is short, and copying needs little.
    let Some(mut connected) = Box::pin(session.connect(deadline)).await else {
        return;
    };
    session.opened(&connected);
    let limits = CopyLimits { idle: session.proxy.idle_timeout, deadline };
    let end = copy_bidirectional(downstream, &mut connected.stream, &session.bytes, limits).await;
    session.ended(end, downstream, &connected.stream);
}

/// One connection's record. Dropped, at whatever end, it is counted and logged once.
struct Session {
    worker: Rc<Worker>,
    proxy: Arc<TcpProxy>,
    info: StreamInfo,
    bytes: ByteCounts,
    mesh: Option<MeshConnection>,
}

impl Session {
    fn new(worker: Rc<Worker>, proxy: Arc<TcpProxy>, info: Arc<ConnectionInfo>) -> Self {
        let info = StreamInfo::new(info, None);
        Self { worker, proxy, info, bytes: ByteCounts::default(), mesh: None }
    }

    /// Picks a cluster and connects to a host of it, at most `max_connect_attempts` times. `None`: the reason is recorded.
    async fn connect(&mut self, deadline: Option<Instant>) -> Option<Connected> {
        let Some(cluster) = self.proxy.clusters.pick(fastrand::u64(..)).get() else {
            self.proxy.stats.downstream_cx_no_route.inc();
            self.info.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        self.info.upstream_cluster = Some(cluster.clone());
        let attempts = self.proxy.max_connect_attempts.max(1);
        for attempt in 1..=attempts {
            let Some(host) = lb::pick(&cluster, self.info.connection.original_destination) else {
                self.info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
                return None;
            };
            self.info.attempt_count = attempt;
            self.info.upstream_host = Some(host.clone());
            let connecting = cluster::connect(&cluster, &host, false, false);
            let outcome = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline, connecting).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        self.too_long();
                        return None;
                    }
                },
                None => connecting.await,
            };
            match outcome {
                Ok(connected) => {
                    outlier::record(&cluster, &host, 200);
                    return Some(connected);
                }
                Err(ConnectError::Overflow) => {
                    // The connection went to no host.
                    self.info.upstream_host = None;
                    self.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                    return None;
                }
                Err(error) => {
                    // A host that cannot be connected to counts like one that answers 503.
                    outlier::record(&cluster, &host, 503);
                    self.info.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                    self.info.upstream_transport_failure = Some(match error {
                        ConnectError::Failed(reason) => reason,
                        _ => "connection timeout".into(),
                    });
                }
            }
        }
        self.info.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        None
    }

    fn opened(&mut self, connected: &Connected) {
        // Attempts that failed before no longer matter.
        self.info.flags = ResponseFlags::NONE;
        self.info.upstream_transport_failure = None;
        self.info.upstream_local_address = connected.local_address;
        self.info.upstream_tls = connected.tls.clone();
        if let Some(reporter) = self.proxy.reporter {
            let mesh = self.worker.shared.stats.mesh();
            self.mesh = Some(MeshConnection::open(mesh, reporter, &self.info));
        }
    }

    fn too_long(&mut self) {
        self.proxy.stats.max_downstream_connection_duration.inc();
        self.info.flags.insert(ResponseFlags::DURATION_TIMEOUT);
        self.info.connection_termination_details = Some(MAX_DURATION);
    }

    fn ended(&mut self, end: CopyEnd, downstream: &Stream, upstream: &Stream) {
        match end {
            CopyEnd::Finished => {}
            CopyEnd::Idle => self.proxy.stats.idle_timeout.inc(),
            CopyEnd::TooLong => self.too_long(),
            CopyEnd::Downstream(_) => upstream.reset_on_close(),
            CopyEnd::Upstream(error) => {
                self.info.flags.insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
                self.info.upstream_transport_failure = failure_reason(&error);
                downstream.reset_on_close();
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (received, sent) = (self.bytes.to_upstream.get(), self.bytes.to_downstream.get());
        self.info.bytes_received = received;
        self.info.bytes_sent = sent;
        self.info.duration = self.info.start.elapsed();
        self.proxy.stats.downstream_cx_rx_bytes_total.inc_by(received);
        self.proxy.stats.downstream_cx_tx_bytes_total.inc_by(sent);
        if let Some(cluster) = &self.info.upstream_cluster {
            cluster.stats.upstream_cx_rx_bytes_total.inc_by(sent);
            cluster.stats.upstream_cx_tx_bytes_total.inc_by(received);
        }
        if let Some(mesh) = &self.mesh {
            mesh.close(received, sent);
        }
        for log in &self.proxy.access_logs {
            log.log(&self.info, &self.worker.logs);
        }
    }
}
