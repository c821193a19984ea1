//! Bytes of streams on the wire, counted only for logs that print them. The codec of HTTP/1 counts; streams of HTTP/2 share their
//! connection, and nothing here knows which bytes are whose.

use http::{HeaderMap, Request};

use super::active_stream::ActiveStream;
use super::codec::{Incoming, Meter};
use super::pool::Lease;
use crate::stream_info::{LogDetails, WireBytes};

/// What counts the bytes of a stream's present exchanges.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    downstream: Option<Meter>,
    upstream: Option<Meter>,
}

impl ActiveStream {
    /// The request has come.
    pub(super) fn begin_wire(&mut self, request: &Request<Incoming>) {
        if let Some(details) = self.wire_details() {
            details.downstream_wire.fields_received = fields_received(request.headers());
            self.meters.downstream = request.body().meter();
        }
    }

    /// The request goes out on this connection.
    pub(super) fn begin_upstream_wire(&mut self, lease: &Lease) {
        if self.wire_details().is_some() {
            self.settle_upstream_wire();
            self.meters.upstream = lease.meter();
        }
    }

    /// Counts the header fields of the upstream's response.
    pub(super) fn count_response_fields(&mut self, headers: &HeaderMap) {
        if let Some(details) = self.wire_details() {
            details.upstream_wire.fields_received += fields_received(headers);
        }
    }

    /// The attempt is over, or its connection is about to carry something else.
    pub(super) fn settle_upstream_wire(&mut self) {
        let Some(meter) = self.meters.upstream.take() else { return };
        if let Some(details) = &mut self.info.log_details {
            let (all, last) = (&mut details.upstream_wire, meter.read());
            all.received += last.received;
            all.sent += last.sent;
            all.fields_sent += last.fields_sent;
        }
    }

    /// The stream ends.
    pub(super) fn settle_wire(&mut self) {
        self.settle_upstream_wire();
        let Some(meter) = self.meters.downstream.take() else { return };
        if let Some(details) = &mut self.info.log_details {
            let fields_received = details.downstream_wire.fields_received;
            details.downstream_wire = WireBytes { fields_received, ..meter.read() };
        }
    }

    fn wire_details(&mut self) -> Option<&mut LogDetails> {
        self.info.log_details.as_deref_mut().filter(|_| self.hcm.access_logs.captures.wire)
    }
}

/// As Envoy counts: without the space behind the colon; a head without fields has an empty one.
fn fields_received(headers: &HeaderMap) -> u64 {
    const AROUND: usize = ":\r\n".len();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND).sum();
    bytes.max(AROUND) as u64
}
