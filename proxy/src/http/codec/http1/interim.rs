//! Informational responses of upstreams on their way to an HTTP/1 client (RFC 9110 section 15.2).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use http::{HeaderMap, StatusCode};

use super::channel::Channel;
use super::encode;
use crate::http::headers::remove_hop_by_hop;

/// Tells the client of one request what its upstream says before it answers.
#[derive(Debug)]
pub(crate) struct Interim {
    channel: Rc<RefCell<Channel>>,
    message: u64,
    has_told: Cell<bool>,
}

impl Interim {
    pub(super) fn new(channel: &Rc<RefCell<Channel>>, message: u64) -> Self {
        Self { channel: channel.clone(), message, has_told: Cell::new(false) }
    }

    /// Tells it, unless the answer has begun. As in Envoy the first of each request is told, and only those that are known.
    pub(super) fn tell(&self, status: StatusCode, mut headers: HeaderMap) {
        let mut channel = self.channel.borrow_mut();
        let is_answered = channel.message != self.message || channel.answered >= self.message;
        if is_answered || !matches!(status.as_u16(), 100 | 102 | 103) || self.has_told.replace(true) {
            return;
        }
        remove_hop_by_hop(&mut headers);
        channel.put_head(|out| encode::informational(out, status, &headers));
        // What cannot be written now is written by the task of the connection.
        let _ = channel.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    /// Whether something of this upstream's has gone to the client: no other one may be asked.
    pub(crate) fn has_told(&self) -> bool {
        self.has_told.get()
    }
}
