//! HTTP/1: a stack of idle connections, the most recently used first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::oneshot;

use super::{HostPool, UpstreamConnection};
use crate::cluster::{self, Cluster};
use crate::http::body::RequestBody;
use crate::http::codec::{self, Http1Sender, Incoming, Interim, SendError, Switched};
use crate::http::error::StreamError;

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
    idle_since: Instant,
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
        let next = || pool.http1.open.waiting.borrow_mut().pop_front();
        while let Some(waiter) = next() {
            match waiter.send(connection) {
                Ok(()) => return,
                // That request gave up meanwhile.
                Err(back) => connection = back,
            }
        }
        connection.idle_since = Instant::now();
        pool.http1.idle.borrow_mut().push(connection);
    }
}

impl Pool {
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if idle[at].sender.is_ready() {
                return Some(idle.swap_remove(at));
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
    pub(super) fn sweep(&self, now: Instant, idle_timeout: Option<Duration>) -> u64 {
        let mut timed_out = 0;
        self.idle.borrow_mut().retain(|c| {
            if c.sender.is_closed() || c.about.has_expired(now) {
                return false;
            }
            let idle = idle_timeout.is_some_and(|t| now.saturating_duration_since(c.idle_since) >= t);
            timed_out += u64::from(idle);
            !idle
        });
        timed_out
    }
}

pub(super) async fn checkout(
    pool: &Rc<HostPool>,
    cluster: &Cluster,
    high_priority: bool,
) -> Result<Lease, StreamError> {
    let mut connection = match pool.http1.take_idle() {
        Some(connection) => connection,
        None => new_or_freed(pool, cluster, high_priority).await?,
    };
    connection.requests += 1;
    Ok(Lease { pool: pool.clone(), connection })
}

async fn new_or_freed(
    pool: &Rc<HostPool>,
    cluster: &Cluster,
    high_priority: bool,
) -> Result<Connection, StreamError> {
    let _pending = HostPool::pending(cluster, high_priority)?;
    loop {
        let none_open = pool.http1.open.count.get() == 0;
        if none_open || cluster.circuit_breakers.connection_allowed(high_priority) {
            return connect(pool, cluster, high_priority, none_open).await;
        }
        cluster.stats.upstream_cx_overflow.inc();
        // One that is idle but not ready (its request's body is still on its way) is as good as a freed one.
        let idle = pool.http1.idle.borrow_mut().pop();
        let connection = match idle {
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
    // The place in the circuit breaker is given back first: whoever is woken then must find it.
    let guard = (connected.guard, counted);
    let closes = connected.expiry.map(|expiry| expiry.closes);
    let sender = codec::connect_http1(cluster, connected.stream, closes, guard);
    Ok(Connection {
        sender,
        about: UpstreamConnection {
            id: connected.id,
            times: connected.times,
            local_address: connected.local_address,
            tls: connected.tls,
            expires: connected.expiry.map(|expiry| expiry.expires),
        },
        requests: 0,
        idle_since: Instant::now(),
    })
}
