//! HTTP/1: a stack of idle connections, the most recently used first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::oneshot;

use super::{HostPool, LOOKED_AT_AFTER, Reuse, UpstreamConnection, look};
use crate::cluster::{self, Cluster, SHORT_PAUSE};
use crate::http::body::RequestBody;
use crate::http::codec::{self, Http1Sender, Incoming, Interim, SendError, Switched};
use crate::http::error::StreamError;
use crate::stats::ClusterStats;

#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: RefCell<Vec<Connection>>,
    open: Rc<Open>,
    closed: Cell<bool>,
}

/// The connections that exist, idle, lent or being made, and who waits for one of them.
#[derive(Debug, Default)]
struct Open {
    count: Cell<u32>,
    /// Requests that wait because the circuit breaker allows no further connection. Each is given a connection that became free,
    /// or its sender is dropped because a connection has gone: then it looks again.
    waiting: RefCell<VecDeque<oneshot::Sender<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    sender: Http1Sender,
    about: UpstreamConnection,
    requests: u32,
    /// It was idle for a while before its present request.
    rested: bool,
}

impl Connection {
    /// It is idle, and has been for too long.
    fn is_barred(&self, pool: &HostPool, reuse: Reuse) -> bool {
        self.sender.is_ready() && !pool.allows(self.sender.wire().pause(Instant::now()), reuse)
    }
}

impl Drop for Connection {
    /// It goes by our own will, or has gone already.
    fn drop(&mut self) {
        self.sender.wire().wake();
    }
}

/// One of them, from the attempt to connect until the connection's task has ended.
#[derive(Debug)]
struct OpenCount(Rc<Open>);

impl OpenCount {
    fn new(open: &Rc<Open>) -> Self {
        open.count.set(open.count.get() + 1);
        Self(open.clone())
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        // Requests that gave up are passed over: only one that is still there makes use of the place.
        let next = || self.0.waiting.borrow_mut().pop_front();
        while next().is_some_and(|waiter| waiter.is_closed()) {}
    }
}

/// One connection, lent to one request. Dropped before `finish`, the connection is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<HostPool>,
    connection: Connection,
}

impl Lease {
    pub(super) fn connection(&self) -> &UpstreamConnection {
        &self.connection.about
    }

    pub(super) fn is_reused(&self) -> bool {
        self.connection.requests > 1
    }

    pub(super) fn has_rested(&self) -> bool {
        self.connection.rested
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<Incoming>, SendError> {
        self.connection.sender.send(request, interim).await
    }

    pub(super) async fn send_upgrade(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        self.connection.sender.send_upgrade(request).await
    }

    pub(super) fn meter(&self) -> codec::Meter {
        self.connection.sender.meter()
    }

    pub(super) fn finish(self) {
        let Lease { pool, mut connection } = self;
        let max = pool.settings.max_requests_per_connection;
        if pool.http1.closed.get() || connection.sender.is_closed() {
            return;
        }
        if max > 0 && connection.requests >= max {
            pool.stats.upstream_cx_max_requests.inc();
            return;
        }
        let now = Instant::now();
        if connection.about.retires(now, &pool.stats) {
            return;
        }
        let next = || pool.http1.open.waiting.borrow_mut().pop_front();
        while let Some(waiter) = next() {
            match waiter.send(connection) {
                Ok(()) => return,
                // That request gave up meanwhile.
                Err(back) => connection = back,
            }
        }
        connection.sender.wire().rest(now);
        connection.rested = false;
        pool.http1.idle.borrow_mut().push(connection);
    }
}

impl Pool {
    /// The one that was used last, if it may be used, and its pause. The others have been idle for longer.
    fn pop_idle(
        &self,
        stats: &ClusterStats,
        may: impl Fn(Duration) -> bool,
    ) -> Option<(Connection, Duration)> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if idle[at].about.retires(now, stats) {
                idle.swap_remove(at);
                continue;
            }
            if idle[at].sender.is_ready() {
                let pause = idle[at].sender.wire().pause(now);
                return may(pause).then(|| (idle.swap_remove(at), pause));
            }
            if idle[at].sender.is_closed() {
                idle.swap_remove(at);
            }
        }
        None
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
    }

    /// Gives the number of connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant, pool: &HostPool) -> u64 {
        let mut timed_out = 0;
        let mut longest = Duration::ZERO;
        self.idle.borrow_mut().retain(|c| {
            if c.sender.is_closed() || c.about.has_expired(now) || c.about.retires(now, &pool.stats) {
                return false;
            }
            let pause = c.sender.wire().pause(now);
            longest = longest.max(pause);
            let idle = pool.settings.idle_timeout.is_some_and(|t| pause >= t);
            timed_out += u64::from(idle);
            !idle
        });
        pool.host.idle_limit.outlived(longest);
        timed_out
    }
}

pub(super) async fn checkout(
    pool: &Rc<HostPool>,
    cluster: &Cluster,
    high_priority: bool,
    reuse: Reuse,
) -> Result<Lease, StreamError> {
    let mut connection = match take_idle(pool, reuse).await {
        Some(connection) => connection,
        None => new_or_freed(pool, cluster, high_priority, reuse).await?,
    };
    connection.sender.wire().wake();
    connection.requests += 1;
    Ok(Lease { pool: pool.clone(), connection })
}

/// An idle connection, looked at when it has been idle for a while.
async fn take_idle(pool: &HostPool, reuse: Reuse) -> Option<Connection> {
    loop {
        let (mut connection, pause) = pool.http1.pop_idle(&pool.stats, |pause| pool.allows(pause, reuse))?;
        if pause >= LOOKED_AT_AFTER {
            look().await;
            if !connection.sender.is_ready() {
                continue;
            }
            pool.host.idle_limit.outlived(pause);
        }
        connection.rested = pause >= SHORT_PAUSE;
        return Some(connection);
    }
}

async fn new_or_freed(
    pool: &Rc<HostPool>,
    cluster: &Cluster,
    high_priority: bool,
    reuse: Reuse,
) -> Result<Connection, StreamError> {
    let _pending = HostPool::pending(cluster, high_priority)?;
    loop {
        let none_open = pool.http1.open.count.get() == 0;
        if none_open || cluster.circuit_breakers.connection_allowed(high_priority, &pool.host) {
            return connect(pool, cluster, high_priority, none_open).await;
        }
        cluster.stats.upstream_cx_overflow.inc();
        // One that is idle but not ready (its request's body is still on its way) is as good as a freed one. One that may not be used
        // makes room for another.
        let idle = pool.http1.idle.borrow_mut().pop();
        let connection = match idle {
            Some(connection) if connection.is_barred(pool, reuse) => {
                drop(connection);
                None
            }
            Some(connection) => Some(connection),
            None => {
                let (waiter, freed) = oneshot::channel();
                pool.http1.open.waiting.borrow_mut().push_back(waiter);
                freed.await.ok()
            }
        };
        if let Some(mut connection) = connection
            && connection.sender.ready().await
        {
            return Ok(connection);
        }
    }
}

async fn connect(
    pool: &HostPool,
    cluster: &Cluster,
    high_priority: bool,
    beyond_limit: bool,
) -> Result<Connection, StreamError> {
    let counted = OpenCount::new(&pool.http1.open);
    let connected = cluster::connect(cluster, &pool.host, high_priority, beyond_limit).await?;
    cluster.stats.upstream_cx_http1_total.inc();
    let about = UpstreamConnection::new(&connected, &pool.settings);
    // The place in the circuit breaker is given back first: whoever is woken then must find it.
    let guard = (connected.guard, counted);
    let closes = connected.expiry.map(|expiry| expiry.closes);
    let sender = codec::connect_http1(cluster, &pool.host, connected.stream, closes, guard);
    Ok(Connection { sender, about, requests: 0, rested: false })
}
