//! `tcp_proxy`: one downstream connection, one upstream connection, bytes between them.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::TcpProxy;
use super::copy::{ByteCounts, CopyEnd, CopyLimits, copy_bidirectional};
use super::mesh_metrics::MeshConnection;
use crate::access_log::AccessLogs;
use crate::cluster::outlier::{self, Outcome};
use crate::cluster::{self, Cluster, ConnectError, Connected, lb};
use crate::net::Stream;
use crate::route::hash_address;
use crate::stream_info::{
    AccessLogType, CloseType, ConnectionEnds, ConnectionInfo, LogDetails, ResponseFlags, StreamInfo,
    close_reasons, new_uuid,
};
use crate::transport_socket::failure_reason;
use crate::worker::{ConnectionHandle, Worker};

/// Serves one connection until both sides have ended, or an error, a timeout or the end of the worker. `listener_logs` get the same
/// line as the proxy's own: below HTTP a connection is the one stream on it.
pub async fn serve(
    worker: Rc<Worker>,
    proxy: Arc<TcpProxy>,
    mut downstream: Stream,
    info: Arc<ConnectionInfo>,
    handle: Rc<ConnectionHandle>,
    listener_logs: &AccessLogs,
) {
    proxy.stats.downstream_cx_total.inc();
    let deadline = proxy.max_connection_duration.map(|limit| Instant::now() + limit);
    let mut session = Session::new(worker, proxy, info, listener_logs);
    if session.proxy.log_on_start {
        session.log(AccessLogType::TcpConnectionStart);
    }
    tokio::select! {
        biased;
        () = handle.killed() => {}
        () = run(&mut session, &mut downstream, deadline) => {}
    }
}

async fn run(session: &mut Session<'_>, downstream: &mut Stream, deadline: Option<Instant>) {
    // Boxed: connecting is short, and copying needs little.
    let Some(mut connected) = Box::pin(session.connect(deadline)).await else {
        return;
    };
    session.opened(&connected);
    let expiry = connected.expiry.map(|expiry| Instant::from_std(expiry.closes));
    let deadline = deadline.into_iter().chain(expiry).min();
    let limits = CopyLimits { idle: session.proxy.idle_timeout, deadline };
    let report = || session.report();
    let copying = copy_bidirectional(downstream, &mut connected.stream, &session.bytes, limits, report);
    let end = match session.proxy.log_interval {
        None => copying.await,
        // On the heap, so that connections without it do not carry its state.
        Some(every) => Box::pin(session.log_every(every, copying)).await,
    };
    session.ended(end, downstream, &connected.stream);
}

/// One connection's record. Dropped, at whatever end, it is counted and logged once.
struct Session<'a> {
    worker: Rc<Worker>,
    proxy: Arc<TcpProxy>,
    listener_logs: &'a AccessLogs,
    info: StreamInfo,
    bytes: ByteCounts,
    /// Those that statistics know of.
    reported: ByteCounts,
    mesh: Option<MeshConnection>,
}

impl<'a> Session<'a> {
    fn new(
        worker: Rc<Worker>,
        proxy: Arc<TcpProxy>,
        info: Arc<ConnectionInfo>,
        listener_logs: &'a AccessLogs,
    ) -> Self {
        let mut info = StreamInfo::new(info, None);
        if proxy.access_logs.captures.details || listener_logs.captures.details {
            let stream_id = HeaderValue::from_bytes(&new_uuid()).ok();
            let ends = ConnectionEnds { upstream: Some(CloseType::Normal), ..ConnectionEnds::default() };
            info.log_details = Some(Box::new(LogDetails { stream_id, ends, ..LogDetails::default() }));
        }
        Self {
            worker,
            proxy,
            listener_logs,
            info,
            bytes: ByteCounts::default(),
            reported: ByteCounts::default(),
            mesh: None,
        }
    }

    /// Picks a cluster and connects to a host of it, at most `max_connect_attempts` times. `None`: the reason is recorded.
    async fn connect(&mut self, deadline: Option<Instant>) -> Option<Connected> {
        let proxy = self.proxy.clone();
        let drawn = proxy.clusters.draw(fastrand::u64(..));
        let Some(cluster) = proxy.clusters.cluster(drawn).and_then(|cluster| cluster.get()) else {
            self.proxy.stats.downstream_cx_no_route.inc();
            self.refuse(ResponseFlags::NO_CLUSTER_FOUND, close_reasons::TCP_NO_CLUSTER);
            return None;
        };
        self.info.upstream_cluster = Some(cluster.clone());
        let attempts = self.proxy.max_connect_attempts.max(1);
        let own = proxy.clusters.weighted(drawn).and_then(|weighted| weighted.criteria.as_deref());
        let criteria = own.or(proxy.criteria.as_deref());
        let context = lb::Context { criteria, ..self.context(&cluster) };
        for attempt in 1..=attempts {
            let probe = if attempt == 1 { outlier::probe(&cluster, criteria) } else { None };
            let picked = match &probe {
                Some(probe) => Some(probe.host().clone()),
                None => lb::pick(&cluster, context),
            };
            let Some(host) = picked else {
                self.refuse(ResponseFlags::NO_HEALTHY_UPSTREAM, close_reasons::TCP_NO_HOST);
                return None;
            };
            self.info.attempt_count = attempt;
            self.info.upstream_host = Some(host.clone());
            let asked = std::time::Instant::now();
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
                    if let Some(details) = &mut self.info.log_details {
                        details.hosts_attempted.push(host.clone());
                        details.connect = Some(connected.times);
                        details.connections_attempted.push(connected.id);
                        details.pool_ready = Some(asked.elapsed());
                    }
                    if let Some(probe) = probe {
                        probe.ended(Outcome::Answered(200));
                    }
                    outlier::connected_for_good(&cluster, &host);
                    return Some(connected);
                }
                Err(ConnectError::Overflow) => {
                    // The connection went to no host.
                    self.info.upstream_host = None;
                    self.refuse(ResponseFlags::UPSTREAM_OVERFLOW, close_reasons::TCP_OVERFLOW);
                    return None;
                }
                Err(error) => {
                    // A host that cannot be connected to counts like one that answers 503.
                    if let Some(probe) = probe {
                        probe.ended(Outcome::Failed(503));
                    }
                    outlier::record(&cluster, &host, Outcome::Failed(503));
                    self.info.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                    self.info.upstream_transport_failure = Some(match error {
                        ConnectError::Failed(reason) => reason,
                        _ => "connection timeout".into(),
                    });
                }
            }
        }
        self.refuse(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED, close_reasons::TCP_NOT_CONNECTED);
        None
    }

    /// What the pick of a host may depend on.
    fn context(&self, cluster: &Cluster) -> lb::Context<'static> {
        let connection = &self.info.connection;
        let hashed = self.proxy.hashes_source_ip && cluster.lb.hashing().is_some();
        lb::Context {
            now: None,
            original_destination: connection.original_destination,
            hash: connection.peer_address.ip().filter(|_| hashed).map(hash_address),
            redraw: 0,
            excluded_priorities: &[],
            criteria: None,
        }
    }

    fn opened(&mut self, connected: &Connected) {
        // Attempts that failed before no longer matter.
        self.info.flags = ResponseFlags::NONE;
        self.info.upstream_transport_failure = None;
        self.info.upstream_local_address = connected.local_address;
        self.info.upstream_tls = connected.tls.clone();
        self.open_mesh();
        if self.proxy.log_on_connected {
            self.log(AccessLogType::TcpUpstreamConnected);
        }
    }

    fn open_mesh(&mut self) {
        if let Some(reporter) = self.proxy.reporter {
            let mesh = self.worker.shared.stats.mesh();
            self.mesh = Some(MeshConnection::open(mesh, reporter, &self.info));
        }
    }

    /// Writes the proxy's own lines of this kind, with what is known now.
    fn log(&mut self, log_type: AccessLogType) {
        self.info.bytes_received = self.bytes.to_upstream.get();
        self.info.bytes_sent = self.bytes.to_downstream.get();
        self.info.duration = self.info.start.elapsed();
        self.proxy.access_logs.log(&self.info, log_type, &self.worker.logs);
    }

    /// Writes lines from time to time until `copying` is done.
    async fn log_every(&self, every: Duration, copying: impl Future<Output = CopyEnd>) -> CopyEnd {
        let mut copying = std::pin::pin!(copying);
        loop {
            match tokio::time::timeout(every, &mut copying).await {
                Ok(end) => return end,
                Err(_) => {
                    let mut info = self.info.clone();
                    self.note_progress(&mut info);
                    self.proxy.access_logs.log(&info, AccessLogType::TcpPeriodic, &self.worker.logs);
                }
            }
        }
    }

    /// How far the connection has come.
    fn note_progress(&self, info: &mut StreamInfo) {
        info.bytes_received = self.bytes.to_upstream.get();
        info.bytes_sent = self.bytes.to_downstream.get();
        info.duration = info.start.elapsed();
    }

    /// Counts the bytes since the last report.
    fn report(&self) {
        let (bytes, reported) = (&self.bytes, &self.reported);
        let received = bytes.to_upstream.get() - reported.to_upstream.replace(bytes.to_upstream.get());
        let sent = bytes.to_downstream.get() - reported.to_downstream.replace(bytes.to_downstream.get());
        self.proxy.stats.downstream_cx_rx_bytes_total.inc_by(received);
        self.proxy.stats.downstream_cx_tx_bytes_total.inc_by(sent);
        if let Some(cluster) = &self.info.upstream_cluster {
            cluster.stats.upstream_cx_rx_bytes_total.inc_by(sent);
            cluster.stats.upstream_cx_tx_bytes_total.inc_by(received);
        }
        if let Some(mesh) = &self.mesh {
            mesh.report(received, sent);
        }
    }

    fn too_long(&mut self) {
        self.proxy.stats.max_downstream_connection_duration.inc();
        self.info.flags.insert(ResponseFlags::DURATION_TIMEOUT);
        let is_connected = self.info.upstream_local_address.is_some();
        self.note_ends(|ends| {
            ends.local_reason = Some(close_reasons::TCP_MAX_DURATION);
            ends.upstream_local_reason = ends.local_reason.filter(|_| is_connected);
        });
    }

    /// Keeps how the connections end, where a log prints it.
    fn note_ends(&mut self, note: impl FnOnce(&mut ConnectionEnds)) {
        if let Some(details) = &mut self.info.log_details {
            note(&mut details.ends);
        }
    }

    /// The client's connection is closed without one to an upstream.
    fn refuse(&mut self, flag: ResponseFlags, why: &'static str) {
        self.info.flags.insert(flag);
        self.note_ends(|ends| ends.local_reason = Some(why));
    }

    fn ended(&mut self, end: CopyEnd, downstream: &Stream, upstream: &Stream) {
        match end {
            CopyEnd::Finished => {}
            CopyEnd::Idle => {
                self.proxy.stats.idle_timeout.inc();
                self.note_ends(|ends| {
                    ends.local_reason = Some(close_reasons::TCP_IDLE);
                    ends.upstream_local_reason = ends.local_reason;
                });
            }
            CopyEnd::TooLong => self.too_long(),
            CopyEnd::Downstream(error) => {
                self.note_ends(|ends| ends.downstream = CloseType::of(&error));
                upstream.reset_on_close();
            }
            CopyEnd::Upstream(error) => {
                self.note_ends(|ends| {
                    ends.downstream = CloseType::LocalReset;
                    ends.upstream = Some(CloseType::of(&error));
                });
                self.info.flags.insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
                self.info.upstream_transport_failure = failure_reason(&error);
                downstream.reset_on_close();
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.mesh.is_none() {
            // It never got upstream: opened and closed in the series of its flags.
            self.open_mesh();
        }
        self.report();
        if let Some(mesh) = &self.mesh {
            mesh.close();
        }
        self.log(AccessLogType::TcpConnectionEnd);
        self.listener_logs.log(&self.info, AccessLogType::NotSet, &self.worker.logs);
    }
}
