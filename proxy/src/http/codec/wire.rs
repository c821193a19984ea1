//! What has gone over one upstream connection, seen from below the codecs: after how long a pause its host ended it, and what became
//! of a request that it took when it ended.
//!
//! A host that closes a connection may do so at the very moment at which a request is sent. What the host's system acknowledged
//! tells whether the host can have read it: an end is sent with an acknowledgement of all that had arrived before, and what arrives
//! after it nobody reads. A reset has no such order.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::Host;
use crate::net::Stream;

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    host: Arc<Host>,
    /// Since when it carries nothing.
    idle_since: Cell<Option<Instant>>,
    /// Bytes that its socket has taken.
    written: Cell<u64>,
    /// Bytes that came, without TLS.
    received: Cell<u64>,
    end: Cell<Option<End>>,
}

/// How the host ended it.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It sends no more; so many bytes were acknowledged by then.
    Orderly(Option<u64>),
    Reset,
}

/// The place in a connection where a request begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    written: u64,
    received: u64,
}

/// What is known of a request that a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The host has not seen it.
    Unseen,
    /// The host may have seen it, and ended the connection without a byte of an answer.
    Unanswered,
    Unknown,
}

impl Wire {
    pub(super) fn new(host: Arc<Host>) -> Rc<Self> {
        Rc::new(Self {
            host,
            idle_since: Cell::new(None),
            written: Cell::new(0),
            received: Cell::new(0),
            end: Cell::new(None),
        })
    }

    /// It carries nothing from now on.
    pub(crate) fn rest(&self, now: Instant) {
        self.idle_since.set(Some(now));
    }

    /// It is in use, or goes by our own will.
    pub(crate) fn wake(&self) {
        self.idle_since.set(None);
    }

    /// How long it has carried nothing; zero while it is in use.
    pub(crate) fn pause(&self, now: Instant) -> Duration {
        self.idle_since.get().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Its host has ended it.
    pub(super) fn has_ended(&self) {
        if self.idle_since.get().is_some() {
            self.host.idle_limit.closed_after(self.pause(Instant::now()));
        }
    }

    pub(super) fn wrote(&self, stream: &Stream, bytes: usize) {
        self.written.set(match stream {
            Stream::TlsClient(tls) => tls.get_ref().0.written(),
            _ => self.written.get() + bytes as u64,
        });
    }

    pub(super) fn read(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    /// Bytes that came, without TLS.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// There is nothing more to be read.
    pub(super) fn read_end(&self, stream: &Stream) {
        self.note(|| End::Orderly(stream.acknowledged()));
    }

    pub(super) fn broke(&self, stream: &Stream, error: &io::Error) {
        self.note(|| match error.kind() {
            // The system says so when the reset came behind an orderly end.
            io::ErrorKind::BrokenPipe => End::Orderly(stream.acknowledged()),
            _ => End::Reset,
        });
    }

    /// Only what is seen first is what the host did: errors are told once.
    fn note(&self, end: impl FnOnce() -> End) {
        if self.end.get().is_none() {
            self.end.set(Some(end()));
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { written: self.written.get(), received: self.received.get() }
    }

    /// What became of the request that began there, when its connection failed it.
    pub(super) fn fate(&self, mark: Mark) -> Fate {
        let Some(end) = self.end.get() else { return Fate::Unknown };
        let nothing_left = self.written.get() == mark.written;
        match end {
            _ if nothing_left => Fate::Unseen,
            End::Orderly(Some(acknowledged)) if acknowledged <= mark.written => Fate::Unseen,
            _ if self.received.get() == mark.received => Fate::Unanswered,
            _ => Fate::Unknown,
        }
    }
}
