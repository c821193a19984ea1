//! What an HTTP connection has come to, for the listener's own log.

use std::cell::Cell;

use http::Version;

use crate::stream_info::close_reasons;

/// See the module. Filled by the codecs and the connection manager, read at the end.
#[derive(Debug, Default)]
pub struct ConnectionRecord {
    /// Bytes received from the client, without TLS.
    pub received: Cell<u64>,
    /// Bytes sent to it.
    pub sent: Cell<u64>,
    /// What its requests speak, once one has come.
    pub version: Cell<Option<Version>>,
    /// The client reset it.
    pub was_reset: Cell<bool>,
    /// What came is not HTTP.
    pub has_protocol_error: Cell<bool>,
    /// The overload manager has ended it before its first request.
    pub was_shed: Cell<bool>,
    close_reason: Cell<Option<&'static str>>,
}

impl ConnectionRecord {
    /// We close it for this reason; the first one counts.
    pub fn closes(&self, reason: &'static str) {
        self.close_reason.set(self.close_reason.get().or(Some(reason)));
    }

    /// We did not wait any longer for the client to end it.
    pub fn closes_late(&self) {
        self.close_reason.set(Some(close_reasons::DELAYED_CLOSE));
    }

    /// Why we closed it.
    pub fn close_reason(&self) -> Option<&'static str> {
        self.close_reason.get()
    }

    pub(crate) fn has_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    pub(crate) fn has_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }
}
