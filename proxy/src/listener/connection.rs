//! The life of a connection up to its network filter: listener filters → the listener of its original destination → filter
//! chain → transport socket. Runs on the worker that accepted it, to its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::listener_filter::Inspected;
use super::{FilterChain, InspectError, Listener, NetworkFilter};
use crate::config::live::Live;
use crate::net::{Address, RawStream, Stream};
use crate::overload::Place;
use crate::stats::ListenerStats;
use crate::stream_info::{
    AccessLogType, CloseType, ConnectionEnds, ConnectionInfo, LogDetails, ResponseFlags, StreamInfo,
    close_reasons, details,
};
use crate::transport_socket::{DownstreamTransport, TlsInfo};
use crate::worker::{ConnectionHandle, ConnectionRecord, PeerExpiry, Worker};
use crate::{http, tcp};

/// A connection from accept until its end; dropped, it counts as destroyed, and as a fault of ours when a panic ended it.
pub(super) struct Connection {
    worker: Rc<Worker>,
    live: Arc<Live<Listener>>,
    listener: Arc<Listener>,
    accepted_at: Instant,
    /// A filter chain took it: from then on it counts as a connection of the listener.
    is_open: bool,
    closed: Rc<Notify>,
    /// Where the number of connections is limited.
    _place: Option<Place>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_open {
            let stats = &self.listener.stats;
            stats.downstream_cx_active.dec();
            stats.downstream_cx_destroy.inc();
            stats.downstream_cx_length_ms.observe(self.accepted_at.elapsed().as_secs_f64() * 1e3);
        }
        self.worker.shared.stats.server().total_connections.dec();
        self.worker.shared.count_panic();
        self.closed.notify_waiters();
    }
}

/// Why a connection is closed before its network filter sees it. The reason is counted already.
struct Refused;

/// Why there is no transport. It is counted already.
enum FailedHandshake {
    Failed(Arc<str>),
    TooLong,
    /// The connection was drained meanwhile.
    Closing,
}

impl Connection {
    pub(super) fn new(
        worker: Rc<Worker>,
        live: Arc<Live<Listener>>,
        listener: Arc<Listener>,
        closed: Rc<Notify>,
        place: Option<Place>,
    ) -> Self {
        worker.shared.stats.server().total_connections.inc();
        Self { worker, live, listener, accepted_at: Instant::now(), is_open: false, closed, _place: place }
    }

    pub(super) async fn serve(mut self, raw: RawStream, peer: Address) {
        let Ok(local) = raw.local_address() else { return };
        let mut inspected = Inspected::new(local);
        let Ok(mut raw) = self.inspect(raw, &mut inspected).await else { return };
        if self.listener.hands_over && self.hand_over(&inspected) {
            // The other listener has filters of its own; it hands nothing on.
            match self.inspect(raw, &mut inspected).await {
                Ok(inspected) => raw = inspected,
                Err(Refused) => return,
            }
        }
        let Some(chain) = self.find_chain(&inspected, &peer) else {
            self.no_chain(inspected, peer);
            return;
        };
        self.open();
        // No pause since the chain was found: a chain that goes from now on finds this connection registered and drains it.
        let handle = self.worker.connections.register(chain.id);
        if self.listener.bypasses_overload {
            handle.spare();
        }
        let (stream, tls) = match self.transport(&chain, raw, &handle).await {
            Ok(established) => established,
            Err(failed) => {
                self.log_failed_handshake(self.info(inspected, peer, None, chain.name.clone()), failed);
                return;
            }
        };
        if let (Some(grace), Some(tls)) = (chain.peer_certificate_grace, &tls) {
            self.expire_with_peer(&handle, tls, grace);
        }
        let info = Arc::new(self.info(inspected, peer, tls, chain.name.clone()));
        let worker = self.worker.clone();
        match &chain.filter {
            NetworkFilter::Http(live) => {
                let record = handle.clone();
                http::connection_manager::serve(worker, live.clone(), stream, info.clone(), handle).await;
                self.log_http(info, &record.record);
            }
            NetworkFilter::Tcp(proxy) => {
                let logs = &self.listener.access_logs;
                tcp::serve(worker, proxy.load_full(), stream, info, handle, logs).await;
            }
        }
    }

    /// The connection ends with its peer's certificate.
    fn expire_with_peer(&self, handle: &ConnectionHandle, tls: &TlsInfo, grace: Duration) {
        let now = std::time::Instant::now();
        // Later than any clock reaches is never.
        let expires = tls.peer_expires_in().and_then(|left| now.checked_add(left));
        if let Some((expires, closes)) = expires.and_then(|at| Some((at, at.checked_add(grace)?))) {
            handle.expire(PeerExpiry { expires, closes, stats: self.worker.shared.stats.clone() });
        }
    }

    /// A filter chain takes the connection.
    fn open(&mut self) {
        self.is_open = true;
        self.listener.stats.downstream_cx_total.inc();
        self.listener.stats.downstream_cx_active.inc();
    }

    /// Makes the listener of the restored destination the connection's own. `false`: there is none, or it is this one.
    fn hand_over(&mut self, inspected: &Inspected) -> bool {
        let found = inspected.original_destination.and_then(|to| self.worker.listeners.find(to));
        match found {
            Some((live, listener)) if !Arc::ptr_eq(&live, &self.live) => {
                (self.live, self.listener) = (live, listener);
                true
            }
            _ => false,
        }
    }

    fn info(
        &self,
        inspected: Inspected,
        peer_address: Address,
        tls: Option<TlsInfo>,
        filter_chain: Arc<str>,
    ) -> ConnectionInfo {
        let sniffed = inspected.server_name;
        let secured = tls.as_ref().map(|_| std::time::Instant::now());
        ConnectionInfo {
            local_address: inspected.local,
            direct_local_address: inspected.direct_local,
            original_destination: inspected.original_destination,
            peer_address,
            requested_server_name: sniffed.or_else(|| tls.as_ref().and_then(|tls| tls.sni.clone())),
            tls,
            connection_id: self.worker.shared.next_connection_id(),
            filter_chain,
            opened: self.accepted_at.into_std(),
            secured,
            fingerprints: inspected.fingerprints,
        }
    }

    /// The listener's line of a connection that was HTTP.
    fn log_http(&self, info: Arc<ConnectionInfo>, record: &ConnectionRecord) {
        if self.listener.access_logs.logs.is_empty() {
            return;
        }
        let mut info = StreamInfo::new(info, record.version.get());
        info.bytes_received = record.received.get();
        info.bytes_sent = record.sent.get();
        if record.has_protocol_error.get() {
            info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        }
        if record.was_shed.get() {
            info.flags.insert(ResponseFlags::OVERLOAD_MANAGER);
        }
        let downstream = if record.was_reset.get() { CloseType::RemoteReset } else { CloseType::Normal };
        self.log(
            info,
            ConnectionEnds { downstream, local_reason: record.close_reason(), ..ConnectionEnds::default() },
        );
    }

    fn log_failed_handshake(&self, info: ConnectionInfo, failed: FailedHandshake) {
        let mut ends = ConnectionEnds::default();
        match failed {
            FailedHandshake::Failed(reason) => ends.transport_failure = Some(reason),
            FailedHandshake::TooLong => ends.local_reason = Some(close_reasons::HANDSHAKE_TIMEOUT),
            FailedHandshake::Closing => {}
        }
        self.log(StreamInfo::new(Arc::new(info), None), ends);
    }

    /// The listener's own access log: one line for each connection, at its end.
    fn log(&self, mut info: StreamInfo, ends: ConnectionEnds) {
        info.duration = self.accepted_at.elapsed();
        info.start = self.accepted_at.into_std();
        info.start_time = SystemTime::now() - info.duration;
        if self.listener.access_logs.captures.details {
            info.log_details = Some(Box::new(LogDetails { ends, ..LogDetails::default() }));
        }
        self.listener.access_logs.log(&info, AccessLogType::NotSet, &self.worker.logs);
    }

    /// Runs the listener filters within their deadline.
    async fn inspect(&self, raw: RawStream, inspected: &mut Inspected) -> Result<RawStream, Refused> {
        if self.listener.filters.is_empty() {
            return Ok(raw);
        }
        let stats = &self.listener.stats;
        let _waiting = Waiting::new(stats);
        let filters = inspected.run(&self.listener.filters, &raw, self.worker.shared.stats.server());
        let outcome = match self.listener.listener_filters_timeout {
            Some(limit) => timeout(limit, filters).await.ok(),
            None => Some(filters.await),
        };
        match outcome {
            Some(Ok(())) => Ok(raw),
            Some(Err(error)) => {
                match error {
                    InspectError::Closed | InspectError::Ended => {
                        stats.downstream_listener_filter_remote_close.inc();
                    }
                    InspectError::TooLong | InspectError::Io(_) => {
                        stats.downstream_listener_filter_error.inc();
                    }
                }
                Err(Refused)
            }
            None => {
                stats.downstream_pre_cx_timeout.inc();
                match self.listener.continue_on_timeout {
                    true => raw.rearm().map_err(|_| Refused),
                    false => Err(Refused),
                }
            }
        }
    }

    fn find_chain(&self, inspected: &Inspected, peer: &Address) -> Option<Arc<FilterChain>> {
        // The newest listener: the one of the accept may have gone while the first bytes were waited for.
        let newest = self.live.peek();
        newest.as_deref().unwrap_or(&self.listener).filter_chains.find(&inspected.facts(peer)).cloned()
    }

    fn no_chain(&self, inspected: Inspected, peer: Address) {
        self.listener.stats.no_filter_chain_match.inc();
        let mut info = StreamInfo::new(Arc::new(self.info(inspected, peer, None, "".into())), None);
        info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
        info.response_code_details = details::FILTER_CHAIN_NOT_FOUND;
        self.log(info, ConnectionEnds::default());
    }

    /// Runs the transport socket's handshake within the chain's deadline.
    async fn transport(
        &self,
        chain: &FilterChain,
        raw: RawStream,
        handle: &ConnectionHandle,
    ) -> Result<(Stream, Option<TlsInfo>), FailedHandshake> {
        let tls = match &chain.transport {
            DownstreamTransport::Plaintext => return Ok((raw.into(), None)),
            DownstreamTransport::Tls(tls) => tls,
        };
        let stats = &self.listener.stats;
        let handshake = tls.accept(raw, &stats.ssl);
        let in_time = async {
            match chain.handshake_timeout {
                Some(limit) => timeout(self.worker.shared.overload.timeouts().handshake(limit), handshake)
                    .await
                    .map_err(|_| {
                        stats.downstream_cx_transport_socket_connect_timeout.inc();
                        FailedHandshake::TooLong
                    }),
                None => Ok(handshake.await),
            }
        };
        let outcome = tokio::select! {
            outcome = in_time => outcome?,
            // A client that never finishes its handshake must not hold up the end of a drain.
            () = handle.closing() => return Err(FailedHandshake::Closing),
        };
        match outcome {
            Ok((stream, info)) => Ok((stream, Some(info))),
            Err(error) => {
                tracing::debug!(target: "connection", "{}: handshake failed: {error}", self.listener.name);
                Err(FailedHandshake::Failed(error.reason))
            }
        }
    }
}

/// A socket in its listener filters.
struct Waiting<'a>(&'a ListenerStats);

impl<'a> Waiting<'a> {
    fn new(stats: &'a ListenerStats) -> Self {
        stats.downstream_pre_cx_active.inc();
        Self(stats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.downstream_pre_cx_active.dec();
    }
}
