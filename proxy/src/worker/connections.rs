//! The downstream connections of a worker: how main's commands reach them, and what the tick enforces on them.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::ConnectionRecord;
use crate::overload::ReducedTimeouts;
use crate::stats::{HttpStats, Stats};
use crate::stream_info::close_reasons;

/// The downstream connections of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    list: RefCell<Vec<Weak<ConnectionHandle>>>,
    active: Arc<AtomicUsize>,
}

/// How long a draining connection may be idle before it is closed, so that a client's next request on its way is still served.
const DRAIN_IDLE: Duration = Duration::from_millis(500);

/// How long an HTTP connection without requests may take to close. An HTTP/2 client is told and asked to say that it has heard; one that
/// does not is not waited for.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection is idle before it may do without its buffers. A client that is busy finds them in place.
const REST_AFTER: Duration = Duration::from_millis(500);

impl Connections {
    /// Their number is counted in `active`.
    pub(super) fn counted(active: Arc<AtomicUsize>) -> Self {
        Self { list: RefCell::default(), active }
    }

    /// Registers a connection of a filter chain. It counts until the handle is dropped.
    pub fn register(&self, chain_id: u64) -> Rc<ConnectionHandle> {
        let now = Instant::now();
        self.active.fetch_add(1, Ordering::Relaxed);
        let handle = Rc::new(ConnectionHandle {
            chain_id,
            state: Cell::new(State::Open),
            streams: Cell::new(0),
            opened: now,
            idle_since: Cell::new(now),
            may_rest: Cell::new(false),
            used: Cell::new(false),
            is_spared: Cell::new(false),
            closes: Cell::new(None),
            limits: OnceCell::new(),
            closing_since: Cell::new(None),
            client_ended: Cell::new(false),
            stalled_since: Cell::new(None),
            peer_expiry: OnceCell::new(),
            record: ConnectionRecord::default(),
            waker: RefCell::new(None),
            active: self.active.clone(),
        });
        self.list.borrow_mut().push(Rc::downgrade(&handle));
        handle
    }

    fn each(&self, f: impl Fn(&ConnectionHandle)) {
        self.list.borrow_mut().retain(|weak| {
            let Some(handle) = weak.upgrade() else { return false };
            f(&handle);
            true
        });
    }

    pub(super) fn drain(&self, which: impl Fn(&ConnectionHandle) -> bool) {
        self.each(|c| {
            if which(c) {
                c.drain();
            }
        });
    }

    pub(super) fn kill(&self) {
        self.each(|c| {
            c.advance(State::Killed);
        });
    }

    /// What is due at `now`, with timeouts as they are under the present pressure.
    pub(crate) fn sweep(&self, now: Instant, timeouts: &ReducedTimeouts) {
        self.each(|c| {
            let idle = (c.streams.get() == 0).then(|| now.saturating_duration_since(c.idle_since.get()));
            if let Some(PeerExpiry { expires, closes, stats }) = c.peer_expiry.get() {
                if now >= *expires && c.advance(State::Draining) {
                    stats.server().peer_certificate_expired_total.inc();
                }
                if now >= *closes {
                    c.advance(State::Killed);
                }
            }
            let written = c.stalled_since.get().is_none();
            if written && !c.may_rest.get() && idle.is_some_and(|t| t >= REST_AFTER) {
                c.may_rest.set(true);
                c.wake();
            }
            let drained = match c.closes.get() {
                Some(closes) => now >= closes && idle.is_some(),
                None => c.is_draining() && idle.is_some_and(|t| t >= DRAIN_IDLE),
            };
            if drained {
                c.advance(State::Closing);
            }
            let Some(limits) = c.limits.get() else { return };
            if c.is_closing() && idle.is_some() {
                let since = c.closing_since.get().unwrap_or(now);
                c.closing_since.set(Some(since));
                if now.saturating_duration_since(since) >= CLOSE_WITHIN {
                    c.advance(State::Killed);
                }
            }
            let idle_timeout = limits.idle_timeout.map(|limit| timeouts.connection_idle(limit));
            let timed_out = idle_timeout.zip(idle).is_some_and(|(limit, t)| t >= limit);
            if timed_out && c.expire_at(now, limits, close_reasons::IDLE) {
                limits.stats.downstream_cx_idle_timeout.inc();
            }
            let open_for = now.saturating_duration_since(c.opened);
            if limits.max_duration.is_some_and(|limit| open_for >= timeouts.connection_max(limit))
                && c.expire_at(now, limits, close_reasons::MAX_DURATION)
            {
                limits.stats.downstream_cx_max_duration_reached.inc();
            }
            let stalled = c.stalled_since.get().map(|since| now.saturating_duration_since(since));
            if limits.stall_timeout.zip(stalled).is_some_and(|(limit, t)| t >= limit) {
                c.advance(State::Killed);
            }
        });
    }
}

/// What the worker's tick enforces on an HTTP connection (`None` = off), and where it counts that.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// Without a request in flight.
    pub idle_timeout: Option<Duration>,
    /// Since it was accepted.
    pub max_duration: Option<Duration>,
    /// How long after these two a connection that was used still takes requests, each of which may be the last one.
    pub drain_timeout: Duration,
    /// How long the client may take nothing of what is ready for it.
    pub stall_timeout: Option<Duration>,
    /// `downstream_cx_idle_timeout`, `downstream_cx_max_duration_reached`.
    pub stats: Arc<HttpStats>,
}

/// When a connection has to end because its peer's certificate has expired, and where that is counted.
#[derive(Debug)]
pub struct PeerExpiry {
    /// No further request from then on.
    pub expires: Instant,
    /// What is left then is closed.
    pub closes: Instant,
    /// `outrigger_connections_closed_peer_certificate_expired_total`.
    pub stats: Arc<Stats>,
}

/// One downstream connection as main's commands and the tick see it.
#[derive(Debug)]
pub struct ConnectionHandle {
    /// `FilterChain.id`.
    pub chain_id: u64,
    state: Cell<State>,
    streams: Cell<u32>,
    opened: Instant,
    idle_since: Cell<Instant>,
    /// Nothing was in flight for [`REST_AFTER`].
    may_rest: Cell<bool>,
    /// There was a request.
    used: Cell<bool>,
    /// Nothing is shed here: `bypass_overload_manager` of its listener.
    is_spared: Cell<bool>,
    /// When its drain is over, if it has a time of its own.
    closes: Cell<Option<Instant>>,
    limits: OnceCell<ConnectionLimits>,
    /// Since when nothing is in flight and the connection is to be closed.
    closing_since: Cell<Option<Instant>>,
    client_ended: Cell<bool>,
    /// Since when the client takes nothing of what is ready for it.
    stalled_since: Cell<Option<Instant>>,
    peer_expiry: OnceCell<PeerExpiry>,
    /// For the listener's own log.
    pub record: ConnectionRecord,
    waker: RefCell<Option<Waker>>,
    active: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Open,
    /// No further request after the next one.
    Draining,
    /// Close as soon as nothing is in flight.
    Closing,
    /// Close at once.
    Killed,
}

impl ConnectionHandle {
    /// Sets the limits that the worker's tick enforces, once.
    pub fn limit(&self, limits: ConnectionLimits) {
        let _ = self.limits.set(limits);
    }

    /// Sets when the peer's certificate expires, once.
    pub fn expire(&self, expiry: PeerExpiry) {
        let _ = self.peer_expiry.set(expiry);
    }

    /// Nothing is shed on this connection.
    pub fn spare(&self) {
        self.is_spared.set(true);
    }

    /// Whether nothing is shed here.
    pub fn is_spared(&self) -> bool {
        self.is_spared.get()
    }

    /// Bytes for the client could not be written now (or could again).
    pub fn set_stalled(&self, stalled: bool) {
        if stalled != self.stalled_since.get().is_some() {
            self.stalled_since.set(stalled.then(Instant::now));
        }
    }

    /// Whether bytes for the client wait to be written.
    pub fn is_stalled(&self) -> bool {
        self.stalled_since.get().is_some()
    }

    /// It is not idle: a request is on its way.
    pub fn touch(&self) {
        self.idle_since.set(Instant::now());
    }

    /// Whether that is a change.
    fn advance(&self, state: State) -> bool {
        if self.state.get() >= state {
            return false;
        }
        self.state.set(state);
        self.wake();
        true
    }

    /// Its time is over: it drains, or ends at once where nothing ever came. Whether that is a change.
    fn expire_at(&self, now: Instant, limits: &ConnectionLimits, why: &'static str) -> bool {
        if !self.used.get() {
            let closes = self.advance(State::Closing);
            if closes {
                self.record.closes(why);
            }
            return closes;
        }
        let drains = self.advance(State::Draining);
        if drains {
            self.closes.set(Some(now + limits.drain_timeout));
        }
        drains
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether nothing was in flight for so long that the connection should hold little. It is woken when that begins.
    pub fn may_rest(&self) -> bool {
        self.may_rest.get()
    }

    /// The connection ends after what is in flight.
    pub fn drain(&self) {
        self.advance(State::Draining);
    }

    /// The client ended its side, or the connection broke.
    pub fn client_has_ended(&self) {
        self.client_ended.set(true);
    }

    /// Whether the client ended the connection rather than the proxy.
    pub fn is_client_ended(&self) -> bool {
        self.client_ended.get()
    }

    /// The task that polls is woken when the state changes.
    pub fn watch(&self, cx: &mut Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The next response says that it is the last one.
    pub fn is_draining(&self) -> bool {
        self.state.get() >= State::Draining
    }

    /// To be closed as soon as nothing is in flight.
    pub fn is_closing(&self) -> bool {
        self.state.get() >= State::Closing
    }

    /// To be closed now.
    pub fn is_killed(&self) -> bool {
        self.state.get() == State::Killed
    }

    /// Ends when the connection must be closed now (TCP connections take no notice of draining).
    pub fn killed(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            self.watch(cx);
            if self.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Ends when the connection is to be closed as soon as nothing is in flight: for phases in which nothing is.
    pub fn closing(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            self.watch(cx);
            if self.is_closing() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// A request began.
    pub fn stream_started(&self) {
        self.streams.set(self.streams.get() + 1);
        self.used.set(true);
        self.may_rest.set(false);
    }

    /// A request ended.
    pub fn stream_ended(&self, now: Instant) {
        self.streams.set(self.streams.get() - 1);
        self.idle_since.set(now);
    }

    /// Requests in flight.
    pub fn streams(&self) -> u32 {
        self.streams.get()
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_closes_idle_connections_and_drains_old_ones_and_counts_them_once() {
        let stats = Stats::new().http("test");
        let connections = Connections::default();
        let seconds = |s| Some(Duration::from_secs(s));
        let limited = |idle_timeout, max_duration| {
            let handle = connections.register(1);
            handle.limit(ConnectionLimits {
                idle_timeout,
                max_duration,
                drain_timeout: Duration::from_secs(5),
                stall_timeout: None,
                stats: stats.clone(),
            });
            handle
        };
        let (idle, busy, unused) =
            (limited(seconds(10), None), limited(seconds(10), None), limited(seconds(10), None));
        let old = limited(None, seconds(20));
        idle.stream_started();
        idle.stream_ended(Instant::now());
        busy.stream_started();
        old.stream_started();
        let now = Instant::now();
        let counted =
            || (stats.downstream_cx_idle_timeout.get(), stats.downstream_cx_max_duration_reached.get());
        connections.sweep(now + Duration::from_secs(9), &Default::default());
        assert_eq!(counted(), (0, 0));
        for after in [11, 12] {
            connections.sweep(now + Duration::from_secs(after), &Default::default());
            assert_eq!(counted(), (2, 0));
        }
        assert!(idle.is_draining() && !idle.is_closing() && !busy.is_draining() && !old.is_draining());
        assert!(unused.is_closing());
        connections.sweep(now + Duration::from_secs(16), &Default::default());
        assert!(idle.is_closing(), "it has had its drain timeout");
        for after in [21, 22] {
            connections.sweep(now + Duration::from_secs(after), &Default::default());
            assert_eq!(counted(), (2, 1));
        }
        assert!(old.is_draining() && !old.is_closing());
    }

    #[test]
    fn a_drained_chain_ends_its_idle_connections_a_moment_later_and_busy_ones_when_they_are_idle() {
        let connections = Connections::default();
        let [idle, busy, other] = [1, 1, 2].map(|chain| connections.register(chain));
        busy.stream_started();
        connections.drain(|c| c.chain_id == 1);
        assert!(idle.is_draining() && busy.is_draining() && !other.is_draining());
        let now = Instant::now();
        connections.sweep(now, &Default::default());
        assert!(!idle.is_closing(), "a request on its way is still served");
        connections.sweep(now + DRAIN_IDLE, &Default::default());
        assert!(idle.is_closing() && !busy.is_closing());
        let later = now + Duration::from_secs(3600);
        connections.sweep(later, &Default::default());
        assert!(!busy.is_closing(), "its request has all the time that it is given elsewhere");
        busy.stream_ended(later);
        connections.sweep(later + DRAIN_IDLE / 2, &Default::default());
        assert!(!busy.is_closing());
        connections.sweep(later + DRAIN_IDLE, &Default::default());
        assert!(busy.is_closing() && !busy.is_killed() && !other.is_draining());
    }

    #[test]
    fn a_connection_that_does_not_close_by_itself_is_closed() {
        let connections = Connections::default();
        let [silent, busy, tcp] = [1, 1, 1].map(|chain| connections.register(chain));
        for http in [&silent, &busy] {
            let stats = Stats::new().http("test");
            http.limit(ConnectionLimits {
                idle_timeout: None,
                max_duration: None,
                drain_timeout: Duration::from_secs(5),
                stall_timeout: None,
                stats,
            });
        }
        connections.drain(|_| true);
        let now = Instant::now();
        connections.sweep(now + DRAIN_IDLE, &Default::default());
        busy.stream_started();
        connections.sweep(now + DRAIN_IDLE + CLOSE_WITHIN / 2, &Default::default());
        assert!(silent.is_closing() && !silent.is_killed());
        connections.sweep(now + DRAIN_IDLE + CLOSE_WITHIN, &Default::default());
        assert!(silent.is_killed() && !busy.is_killed() && !tcp.is_killed());
    }

    #[test]
    fn a_connection_may_rest_when_it_is_idle_and_all_is_written_until_its_next_request() {
        let connections = Connections::default();
        let [idle, busy, stalled] = [1, 1, 1].map(|chain| connections.register(chain));
        busy.stream_started();
        stalled.set_stalled(true);
        let now = Instant::now();
        connections.sweep(now, &Default::default());
        assert!(!idle.may_rest(), "its next request may be on its way");
        connections.sweep(now + REST_AFTER, &Default::default());
        assert!(idle.may_rest() && !busy.may_rest() && !stalled.may_rest());
        idle.stream_started();
        assert!(!idle.may_rest());
        stalled.set_stalled(false);
        connections.sweep(now + REST_AFTER, &Default::default());
        assert!(stalled.may_rest());
    }

    #[test]
    fn a_connection_ends_soon_after_its_peers_certificate() {
        let stats = Stats::new();
        let connections = Connections::default();
        let (busy, other) = (connections.register(1), connections.register(1));
        busy.stream_started();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        busy.expire(PeerExpiry { expires: at(10), closes: at(20), stats: stats.clone() });
        let counted = || stats.server().peer_certificate_expired_total.get();
        connections.sweep(at(9), &Default::default());
        assert!(!busy.is_draining() && counted() == 0);
        for after in [10, 19] {
            connections.sweep(at(after), &Default::default());
            assert!(busy.is_draining() && !busy.is_closing() && counted() == 1);
        }
        connections.sweep(at(20), &Default::default());
        assert!(busy.is_killed() && !other.is_draining() && counted() == 1);
    }
}
