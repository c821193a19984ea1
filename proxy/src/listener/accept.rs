//! The accept loop of one worker on one listening socket.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::Listener;
use super::connection::Connection;
use crate::config::live::Live;
use crate::net::{Address, ListenSocket, RawStream};
use crate::overload::{Overload, Place};
use crate::stats::{LoadShedPoint, OverloadAction};
use crate::worker::Worker;

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
    let mut accepts = worker.shared.overload.accepts();
    loop {
        match next(&acceptor, &mut accepts, &live).await {
            Ok((raw, peer)) => {
                let Some(listener) = live.get() else { continue };
                let Ok(place) = admit(&worker.shared.overload, &listener) else { continue };
                let connection =
                    Connection::new(worker.clone(), live.clone(), listener, closed.clone(), place);
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

/// The next connection, while connections are accepted at all: until then they wait in the kernel's queue.
async fn next(
    acceptor: &Acceptor,
    accepts: &mut Option<watch::Receiver<bool>>,
    live: &Live<Listener>,
) -> io::Result<(RawStream, Address)> {
    let Some(accepts) = accepts else { return acceptor.accept().await };
    loop {
        let is_spared = live.peek().as_ref().is_some_and(|listener| listener.bypasses_overload);
        let stops = !*accepts.borrow_and_update() && !is_spared;
        tokio::select! {
            accepted = acceptor.accept(), if !stops => return accepted,
            // The other end lives as long as the worker.
            _ = accepts.changed() => {}
        }
    }
}

/// The connection is closed as soon as it is there. That is counted already.
struct Rejected;

/// Whether a connection may stay, and its place where there is a limit.
fn admit(overload: &Overload, listener: &Listener) -> Result<Option<Place>, Rejected> {
    let place = match overload.limit() {
        None => None,
        Some(limit) if listener.ignores_connection_limit || listener.bypasses_overload => {
            Some(limit.take_anyway())
        }
        Some(limit) => match limit.take() {
            Some(place) => Some(place),
            None => {
                listener.stats.downstream_global_cx_overflow.inc();
                overload.count_refused();
                return Err(Rejected);
            }
        },
    };
    if let Some(pressed) = overload.pressed().filter(|_| !listener.bypasses_overload)
        && (pressed.sheds(LoadShedPoint::TcpListenerAccept)
            || pressed.does(OverloadAction::RejectIncomingConnections))
    {
        listener.stats.downstream_cx_overload_reject.inc();
        return Err(Rejected);
    }
    Ok(place)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
