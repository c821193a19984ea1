//! The load: `web` calls `reviews` through its own sidecar, without a pause, and writes down every answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::task::JoinHandle;

use super::http::Connection;
use super::objects::{APP_PORT, PODS};

/// Callers that keep a request in flight each; only the first runs while an instance fails.
pub(super) const CALLERS: usize = 4;

/// The running load.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    running: AtomicBool,
    /// Callers beyond this number rest.
    active: AtomicUsize,
    /// Callers that do not rest.
    in_flight: AtomicUsize,
    counts: Mutex<Counts>,
    total: AtomicU64,
}

/// What the callers saw.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    /// All requests.
    pub(super) requests: u64,
    /// Answers that are not 200, by status; 0 = no answer.
    pub(super) failures: BTreeMap<u16, u64>,
    /// 200s by pod.
    pub(super) by_pod: BTreeMap<&'static str, u64>,
    /// Client connections that were closed under a caller.
    pub(super) closed: u64,
}

impl Counts {
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Adds an answer.
    pub(super) fn see(&mut self, status: StatusCode, body: &[u8]) {
        self.requests += 1;
        if status.is_success() {
            let pod = PODS.iter().find(|p| body.starts_with(p.name.as_bytes())).map_or("?", |p| p.name);
            *self.by_pod.entry(pod).or_default() += 1;
        } else {
            *self.failures.entry(status.as_u16()).or_default() += 1;
        }
    }

    /// Adds what was seen afterwards.
    pub(super) fn add(&mut self, later: Counts) {
        self.requests += later.requests;
        self.closed += later.closed;
        later.failures.into_iter().for_each(|(status, n)| *self.failures.entry(status).or_default() += n);
        later.by_pod.into_iter().for_each(|(pod, n)| *self.by_pod.entry(pod).or_default() += n);
    }

    /// 200s by version of `reviews`.
    pub(super) fn version(&self, version: &str) -> u64 {
        PODS.iter().filter(|p| p.version == version).filter_map(|p| self.by_pod.get(p.name)).sum()
    }
}

impl Load {
    pub(super) fn start(sidecar: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            running: AtomicBool::new(true),
            active: AtomicUsize::new(CALLERS),
            in_flight: AtomicUsize::new(0),
            counts: Mutex::default(),
            total: AtomicU64::new(0),
        });
        let callers = (0..CALLERS).map(|i| tokio::spawn(call(i, sidecar, shared.clone()))).collect();
        Self { shared, callers }
    }

    /// Lets only this many callers run.
    pub(super) fn set_callers(&self, n: usize) {
        self.shared.active.store(n, Ordering::SeqCst);
    }

    /// Lets nobody run, and waits until no request is in flight.
    pub(super) async fn rest(&self) {
        self.set_callers(0);
        while self.shared.in_flight.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was seen since the last call.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A look at what was seen since the last `take`.
    pub(super) fn look(&self) -> Counts {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All requests since the start.
    pub(super) fn total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Waits for so many more requests and returns what they saw.
    pub(super) async fn requests(&self, n: u64) -> anyhow::Result<Counts> {
        self.take();
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.look().requests < n {
            if tokio::time::Instant::now() > until {
                anyhow::bail!("the load came to a halt: {:?}", self.look());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(self.take())
    }

    pub(super) async fn stop(self) {
        self.shared.running.store(false, Ordering::Relaxed);
        for caller in self.callers {
            let _ = caller.await;
        }
    }
}

async fn call(index: usize, sidecar: SocketAddr, shared: Arc<Shared>) {
    let host = format!("reviews:{APP_PORT}");
    let mut connection: Option<Connection> = None;
    while shared.running.load(Ordering::Relaxed) {
        // Counted before the look: whoever waits for nobody to be in flight then misses none.
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        if index >= shared.active.load(Ordering::SeqCst) {
            shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            connection = None;
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let closed = connection.as_ref().is_some_and(Connection::is_closed);
        if closed {
            connection = None;
        }
        let answer = match &mut connection {
            Some(connection) => connection.get(&host, "/").await,
            None => match Connection::open(sidecar).await {
                Ok(opened) => connection.insert(opened).get(&host, "/").await,
                Err(error) => Err(error),
            },
        };
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        let mut counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.closed += u64::from(closed);
        shared.total.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok((status, body)) => counts.see(status, &body),
            Err(_) => {
                counts.requests += 1;
                *counts.failures.entry(0).or_default() += 1;
                connection = None;
            }
        }
    }
}
