//! HTTP/2: few connections with many streams. A new connection is made only when all are full; those who wait for one share it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::Notify;

use super::{HostPool, UpstreamConnection};
use crate::cluster::{self, Cluster};
use crate::http::body::RequestBody;
use crate::http::codec::{self, Http2Sender, Incoming, SendError, Switched};
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
    idle_since: Cell<Instant>,
    room: Rc<Notify>,
}

/// One stream, lent to one request.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Rc<Connection>,
    sender: Http2Sender,
    reused: bool,
}

impl Lease {
    fn new(connection: Rc<Connection>) -> Self {
        let requests = connection.requests.get();
        connection.requests.set(requests + 1);
        connection.streams.set(connection.streams.get() + 1);
        Self { sender: connection.sender.clone(), connection, reused: requests > 0 }
    }

    pub(super) fn connection(&self) -> &UpstreamConnection {
        &self.connection.about
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.sender.send(request).await
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
            self.connection.idle_since.set(Instant::now());
        }
        self.connection.room.notify_one();
    }
}

impl Pool {
    /// The first connection that has room; finished ones are dropped.
    fn with_room(&self, max_streams: u32) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|c| !c.sender.is_closed());
        let has_room = |c: &Connection| {
            (c.streams.get() as usize) < c.sender.peer_max_streams().min(max_streams as usize)
        };
        connections.iter().find(|c| has_room(c)).cloned()
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().clear();
    }

    /// Gives the number of connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant, idle_timeout: Option<Duration>) -> u64 {
        let mut timed_out = 0;
        self.connections.borrow_mut().retain(|c| {
            // Streams that are under way keep one that has expired, but nobody gets another one of it.
            if c.sender.is_closed() || c.about.has_expired(now) {
                return false;
            }
            let idle = c.streams.get() == 0
                && idle_timeout.is_some_and(|t| now.saturating_duration_since(c.idle_since.get()) >= t);
            timed_out += u64::from(idle);
            !idle
        });
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
    let take = || pool.http2.with_room(pool.settings.max_concurrent_streams).map(|c| lend(pool, c));
    if let Some(lease) = take() {
        return Ok(lease);
    }
    let _pending = HostPool::pending(cluster, high_priority)?;
    loop {
        if let Some(lease) = take() {
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
        if !none_open && !cluster.circuit_breakers.connection_allowed(high_priority) {
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
        return Ok(lend(pool, connection));
    }
}

/// Lends a stream. The request that reaches the connection's maximum is the last one: the connection leaves the pool, and goes when
/// its streams have ended.
fn lend(pool: &HostPool, connection: Rc<Connection>) -> Lease {
    let lease = Lease::new(connection);
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
    let closes = connected.expiry.map(|expiry| expiry.closes);
    let sender = codec::connect_http2(cluster, connected.stream, closes, connected.guard).await?;
    Ok(Connection {
        sender,
        about: UpstreamConnection {
            id: connected.id,
            times: connected.times,
            local_address: connected.local_address,
            tls: connected.tls,
            expires: connected.expiry.map(|expiry| expiry.expires),
        },
        streams: Cell::new(0),
        requests: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        room: pool.http2.room.clone(),
    })
}
