//! The accept loop of one worker on one listening socket, and the life of a connection up to its network filter.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::tls_inspector::{self, ClientHello, InspectError};
use super::{ConnectionFacts, FilterChain, Listener, NetworkFilter};
use crate::config::live::Live;
use crate::net::{Address, ListenSocket, RawStream, Stream};
use crate::stats::ListenerStats;
use crate::stream_info::{ConnectionInfo, ResponseFlags, StreamInfo, details};
use crate::transport_socket::{DownstreamTransport, TlsInfo};
use crate::worker::{ConnectionHandle, Worker};
use crate::{http, tcp};

/// How long accepting pauses when the process is out of file descriptors, unless a connection ends sooner.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: ListenSocket) -> io::Result<Self> {
        match socket {
            ListenSocket::Tcp(s) => TcpListener::from_std(s).map(Acceptor::Tcp),
            ListenSocket::Unix(s) => UnixListener::from_std(s).map(Acceptor::Unix),
        }
    }

    /// The next connection and its peer.
    async fn accept(&self) -> io::Result<(RawStream, Address)> {
        match self {
            Acceptor::Tcp(s) => s.accept().await.map(|(stream, peer)| (RawStream::Tcp(stream), peer.into())),
            Acceptor::Unix(s) => {
                let (stream, peer) = s.accept().await?;
                let peer: std::os::unix::net::SocketAddr = peer.into();
                Ok((RawStream::Unix(stream), Address::from(&peer)))
            }
        }
    }
}

/// Accepts connections of `socket` until it is dropped, and serves each in a task of its own, which lives on after that. Each
/// connection gets the listener that is published when it comes; while there is none, connections are closed. Runs on the
/// worker's local runtime.
pub async fn accept_loop(worker: Rc<Worker>, live: Arc<Live<Listener>>, socket: ListenSocket) {
    let server = worker.shared.stats.server();
    let acceptor = match Acceptor::new(socket) {
        Ok(acceptor) => {
            server.listener_create_success.inc();
            acceptor
        }
        Err(error) => {
            server.listener_create_failure.inc();
            tracing::error!(target: "listener", "{}: cannot accept: {error}", live.name());
            return;
        }
    };
    let closed = Rc::new(Notify::new());
    loop {
        match acceptor.accept().await {
            Ok((raw, peer)) => {
                let Some(listener) = live.get() else { continue };
                let connection = Connection::new(worker.clone(), live.clone(), listener, closed.clone());
                tokio::task::spawn_local(connection.serve(raw, peer));
            }
            Err(error) if is_out_of_descriptors(&error) => {
                // The connection stays in the kernel's queue; those that are open are served on.
                server.connections_refused_fd_total.inc();
                tracing::warn!(target: "listener", "{}: accepting pauses: {error}", live.name());
                // Either way it is time to try again.
                let _ = timeout(OUT_OF_DESCRIPTORS_PAUSE, closed.notified()).await;
            }
            // The peer went away while it was in the queue, or its packet was broken: the socket is fine.
            Err(error) => {
                tracing::debug!(target: "listener", "{}: a connection was not accepted: {error}", live.name())
            }
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// A connection from accept until its end; dropped, it counts as destroyed, and as a fault of ours when a panic ended it.
struct Connection {
    worker: Rc<Worker>,
    live: Arc<Live<Listener>>,
    listener: Arc<Listener>,
    accepted_at: Instant,
    closed: Rc<Notify>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stats = &self.listener.stats;
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats.downstream_cx_length_ms.observe(self.accepted_at.elapsed().as_secs_f64() * 1e3);
        self.worker.shared.stats.server().total_connections.dec();
        self.worker.shared.count_panic();
        self.closed.notify_waiters();
    }
}

/// Why a connection is closed before its network filter sees it. The reason is counted already.
struct Refused;

impl Connection {
    fn new(
        worker: Rc<Worker>,
        live: Arc<Live<Listener>>,
        listener: Arc<Listener>,
        closed: Rc<Notify>,
    ) -> Self {
        listener.stats.downstream_cx_total.inc();
        listener.stats.downstream_cx_active.inc();
        worker.shared.stats.server().total_connections.inc();
        Self { worker, live, listener, accepted_at: Instant::now(), closed }
    }

    async fn serve(self, raw: RawStream, peer: Address) {
        let Ok(local) = raw.local_address() else { return };
        let Ok((raw, hello)) = self.listener_filters(raw).await else { return };
        let Some(chain) = self.find_chain(&local, &peer, hello.as_ref()) else {
            self.no_chain(local, peer, hello);
            return;
        };
        // No pause since the chain was found: a chain that goes from now on finds this connection registered and drains it.
        let handle = self.worker.connections.register(chain.id);
        let Ok((stream, tls)) = self.transport(&chain, raw, &handle).await else { return };
        let sniffed = hello.and_then(|h| h.sni);
        let info = Arc::new(ConnectionInfo {
            local_address: local,
            peer_address: peer,
            requested_server_name: sniffed.or_else(|| tls.as_ref().and_then(|tls| tls.sni.clone())),
            tls,
            connection_id: self.worker.shared.next_connection_id(),
        });
        let worker = self.worker.clone();
        match &chain.filter {
            NetworkFilter::Http(hcm) => {
                http::connection_manager::serve(worker, hcm.clone(), stream, info.clone(), handle).await;
            }
            NetworkFilter::Tcp(proxy) => {
                tcp::serve(worker, proxy.clone(), stream, info.clone(), handle).await;
            }
        }
        if !self.listener.access_logs.is_empty() {
            self.log(StreamInfo::new(info, None));
        }
    }

    /// The listener's own access log: one line for each connection, at its end.
    fn log(&self, mut info: StreamInfo) {
        info.duration = self.accepted_at.elapsed();
        for log in &self.listener.access_logs {
            log.log(&info, &self.worker.logs);
        }
    }

    /// Runs the listener filters within their deadline.
    async fn listener_filters(&self, raw: RawStream) -> Result<(RawStream, Option<ClientHello>), Refused> {
        if !self.listener.inspect_tls {
            return Ok((raw, None));
        }
        let stats = &self.listener.stats;
        let _waiting = Waiting::new(stats);
        let inspected = match self.listener.listener_filters_timeout {
            Some(limit) => timeout(limit, tls_inspector::inspect(&raw)).await.ok(),
            None => Some(tls_inspector::inspect(&raw).await),
        };
        match inspected {
            Some(Ok(hello)) => Ok((raw, hello)),
            Some(Err(error)) => {
                match error {
                    InspectError::Closed => stats.downstream_listener_filter_remote_close.inc(),
                    InspectError::TooLong | InspectError::Io(_) => {
                        stats.downstream_listener_filter_error.inc();
                    }
                }
                Err(Refused)
            }
            None => {
                stats.downstream_pre_cx_timeout.inc();
                match self.listener.continue_on_timeout {
                    true => raw.rearm().map(|raw| (raw, None)).map_err(|_| Refused),
                    false => Err(Refused),
                }
            }
        }
    }

    fn find_chain(
        &self,
        local: &Address,
        peer: &Address,
        hello: Option<&ClientHello>,
    ) -> Option<Arc<FilterChain>> {
        let facts = ConnectionFacts {
            local,
            direct_peer: peer,
            peer,
            server_name: hello.and_then(|h| h.sni.as_deref()).unwrap_or(""),
            transport_protocol: if hello.is_some() { "tls" } else { "raw_buffer" },
            application_protocols: hello.map_or(&[], |h| &h.alpn),
        };
        // The newest listener: the one of the accept may have gone while the first bytes were waited for.
        let newest = self.live.peek();
        newest.as_deref().unwrap_or(&self.listener).filter_chains.find(&facts).cloned()
    }

    fn no_chain(&self, local_address: Address, peer_address: Address, hello: Option<ClientHello>) {
        self.listener.stats.no_filter_chain_match.inc();
        let connection = ConnectionInfo {
            local_address,
            peer_address,
            requested_server_name: hello.and_then(|h| h.sni),
            tls: None,
            connection_id: self.worker.shared.next_connection_id(),
        };
        let mut info = StreamInfo::new(Arc::new(connection), None);
        info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
        info.response_code_details = details::FILTER_CHAIN_NOT_FOUND;
        self.log(info);
    }

    /// Runs the transport socket's handshake within the chain's deadline.
    async fn transport(
        &self,
        chain: &FilterChain,
        raw: RawStream,
        handle: &ConnectionHandle,
    ) -> Result<(Stream, Option<TlsInfo>), Refused> {
        let tls = match &chain.transport {
            DownstreamTransport::Plaintext => return Ok((raw.into(), None)),
            DownstreamTransport::Tls(tls) => tls,
        };
        let stats = &self.listener.stats;
        let handshake = tls.accept(raw, &stats.ssl);
        let in_time = async {
            match chain.handshake_timeout {
                Some(limit) => timeout(limit, handshake).await.map_err(|_| {
                    stats.downstream_cx_transport_socket_connect_timeout.inc();
                    Refused
                }),
                None => Ok(handshake.await),
            }
        };
        let outcome = tokio::select! {
            outcome = in_time => outcome?,
            // A client that never finishes its handshake must not hold up the end of a drain.
            () = handle.closing() => return Err(Refused),
        };
        match outcome {
            Ok((stream, info)) => Ok((stream, Some(info))),
            Err(error) => {
                tracing::debug!(target: "connection", "{}: handshake failed: {error}", self.listener.name);
                Err(Refused)
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
