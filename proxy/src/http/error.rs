//! Why a stream failed, as data: every failure has one flag, one details string and one status.

use std::sync::Arc;

use http::StatusCode;

use crate::stats::HttpStats;
use crate::stream_info::{ResponseFlags, details};

/// The abnormal end of one upstream attempt, before or after the response began.
#[derive(Debug, Clone)]
pub(crate) struct StreamError {
    pub(crate) kind: Failure,
    /// The transport's own words, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) transport_failure: Option<Arc<str>>,
    /// Other attempts had failed before.
    pub(crate) retried: bool,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The route's cluster does not exist.
    NoCluster(StatusCode),
    /// The cluster has no host that may take the request.
    NoHealthyHost,
    /// A circuit breaker is open.
    Overflow,
    /// Connecting failed.
    ConnectRefused,
    /// Connecting took too long.
    ConnectTimeout,
    /// The upstream closed the connection.
    ConnectionTermination,
    /// The upstream reset the stream.
    RemoteReset,
    /// The upstream refused the stream.
    RemoteRefused,
    /// The upstream broke the protocol.
    Protocol,
    /// The route's timeout passed.
    Timeout,
    /// One attempt took too long.
    PerTryTimeout,
    /// Nothing moved in one attempt for too long.
    PerTryIdle,
    /// The request's head was not received in time.
    HeaderTimeout,
    /// The whole request was not received in time.
    RequestTimeout,
    /// Nothing moved for too long.
    StreamIdle,
    /// The stream reached its maximum duration.
    MaxDuration,
    /// An attempt reached the maximum duration that the request allows it.
    UpstreamMaxDuration,
    /// The client's side of the request failed while its body was forwarded.
    Downstream,
    /// The client's body is not what its framing says.
    DownstreamProtocol,
    /// The client's gRPC-Web text does not come in fours.
    GrpcWebLength,
    /// The client's gRPC-Web text is no base64.
    GrpcWebData,
}

impl From<Failure> for StreamError {
    fn from(kind: Failure) -> Self {
        Self { kind, transport_failure: None, retried: false }
    }
}

impl Failure {
    /// The response flag.
    pub(crate) fn flag(self) -> ResponseFlags {
        match self {
            Failure::NoCluster(_) => ResponseFlags::NO_CLUSTER_FOUND,
            Failure::NoHealthyHost => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Failure::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Failure::ConnectRefused | Failure::ConnectTimeout => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Failure::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Failure::RemoteReset | Failure::RemoteRefused => ResponseFlags::UPSTREAM_REMOTE_RESET,
            Failure::Protocol => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle => {
                ResponseFlags::UPSTREAM_REQUEST_TIMEOUT
            }
            // As in Envoy: the details say it.
            Failure::HeaderTimeout
            | Failure::RequestTimeout
            | Failure::MaxDuration
            | Failure::GrpcWebLength
            | Failure::GrpcWebData => ResponseFlags::NONE,
            Failure::StreamIdle => ResponseFlags::STREAM_IDLE_TIMEOUT,
            Failure::UpstreamMaxDuration => ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
            Failure::Downstream => ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
            Failure::DownstreamProtocol => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`, while no response has begun.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Failure::NoCluster(_) => details::CLUSTER_NOT_FOUND,
            Failure::NoHealthyHost => details::NO_HEALTHY_UPSTREAM,
            Failure::Overflow => details::OVERFLOW,
            Failure::ConnectRefused => details::CONNECTION_FAILURE,
            Failure::ConnectTimeout => details::CONNECTION_TIMEOUT,
            Failure::ConnectionTermination => details::CONNECTION_TERMINATION,
            Failure::RemoteReset => details::REMOTE_RESET,
            Failure::RemoteRefused => details::REMOTE_REFUSED,
            Failure::Protocol => details::PROTOCOL_ERROR,
            Failure::Timeout => details::RESPONSE_TIMEOUT,
            Failure::PerTryTimeout => details::PER_TRY_TIMEOUT,
            Failure::PerTryIdle => details::PER_TRY_IDLE_TIMEOUT,
            Failure::HeaderTimeout => details::REQUEST_HEADER_TIMEOUT,
            Failure::RequestTimeout => details::REQUEST_OVERALL_TIMEOUT,
            Failure::StreamIdle => details::STREAM_IDLE_TIMEOUT,
            Failure::MaxDuration => details::MAX_DURATION,
            Failure::UpstreamMaxDuration => details::UPSTREAM_MAX_DURATION,
            Failure::Downstream => details::DOWNSTREAM_REMOTE_DISCONNECT,
            Failure::DownstreamProtocol => details::HTTP1_CODEC_ERROR,
            Failure::GrpcWebLength => details::GRPC_WEB_LENGTH,
            Failure::GrpcWebData => details::GRPC_WEB_DATA,
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`, once the response has begun.
    pub(crate) fn details_after_response(self) -> &'static str {
        match self {
            Failure::ConnectionTermination => details::RESET_AFTER_RESPONSE,
            Failure::RemoteReset => details::REMOTE_RESET_AFTER_RESPONSE,
            Failure::RemoteRefused => details::REMOTE_REFUSED_AFTER_RESPONSE,
            Failure::Protocol => details::PROTOCOL_ERROR_AFTER_RESPONSE,
            other => other.details(),
        }
    }

    /// The status of the local reply to a request that was received whole.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Failure::NoCluster(status) => status,
            Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle => StatusCode::GATEWAY_TIMEOUT,
            Failure::HeaderTimeout | Failure::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Failure::StreamIdle | Failure::MaxDuration | Failure::UpstreamMaxDuration => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Failure::Downstream
            | Failure::DownstreamProtocol
            | Failure::GrpcWebLength
            | Failure::GrpcWebData => StatusCode::BAD_REQUEST,
            Failure::Protocol => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Envoy's words in the body of the local reply.
    pub(crate) fn reset_reason(self) -> Option<&'static str> {
        match self {
            Failure::Overflow => Some("overflow"),
            Failure::ConnectRefused => Some("remote connection failure"),
            Failure::ConnectTimeout => Some("connection timeout"),
            Failure::ConnectionTermination => Some("connection termination"),
            Failure::RemoteReset => Some("remote reset"),
            Failure::RemoteRefused => Some("remote refused stream reset"),
            Failure::Protocol => Some("protocol error"),
            _ => None,
        }
    }

    /// Counts the connection manager's own timeouts.
    pub(crate) fn count_late(self, stats: &HttpStats) {
        match self {
            Failure::HeaderTimeout => stats.downstream_rq_header_timeout.inc(),
            Failure::StreamIdle => stats.downstream_rq_idle_timeout.inc(),
            Failure::MaxDuration => stats.downstream_rq_max_duration_reached.inc(),
            Failure::RequestTimeout => stats.downstream_rq_timeout.inc(),
            _ => {}
        }
    }

    /// Whether the upstream is to blame, so that outlier detection counts it as a 5xx.
    pub(crate) fn blames_upstream(self) -> bool {
        matches!(
            self,
            Failure::ConnectRefused
                | Failure::ConnectTimeout
                | Failure::ConnectionTermination
                | Failure::RemoteReset
                | Failure::RemoteRefused
                | Failure::Protocol
                | Failure::Timeout
                | Failure::PerTryTimeout
                | Failure::PerTryIdle
        )
    }
}
