//! One worker: a thread with its own local runtime, listening sockets, connection pools, timers and log buffers. A request stays
//! on the worker that accepted it; nothing here is shared with another worker but what sits behind an `Arc`.

mod connection_record;
mod connections;
mod timers;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, spawn_local};

pub use self::connection_record::ConnectionRecord;
pub use self::connections::{ConnectionHandle, ConnectionLimits, Connections, PeerExpiry};
pub use self::timers::{Timer, Timers};
use crate::access_log::LogBuffers;
use crate::config::live::Live;
use crate::http::Pools;
use crate::listener::{self, Listener, ListenersByAddress};
use crate::net::ListenSocket;
use crate::overload::{Overload, OverloadSettings};
use crate::stats::Stats;

/// What all workers and main share.
#[derive(Debug)]
pub struct Shared {
    /// All statistics of the process.
    pub stats: Arc<Stats>,
    /// The process is on its way out: no keep-alive any more.
    pub draining: AtomicBool,
    /// What is shed under pressure.
    pub overload: Arc<Overload>,
    /// `/healthcheck/fail` was asked for: health checks fail, and each connection ends with its next response.
    pub health_check_failed: AtomicBool,
    connection_ids: AtomicU64,
}

impl Shared {
    /// Shared state of a process that begins.
    pub fn new(stats: Arc<Stats>) -> Arc<Self> {
        Self::with_overload(Arc::new(Overload::new(&OverloadSettings::default(), stats.clone())), stats)
    }

    /// The same where load may be shed.
    pub fn with_overload(overload: Arc<Overload>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self {
            stats,
            overload,
            draining: AtomicBool::new(false),
            health_check_failed: AtomicBool::new(false),
            connection_ids: AtomicU64::new(1),
        })
    }

    /// To be called where a connection or a stream is dropped: counts it when a panic is what drops it. The panic ends that task
    /// alone.
    pub fn count_panic(&self) {
        if thread::panicking() {
            self.stats.server().connection_panics_total.inc();
        }
    }

    /// A number for a new downstream connection.
    pub fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// What main tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept connections for this listener on these sockets and no longer on the ones that it had.
    Listen {
        /// Read at each accept, so a new version needs no command.
        listener: Arc<Live<Listener>>,
        /// Its IP addresses, bound or not.
        addresses: Vec<SocketAddr>,
        /// This worker's sockets, one per address; none for a listener that is not bound.
        sockets: Vec<ListenSocket>,
    },
    /// Stop accepting for the listener of this name. Its connections live on.
    StopListening {
        /// `Listener.name`.
        name: Arc<str>,
    },
    /// Connections of these filter chains end at their next request boundary.
    DrainChains {
        /// `FilterChain.id`s.
        gone: Vec<u64>,
    },
    /// All connections end at their next request boundary; idle ones soon.
    Drain,
    /// Close what is left and end the thread.
    Exit,
}

/// Main's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    commands: UnboundedSender<Command>,
    active: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl WorkerHandle {
    /// Tells the worker something. A worker that has ended ignores it.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Downstream connections that are open now.
    pub fn active_connections(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Ends the worker and waits for its thread.
    pub fn join(self) {
        self.send(Command::Exit);
        // A worker that panicked has said so already.
        let _ = self.thread.join();
    }
}

/// Starts a worker thread.
///
/// # Errors
/// The thread could not be made.
pub fn spawn(index: usize, shared: Arc<Shared>) -> io::Result<WorkerHandle> {
    let (commands, received) = unbounded_channel();
    let active = Arc::new(AtomicUsize::new(0));
    let counted = active.clone();
    let thread = thread::Builder::new().name(format!("worker_{index}")).spawn(move || {
        // Built on the thread that it belongs to; that it can be built was tried above.
        let Ok(runtime) =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())
        else {
            return;
        };
        runtime.block_on(Worker::run(index, shared, received, counted));
    })?;
    Ok(WorkerHandle { commands, active, thread })
}

/// State of one worker; everything on its thread shares it.
#[derive(Debug)]
pub struct Worker {
    /// 0-based.
    pub index: usize,
    /// What is shared with main.
    pub shared: Arc<Shared>,
    /// Upstream HTTP connections.
    pub pools: Pools,
    /// Downstream connections.
    pub connections: Connections,
    /// Listeners that connections are handed to by their original destination.
    pub listeners: ListenersByAddress,
    /// Access log lines on their way to the writers.
    pub logs: LogBuffers,
    /// Request timers.
    pub timers: Timers,
}

impl Worker {
    async fn run(
        index: usize,
        shared: Arc<Shared>,
        mut commands: UnboundedReceiver<Command>,
        active: Arc<AtomicUsize>,
    ) {
        let worker = Rc::new(Worker {
            index,
            shared,
            pools: Pools::default(),
            connections: Connections::counted(active),
            listeners: ListenersByAddress::default(),
            logs: LogBuffers::new(),
            timers: Timers::default(),
        });
        let mut listening: FxHashMap<Arc<str>, Listening> = FxHashMap::default();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Listen { listener, addresses, sockets }) => {
                        let name = listener.name().clone();
                        if let Some(before) = listening.remove(&name) {
                            before.stop(&worker, &name);
                        }
                        listening.insert(name, Listening::start(&worker, listener, addresses, sockets));
                    }
                    Some(Command::StopListening { name }) => {
                        if let Some(before) = listening.remove(&name) {
                            before.stop(&worker, &name);
                        }
                    }
                    Some(Command::DrainChains { gone }) => worker.connections.drain(|c| gone.contains(&c.chain_id)),
                    Some(Command::Drain) => worker.connections.drain(|_| true),
                    Some(Command::Exit) | None => break,
                },
                _ = tick.tick() => worker.tick(),
            }
        }
        listening.into_iter().for_each(|(name, listening)| listening.stop(&worker, &name));
        worker.connections.kill();
        // One turn of the runtime, so that connections see it and write their log lines.
        tokio::task::yield_now().await;
        worker.logs.flush();
    }

    fn tick(&self) {
        let now = Instant::now();
        self.logs.flush();
        self.pools.sweep(now);
        self.connections.sweep(now, &self.shared.overload.timeouts());
    }
}

/// A listener of this worker.
struct Listening {
    accepting: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl Listening {
    fn start(
        worker: &Rc<Worker>,
        listener: Arc<Live<Listener>>,
        addresses: Vec<SocketAddr>,
        sockets: Vec<ListenSocket>,
    ) -> Self {
        for address in &addresses {
            worker.listeners.insert(*address, listener.clone());
        }
        let accept = |socket| spawn_local(listener::accept_loop(worker.clone(), listener.clone(), socket));
        Self { accepting: sockets.into_iter().map(accept).collect(), addresses }
    }

    fn stop(self, worker: &Worker, name: &str) {
        self.accepting.into_iter().for_each(|accept| accept.abort());
        for address in self.addresses {
            worker.listeners.remove(address, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_where_it_drops_something() {
        struct Counted(Arc<Shared>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.count_panic();
            }
        }
        let shared = Shared::new(Stats::new());
        drop(Counted(shared.clone()));
        assert_eq!(shared.stats.server().connection_panics_total.get(), 0);
        let counted = Counted(shared.clone());
        // `resume_unwind` panics without a message on standard error.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _counted = counted;
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert_eq!(shared.stats.server().connection_panics_total.get(), 1);
    }
}
