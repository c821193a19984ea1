//! A request of an HTTP/1 client whose answer has not begun: where something may be said before it.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};

use http::{HeaderMap, StatusCode};

use super::channel::Channel;
use super::encode;

#[derive(Debug)]
pub(in crate::http::codec) struct Unanswered {
    channel: Rc<RefCell<Channel>>,
    message: u64,
}

impl Unanswered {
    pub(super) fn new(channel: &Rc<RefCell<Channel>>, message: u64) -> Self {
        Self { channel: channel.clone(), message }
    }

    /// Says this before the answer. `false`: that has begun.
    pub(in crate::http::codec) fn tell(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let mut channel = self.channel.borrow_mut();
        if channel.message != self.message || channel.answered >= self.message {
            return false;
        }
        channel.put_head(|out| encode::informational(out, status, headers));
        // What cannot be written now is written by the task of the connection.
        let _ = channel.poll_flush(&mut Context::from_waker(Waker::noop()));
        true
    }
}
