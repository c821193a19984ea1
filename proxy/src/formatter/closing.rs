//! How and why connections ended: `%DOWNSTREAM_DETECTED_CLOSE_TYPE%`, `%UPSTREAM_LOCAL_CLOSE_REASON%` and their like.

use super::append::{Appended, text, underscored};
use super::{CapturePlan, Values};
use crate::stream_info::CloseType;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    DownstreamType,
    DownstreamReason,
    DownstreamTransportFailure,
    UpstreamType,
    UpstreamReason,
}

impl Closing {
    /// Compiles the operator `name`; `None`: it is another one's.
    pub(super) fn compile(name: &str, plan: &mut CapturePlan) -> Option<Result<Self, String>> {
        let closing = match name {
            "DOWNSTREAM_DETECTED_CLOSE_TYPE" => Closing::DownstreamType,
            "DOWNSTREAM_LOCAL_CLOSE_REASON" => Closing::DownstreamReason,
            "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Closing::DownstreamTransportFailure,
            "UPSTREAM_DETECTED_CLOSE_TYPE" => Closing::UpstreamType,
            "UPSTREAM_LOCAL_CLOSE_REASON" => Closing::UpstreamReason,
            _ => return None,
        };
        Some(plan.want_details(name).map(|()| closing))
    }

    pub(super) fn append(self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let ends = values.info.log_details.as_deref().map(|details| &details.ends);
        match self {
            Closing::DownstreamType => {
                text(Some(ends.map_or(CloseType::Normal, |ends| ends.downstream).name()), out)
            }
            Closing::DownstreamReason => text(ends.and_then(|ends| ends.local_reason), out),
            Closing::DownstreamTransportFailure => {
                match ends.and_then(|ends| ends.transport_failure.as_deref()) {
                    Some(reason) => underscored(reason, out),
                    None => Appended::Empty,
                }
            }
            Closing::UpstreamType => {
                let of_http = || values.info.upstream_host.as_ref().map(|_| CloseType::Normal);
                text(ends.and_then(|ends| ends.upstream).or_else(of_http).map(CloseType::name), out)
            }
            Closing::UpstreamReason => text(ends.and_then(|ends| ends.upstream_local_reason), out),
        }
    }
}
