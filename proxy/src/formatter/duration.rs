//! `%COMMON_DURATION(START:END:PRECISION)%`.

use std::time::Instant;

use super::append::{Appended, number};
use super::{CapturePlan, Values};
use crate::stream_info::StreamInfo;

/// A moment in a stream's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    ConnectionBegin,
    ConnectionEnd,
    RequestBegin,
    RequestEnd,
    ConnectBegin,
    ConnectEnd,
    HandshakeEnd,
    UpstreamRequestBegin,
    UpstreamRequestEnd,
    UpstreamResponseBegin,
    UpstreamBodyBegin,
    UpstreamResponseEnd,
    ResponseBegin,
    ResponseEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommonDuration {
    from: Moment,
    to: Moment,
    /// Nanoseconds.
    unit: u128,
}

impl CommonDuration {
    /// Compiles what stands in the brackets.
    ///
    /// # Errors
    /// In Envoy's words; a moment that Envoy does not know itself is one that a filter would have to set, and none here does.
    pub(super) fn compile(parameters: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        plan.want_details("COMMON_DURATION")?;
        let parts: Vec<&str> = parameters.split(':').collect();
        let (from, to, precision) = match parts[..] {
            [from, to] => (from, to, "ms"),
            [from, to, precision] => (from, to, precision),
            _ if parameters.is_empty() => return Err("COMMON_DURATION requires parameters".into()),
            _ => return Err(format!("Invalid common duration configuration: {parameters}.")),
        };
        let unit = match precision {
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            other => return Err(format!("Invalid common duration precision: {other}.")),
        };
        Ok(Self { from: Moment::compile(from)?, to: Moment::compile(to)?, unit })
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let (from, to) = (self.from.of(values.info), self.to.of(values.info));
        match from.zip(to).and_then(|(from, to)| to.checked_duration_since(from)) {
            Some(duration) => number(u64::try_from(duration.as_nanos() / self.unit).unwrap_or(u64::MAX), out),
            None => Appended::Empty,
        }
    }
}

impl Moment {
    fn compile(name: &str) -> Result<Self, String> {
        Ok(match name {
            "DS_CX_BEG" => Moment::ConnectionBegin,
            "DS_CX_END" => Moment::ConnectionEnd,
            "DS_RX_BEG" => Moment::RequestBegin,
            "DS_RX_END" => Moment::RequestEnd,
            "US_CX_BEG" => Moment::ConnectBegin,
            "US_CX_END" => Moment::ConnectEnd,
            "US_HS_END" => Moment::HandshakeEnd,
            "US_TX_BEG" => Moment::UpstreamRequestBegin,
            "US_TX_END" => Moment::UpstreamRequestEnd,
            "US_RX_BEG" => Moment::UpstreamResponseBegin,
            "US_RX_BODY_BEG" => Moment::UpstreamBodyBegin,
            "US_RX_END" => Moment::UpstreamResponseEnd,
            "DS_TX_BEG" => Moment::ResponseBegin,
            "DS_TX_END" => Moment::ResponseEnd,
            other => return Err(format!("COMMON_DURATION: no filter here sets the time point '{other}'")),
        })
    }

    fn of(self, info: &StreamInfo) -> Option<Instant> {
        let details = info.log_details.as_deref()?;
        let is_http = info.protocol.is_some();
        match self {
            Moment::ConnectionBegin => Some(info.connection.opened),
            Moment::ConnectionEnd => (!is_http).then(|| info.start + info.duration),
            Moment::RequestBegin => Some(info.start),
            Moment::RequestEnd => Some(info.start + info.request_complete?),
            Moment::ConnectBegin => Some(details.connect?.begin),
            Moment::ConnectEnd => Some(details.connect?.connected),
            Moment::HandshakeEnd => details.connect?.secured,
            Moment::UpstreamRequestBegin => details.upstream_tx_begin,
            Moment::UpstreamRequestEnd => upstream_request_end(info),
            Moment::UpstreamResponseBegin => Some(info.start + info.first_upstream_byte?),
            Moment::UpstreamBodyBegin => details.upstream_rx_body_begin,
            Moment::UpstreamResponseEnd => details.upstream_rx_end,
            Moment::ResponseBegin => details.downstream_tx_begin,
            Moment::ResponseEnd => details.downstream_tx_begin.map(|_| info.start + info.duration),
        }
    }
}

/// When the request's last byte went upstream.
pub(super) fn upstream_request_end(info: &StreamInfo) -> Option<Instant> {
    let begin = info.log_details.as_deref()?.upstream_tx_begin?;
    Some(begin.max(info.start + info.request_complete?))
}
