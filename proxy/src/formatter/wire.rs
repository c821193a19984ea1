//! `%DOWNSTREAM_WIRE_BYTES_SENT%`, `%UPSTREAM_HEADER_BYTES_RECEIVED%` and their like.

use http::Version;

use super::append::{Appended, number};
use super::tls::Side;
use super::{CapturePlan, Values};
use crate::stream_info::WireBytes;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wire {
    side: Side,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Received,
    Sent,
    FieldsReceived,
    FieldsSent,
    /// Below HTTP there are no headers.
    Nothing,
}

impl Wire {
    /// Compiles the operator `name`; `None`: it is another one's.
    pub(super) fn compile(name: &str, plan: &mut CapturePlan) -> Option<Result<Self, String>> {
        let (side, rest) = Side::of(name)?;
        let part = match rest {
            "WIRE_BYTES_RECEIVED" => Part::Received,
            "WIRE_BYTES_SENT" => Part::Sent,
            // HTTP/1 compresses none.
            "HEADER_BYTES_RECEIVED" | "DECOMPRESSED_HEADER_BYTES_RECEIVED" => Part::FieldsReceived,
            "HEADER_BYTES_SENT" | "DECOMPRESSED_HEADER_BYTES_SENT" => Part::FieldsSent,
            _ => return None,
        };
        let part = if plan.is_tcp() && !rest.starts_with("WIRE") { Part::Nothing } else { part };
        Some(plan.want_wire(name).map(|()| Self { side, part }))
    }

    pub(super) fn append(self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let info = values.info;
        let details = info.log_details.as_deref();
        let (version, bytes) = match self.side {
            Side::Downstream => (info.protocol, details.map(|details| details.downstream_wire)),
            Side::Upstream => (info.upstream_protocol, details.map(|details| details.upstream_wire)),
        };
        let bytes = match (info.protocol, self.side) {
            // All that there is goes through.
            (None, Side::Downstream) => {
                WireBytes { received: info.bytes_received, sent: info.bytes_sent, ..WireBytes::default() }
            }
            (None, Side::Upstream) => {
                WireBytes { received: info.bytes_sent, sent: info.bytes_received, ..WireBytes::default() }
            }
            (Some(_), _) if version == Some(Version::HTTP_2) => return Appended::Empty,
            (Some(_), _) => match bytes {
                Some(bytes) => bytes,
                // It never became a request.
                None => return Appended::Empty,
            },
        };
        let count = match self.part {
            Part::Received => bytes.received,
            Part::Sent => bytes.sent,
            Part::FieldsReceived => bytes.fields_received,
            Part::FieldsSent => bytes.fields_sent,
            Part::Nothing => 0,
        };
        number(count, out)
    }
}
