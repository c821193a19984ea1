//! Which streams a log has a line for: `envoy.config.accesslog.v3.AccessLogFilter`.

use crate::formatter::{GrpcStatus, RequestNumber, Values};
use crate::stream_info::{AccessLogType, ResponseFlags};

/// A compiled filter.
#[derive(Debug, Clone)]
pub enum LogFilter {
    /// `not_health_check_filter`.
    NotHealthCheck,
    /// What is the same for every stream here: `traceable_filter` (nothing is traced), `metadata_filter` (no stream has metadata of its own).
    Constant(bool),
    /// `status_code_filter`.
    StatusCode(Comparison),
    /// `duration_filter`, milliseconds.
    Duration(Comparison),
    /// `runtime_filter`.
    Sample {
        /// Of `denominator` streams so many are logged.
        numerator: u64,
        /// 100, 10,000 or 1,000,000.
        denominator: u64,
        /// The request's id, so that all proxies on its way log the same ones; `None`: `use_independent_randomness`.
        of_request: Option<RequestNumber>,
    },
    /// `and_filter`.
    All(Box<[LogFilter]>),
    /// `or_filter`.
    Any(Box<[LogFilter]>),
    /// `header_filter`: the number of the matcher, whose verdict was noted when the request was captured.
    Header {
        /// Index in `AccessLogs::matchers`.
        matcher: u32,
        /// The verdict where there is no request.
        without_request: bool,
    },
    /// `response_flag_filter`: one of these, or any at all.
    ResponseFlag(Option<ResponseFlags>),
    /// `grpc_status_filter`.
    GrpcStatus {
        /// Where the status is.
        status: GrpcStatus,
        /// Bits of statuses.
        among: u32,
        /// `exclude`.
        exclude: bool,
    },
    /// `log_type_filter`.
    LogType {
        /// Such lines.
        among: Box<[AccessLogType]>,
        /// `exclude`.
        exclude: bool,
    },
}

/// `ComparisonFilter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// `op`.
    pub operator: Operator,
    /// `value.default_value`.
    pub value: u64,
}

/// `ComparisonFilter.Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `EQ`.
    Equal,
    /// `GE`.
    AtLeast,
    /// `LE`.
    AtMost,
    /// `NE`.
    NotEqual,
}

impl Comparison {
    fn holds(self, value: u64) -> bool {
        match self.operator {
            Operator::Equal => value == self.value,
            Operator::AtLeast => value >= self.value,
            Operator::AtMost => value <= self.value,
            Operator::NotEqual => value != self.value,
        }
    }
}

/// The status of a stream that says nothing of one.
const UNKNOWN: u32 = 2;

impl LogFilter {
    /// Whether there is a line for the stream.
    pub fn passes(&self, values: Values<'_>) -> bool {
        let info = values.info;
        match self {
            LogFilter::NotHealthCheck => !values.info.health_check,
            LogFilter::Constant(passes) => *passes,
            LogFilter::StatusCode(comparison) => comparison.holds(info.response_code.into()),
            LogFilter::Duration(comparison) => {
                comparison.holds(u64::try_from(info.duration.as_millis()).unwrap_or(u64::MAX))
            }
            LogFilter::Sample { numerator, denominator, of_request } => {
                let number = of_request.as_ref().and_then(|request| request.of(values));
                number.unwrap_or_else(|| fastrand::u64(..)) % denominator < *numerator
            }
            LogFilter::All(filters) => filters.iter().all(|filter| filter.passes(values)),
            LogFilter::Any(filters) => filters.iter().any(|filter| filter.passes(values)),
            LogFilter::Header { matcher, without_request } => match &info.request {
                Some(request) => request.matched >> matcher & 1 == 1,
                None => *without_request,
            },
            LogFilter::ResponseFlag(None) => !info.flags.is_empty(),
            LogFilter::ResponseFlag(Some(flags)) => info.flags.intersects(*flags),
            LogFilter::GrpcStatus { status, among, exclude } => {
                let status = status.of_any(values).unwrap_or(UNKNOWN);
                (among.checked_shr(status).unwrap_or(0) & 1 == 1) != *exclude
            }
            LogFilter::LogType { among, exclude } => among.contains(&values.log_type) != *exclude,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stream_info::StreamInfo;

    fn info() -> StreamInfo {
        let mut info = StreamInfo::of_test();
        info.response_code = 503;
        info.duration = Duration::from_millis(12);
        info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
        info
    }

    fn compare(operator: Operator, value: u64) -> Comparison {
        Comparison { operator, value }
    }

    #[test]
    fn filters_one_by_one() {
        let info = info();
        let values = Values::from(&info);
        let status = |operator, value| LogFilter::StatusCode(compare(operator, value));
        for (filter, passes) in [
            (status(Operator::Equal, 503), true),
            (status(Operator::AtLeast, 504), false),
            (status(Operator::AtMost, 503), true),
            (status(Operator::NotEqual, 503), false),
            (LogFilter::Duration(compare(Operator::AtLeast, 12)), true),
            (LogFilter::Duration(compare(Operator::AtLeast, 13)), false),
            (LogFilter::NotHealthCheck, true),
            (LogFilter::ResponseFlag(None), true),
            (LogFilter::ResponseFlag(Some(ResponseFlags::NO_ROUTE_FOUND)), false),
            (LogFilter::All([status(Operator::Equal, 503), LogFilter::Constant(false)].into()), false),
            (LogFilter::Any([status(Operator::Equal, 503), LogFilter::Constant(false)].into()), true),
            (LogFilter::Header { matcher: 0, without_request: true }, true),
            (LogFilter::LogType { among: [AccessLogType::NotSet].into(), exclude: false }, true),
            (LogFilter::LogType { among: [AccessLogType::NotSet].into(), exclude: true }, false),
            (LogFilter::Sample { numerator: 100, denominator: 100, of_request: None }, true),
            (LogFilter::Sample { numerator: 0, denominator: 100, of_request: None }, false),
        ] {
            assert_eq!(filter.passes(values), passes, "{filter:?}");
        }
    }
}
