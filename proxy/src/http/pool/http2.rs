//! HTTP/2: few connections with many streams. A new connection is made only when all are full; those who wait for one share it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::Notify;

use super::{HostPool, LOOKED_AT_AFTER, UpstreamConnection, look};
use crate::cluster::{self, Cluster, SHORT_PAUSE};
use crate::http::body::RequestBody;
use crate::http::codec::{self, Http2Sender, Incoming, Interim, SendError, Switched};
use crate::http::error::StreamError;

#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// A connection is being made.
    connecting: Cell<bool>,
    /// The number of that attempt.
    attempt: Cell<u64>,
    /// That attempt ended, well or not.
    connected: Notify,
    /// The last attempt that failed: those who waited for it fail with it, instead of each trying in turn.
    failed: RefCell<Option<(u64, StreamError)>>,
    /// A stream ended: there is room, or its connection has gone.
    room: Rc<Notify>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Connection {
    sender: Http2Sender,
    about: UpstreamConnection,
    streams: Cell<u32>,
    requests: Cell<u32>,
    room: Rc<Notify>,
}

impl Connection {
    fn pause(&self, now: Instant) -> Duration {
        self.sender.wire().pause(now)
    }
}

impl Drop for Connection {
    /// It goes by our own will, or has gone already.
    fn drop(&mut self) {
        self.sender.wire().wake();
    }
}

/// One stream, lent to one request.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Rc<Connection>,
    sender: Http2Sender,
    reused: bool,
    rested: bool,
}

impl Lease {
    fn new(connection: Rc<Connection>, pause: Duration) -> Self {
        let requests = connection.requests.get();
        connection.requests.set(requests + 1);
        connection.sender.wire().wake();
        connection.streams.set(connection.streams.get() + 1);
        let (reused, rested) = (requests > 0, pause >= SHORT_PAUSE);
        Self { sender: connection.sender.clone(), connection, reused, rested }
    }

    pub(super) fn connection(&self) -> &UpstreamConnection {
        &self.connection.about
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn has_rested(&self) -> bool {
        self.rested
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<Incoming>, SendError> {
        self.sender.send(request, interim).await
    }

    pub(super) async fn send_upgrade(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        self.sender.send_upgrade(request).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let streams = self.connection.streams.get() - 1;
        self.connection.streams.set(streams);
        if streams == 0 {
            self.connection.sender.wire().rest(Instant::now());
        }
        self.connection.room.notify_one();
    }
}

impl Pool {
    /// The first connection that has room; finished ones are dropped.
    fn with_room(&self, pool: &HostPool) -> Option<Rc<Connection>> {
        let now = Instant::now();
        let mut connections = self.connections.borrow_mut();
        // Streams that are under way keep one that retires.
        connections.retain(|c| !c.sender.is_closed() && !c.about.retires(now, &pool.stats));
        let (max_streams, limit) = (pool.settings.max_concurrent_streams, &pool.host.idle_limit);
        let has_room = |c: &Connection| {
            (c.streams.get() as usize) < c.sender.peer_max_streams().min(max_streams as usize)
                && limit.allows(c.pause(now))
        };
        connections.iter().find(|c| has_room(c)).cloned()
    }

    /// Those that are idle and may not be used make room for another: whether there were any.
    fn drop_idle(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let before = connections.len();
        connections.retain(|c| c.streams.get() > 0);
        connections.len() < before
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().clear();
    }

    /// Gives the number of connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant, pool: &HostPool) -> u64 {
        let mut timed_out = 0;
        let mut longest = Duration::ZERO;
        self.connections.borrow_mut().retain(|c| {
            // Streams that are under way keep one that has expired, but nobody gets another one of it.
            if c.sender.is_closed() || c.about.has_expired(now) || c.about.retires(now, &pool.stats) {
                return false;
            }
            let pause = c.pause(now);
            longest = longest.max(pause);
            let idle = c.streams.get() == 0 && pool.settings.idle_timeout.is_some_and(|t| pause >= t);
            timed_out += u64::from(idle);
            !idle
        });
        pool.host.idle_limit.outlived(longest);
        timed_out
    }
}

/// Ends the attempt for those who wait, even when it is cancelled.
struct Attempt<'p>(&'p Pool);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}

pub(super) async fn checkout(
    pool: &Rc<HostPool>,
    cluster: &Cluster,
    high_priority: bool,
) -> Result<Lease, StreamError> {
    if let Some(lease) = take(pool).await {
        return Ok(lease);
    }
    let _pending = HostPool::pending(cluster, high_priority)?;
    loop {
        if let Some(lease) = take(pool).await {
            return Ok(lease);
        }
        if pool.http2.connecting.get() {
            let attempt = pool.http2.attempt.get();
            pool.http2.connected.notified().await;
            match &*pool.http2.failed.borrow() {
                Some((failed, error)) if *failed == attempt => return Err(error.clone()),
                _ => continue,
            }
        }
        let none_open = pool.http2.connections.borrow().is_empty();
        if !none_open && !cluster.circuit_breakers.connection_allowed(high_priority, &pool.host) {
            if pool.http2.drop_idle() {
                continue;
            }
            cluster.stats.upstream_cx_overflow.inc();
            pool.http2.room.notified().await;
            continue;
        }
        pool.http2.connecting.set(true);
        let attempt = pool.http2.attempt.get() + 1;
        pool.http2.attempt.set(attempt);
        let _attempt = Attempt(&pool.http2);
        let connection = match connect(pool, cluster, high_priority, none_open).await {
            Ok(connection) => Rc::new(connection),
            Err(error) => {
                pool.http2.failed.replace(Some((attempt, error.clone())));
                return Err(error);
            }
        };
        if !pool.http2.closed.get() {
            pool.http2.connections.borrow_mut().push(connection.clone());
        }
        return Ok(lend(pool, connection, Duration::ZERO));
    }
}

/// A stream of the first connection that has room, looked at when it has been idle for a while.
async fn take(pool: &HostPool) -> Option<Lease> {
    let with_room = || pool.http2.with_room(pool);
    let mut connection = with_room()?;
    let pause = connection.pause(Instant::now());
    if pause >= LOOKED_AT_AFTER {
        drop(connection);
        look().await;
        connection = with_room()?;
        pool.host.idle_limit.outlived(connection.pause(Instant::now()));
    }
    Some(lend(pool, connection, pause))
}

/// Lends a stream. The request that reaches the connection's maximum is the last one: the connection leaves the pool, and goes when
/// its streams have ended.
fn lend(pool: &HostPool, connection: Rc<Connection>, pause: Duration) -> Lease {
    let lease = Lease::new(connection, pause);
    let max = pool.settings.max_requests_per_connection;
    if max > 0 && lease.connection.requests.get() >= max {
        pool.stats.upstream_cx_max_requests.inc();
        pool.http2.connections.borrow_mut().retain(|c| !Rc::ptr_eq(c, &lease.connection));
    }
    lease
}

async fn connect(
    pool: &HostPool,
    cluster: &Cluster,
    high_priority: bool,
    beyond_limit: bool,
) -> Result<Connection, StreamError> {
    let connected = cluster::connect(cluster, &pool.host, high_priority, beyond_limit).await?;
    cluster.stats.upstream_cx_http2_total.inc();
    let about = UpstreamConnection::new(&connected, &pool.settings);
    let closes = connected.expiry.map(|expiry| expiry.closes);
    let sender = codec::connect_http2(cluster, &pool.host, connected.stream, closes, connected.guard).await?;
    Ok(Connection {
        sender,
        about,
        streams: Cell::new(0),
        requests: Cell::new(0),
        room: pool.http2.room.clone(),
    })
}
