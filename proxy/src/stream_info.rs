//! What is known about one stream (an HTTP request, or a TCP connection): the input of access logs and statistics.
//!
//! Owned by the worker that serves the stream; filled as the stream goes on and read once, at its end.

mod connection_ends;
mod log_details;
mod uuid;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::http::uri::PathAndQuery;
use ::http::{HeaderValue, Method, Version};
use smallvec::SmallVec;

use crate::cluster::{Cluster, Host};
use crate::net::Address;
use crate::transport_socket::TlsInfo;

pub use connection_ends::{CloseType, ConnectionEnds, close_reasons};
pub use log_details::{AccessLogType, LogDetails, WireBytes};
pub(crate) use uuid::new_uuid;

/// Why a stream did not end well: a set of Envoy's response flags, which remembers the order in which they came.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags {
    bits: u32,
    /// The flags' bit numbers, five bits each, the first one lowest; as many as there are bits in `bits`.
    order: u64,
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: Self = Self { bits: 1 << $bit, order: $bit };)*
            const NAMES: &'static [(Self, &'static str, &'static str)] = &[$((Self::$name, $short, $long)),*];
        }
    };
}

flags! {
    /// No healthy upstream.
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    /// Upstream request timeout.
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// Local reset.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The upstream reset the stream.
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// The upstream connection could not be made.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The upstream connection ended under the request.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    /// No route, or no filter chain.
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    /// The route's cluster does not exist.
    NO_CLUSTER_FOUND = 9, "NC", "NoClusterFound";
    /// The downstream connection ended under the request.
    DOWNSTREAM_CONNECTION_TERMINATION = 10, "DC", "DownstreamConnectionTermination";
    /// The stream was idle for too long.
    STREAM_IDLE_TIMEOUT = 11, "SI", "StreamIdleTimeout";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 12, "DPE", "DownstreamProtocolError";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 13, "UPE", "UpstreamProtocolError";
    /// The stream reached its maximum duration.
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 14, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// The request or connection reached its maximum duration.
    DURATION_TIMEOUT = 15, "DT", "DurationTimeout";
    /// The overload manager refused the stream.
    OVERLOAD_MANAGER = 16, "OM", "OverloadManagerTerminated";
    /// All connection attempts failed.
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 17, "URX", "UpstreamRetryLimitExceeded";
    /// The request was held up on purpose.
    DELAY_INJECTED = 18, "DI", "DelayInjected";
    /// The request was aborted on purpose.
    FAULT_INJECTED = 19, "FI", "FaultInjected";
    /// The request was rate limited.
    RATE_LIMITED = 20, "RL", "RateLimited";
    /// A health check was answered here with a failure.
    FAILED_LOCAL_HEALTH_CHECK = 21, "LH", "FailedLocalHealthCheck";
    /// A filter's configuration has not come from its source.
    NO_FILTER_CONFIG_FOUND = 22, "NFCF", "NoFilterConfigFound";
    /// The client reset the stream.
    DOWNSTREAM_REMOTE_RESET = 23, "DR", "DownstreamRemoteReset";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self { bits: 0, order: 0 };
    /// The upstream ended the stream.
    pub const BY_UPSTREAM: Self = Self {
        bits: Self::UPSTREAM_REMOTE_RESET.bits
            | Self::UPSTREAM_CONNECTION_FAILURE.bits
            | Self::UPSTREAM_CONNECTION_TERMINATION.bits
            | Self::UPSTREAM_PROTOCOL_ERROR.bits,
        order: 0,
    };

    /// Adds a flag behind those that are there.
    pub fn insert(&mut self, flag: Self) {
        if flag.is_empty() || self.contains(flag) {
            return;
        }
        // More than twelve at once do not come; their order would be lost, not they themselves.
        let count = self.bits.count_ones();
        self.order |= flag.order.checked_shl(5 * count).unwrap_or(0);
        self.bits |= flag.bits;
    }

    /// Whether all bits of `flag` are set.
    pub fn contains(self, flag: Self) -> bool {
        self.bits & flag.bits == flag.bits
    }

    /// Whether one of the bits of `flags` is set.
    pub fn intersects(self, flags: Self) -> bool {
        self.bits & flags.bits != 0
    }

    /// The flag of this short code.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, short, _)| *short == code).map(|(flag, ..)| *flag)
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The raw bits, to be used as a key.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Envoy's short codes, in the order in which they came.
    pub fn short_codes(self) -> impl Iterator<Item = &'static str> {
        self.names().map(|(short, _)| short)
    }

    /// Envoy's long names (`%RESPONSE_FLAGS_LONG%`).
    pub fn long_names(self) -> impl Iterator<Item = &'static str> {
        self.names().map(|(_, long)| long)
    }

    fn names(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        (0..self.bits.count_ones()).filter_map(move |at| {
            let bit = self.order.checked_shr(5 * at)? & 31;
            Self::NAMES.iter().find(|(flag, ..)| flag.order == bit).map(|(_, short, long)| (*short, *long))
        })
    }
}

impl fmt::Display for ResponseFlags {
    /// Short codes joined by a comma, `-` when empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, code) in self.short_codes().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(code)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `%RESPONSE_CODE_DETAILS%`: the strings that Envoy uses, so that people can search for them.
pub mod details {
    /// The response came from the upstream.
    pub const VIA_UPSTREAM: &str = "via_upstream";
    /// No virtual host or no route matched.
    pub const ROUTE_NOT_FOUND: &str = "route_not_found";
    /// The route names a cluster that does not exist.
    pub const CLUSTER_NOT_FOUND: &str = "cluster_not_found";
    /// The request needs what would have to be asked for, and too much was asked for already.
    pub const TOO_MANY_ON_DEMAND: &str = "on_demand_names_exceeded";
    /// All hosts of the cluster are out, or there is none.
    pub const NO_HEALTHY_UPSTREAM: &str = "no_healthy_upstream";
    /// A filter's configuration has not come from its source, and it has no default.
    pub const FILTER_CONFIG_NOT_FOUND: &str = "filter_config_not_found";
    /// The upstream's redirect was followed here.
    pub const INTERNAL_REDIRECT: &str = "internal_redirect";
    /// The route answered by itself.
    pub const DIRECT_RESPONSE: &str = "direct_response";
    /// The fault filter aborted the request.
    pub const FAULT_ABORT: &str = "fault_filter_abort";
    /// The CORS filter answered a preflight request.
    pub const CORS_RESPONSE: &str = "cors_response";
    /// The local rate limit filter refused the request.
    pub const LOCAL_RATE_LIMITED: &str = "local_rate_limited";
    /// The text of a gRPC-Web request does not come in fours.
    pub const GRPC_WEB_LENGTH: &str = "grpc_base_64_decode_failed_bad_size";
    /// The text of a gRPC-Web request is no base64.
    pub const GRPC_WEB_DATA: &str = "grpc_base_64_decode_failed";
    /// The health check filter answered; nothing speaks against it.
    pub const HEALTH_CHECK_OK: &str = "health_check_ok";
    /// `/healthcheck/fail` was asked for.
    pub const HEALTH_CHECK_FAILED: &str = "health_check_failed";
    /// The upstream's last answer to a health check.
    pub const HEALTH_CHECK_CACHED: &str = "health_check_cached";
    /// A cluster of `cluster_min_healthy_percentages` does not exist.
    pub const HEALTH_CHECK_NO_CLUSTER: &str = "health_check_failed_no_cluster_found";
    /// A cluster of `cluster_min_healthy_percentages` has no host.
    pub const HEALTH_CHECK_CLUSTER_EMPTY: &str = "health_check_failed_cluster_empty";
    /// A cluster of `cluster_min_healthy_percentages` has too few healthy hosts.
    pub const HEALTH_CHECK_CLUSTER_UNHEALTHY: &str = "health_check_failed_cluster_unhealthy";
    /// All of `cluster_min_healthy_percentages` have enough healthy hosts.
    pub const HEALTH_CHECK_CLUSTER_HEALTHY: &str = "health_check_ok_cluster_healthy";
    /// The request's body is larger than the buffer filter allows.
    pub const REQUEST_TOO_LARGE: &str = "request_payload_too_large";
    /// The request's timeout passed before the response was complete.
    pub const RESPONSE_TIMEOUT: &str = "response_timeout";
    /// One attempt took too long.
    pub const PER_TRY_TIMEOUT: &str = "upstream_per_try_timeout";
    /// Nothing moved in one attempt for too long.
    pub const PER_TRY_IDLE_TIMEOUT: &str = "upstream_per_try_idle_timeout";
    /// A circuit breaker was open.
    pub const OVERFLOW: &str = "upstream_reset_before_response_started{overflow}";
    /// Connecting to the upstream failed.
    pub const CONNECTION_FAILURE: &str = "upstream_reset_before_response_started{remote_connection_failure}";
    /// Connecting to the upstream failed in time or on our side.
    pub const CONNECTION_TIMEOUT: &str = "upstream_reset_before_response_started{connection_timeout}";
    /// The upstream closed its connection before it answered.
    pub const CONNECTION_TERMINATION: &str = "upstream_reset_before_response_started{connection_termination}";
    /// The upstream reset the stream before it answered.
    pub const REMOTE_RESET: &str = "upstream_reset_before_response_started{remote_reset}";
    /// The upstream refused the stream before it answered.
    pub const REMOTE_REFUSED: &str = "upstream_reset_before_response_started{remote_refused_stream_reset}";
    /// The upstream sent something that is not HTTP.
    pub const PROTOCOL_ERROR: &str = "upstream_reset_before_response_started{protocol_error}";
    /// The upstream connection ended after the response had begun.
    pub const RESET_AFTER_RESPONSE: &str = "upstream_reset_after_response_started{connection_termination}";
    /// The upstream reset the stream after the response had begun.
    pub const REMOTE_RESET_AFTER_RESPONSE: &str = "upstream_reset_after_response_started{remote_reset}";
    /// The upstream refused the stream after the response had begun.
    pub const REMOTE_REFUSED_AFTER_RESPONSE: &str =
        "upstream_reset_after_response_started{remote_refused_stream_reset}";
    /// The upstream broke the protocol after the response had begun.
    pub const PROTOCOL_ERROR_AFTER_RESPONSE: &str = "upstream_reset_after_response_started{protocol_error}";
    /// The overload manager refused the request.
    pub const OVERLOAD: &str = "overload";
    /// The stream reached its maximum duration.
    pub const MAX_DURATION: &str = "max_duration_timeout";
    /// An attempt reached its maximum duration.
    pub const UPSTREAM_MAX_DURATION: &str = "upstream_max_stream_duration_reached";
    /// HTTP/1.0 is not accepted.
    pub const LOW_VERSION: &str = "low_version";
    /// The path is neither absolute nor `*`.
    pub const ABSOLUTE_PATH: &str = "absolute_path_rejected";
    /// The client went away.
    pub const DOWNSTREAM_REMOTE_DISCONNECT: &str = "downstream_remote_disconnect";
    /// The client reset its stream of HTTP/2.
    pub const HTTP2_REMOTE_RESET: &str = "http2.remote_reset";
    /// The client's HTTP/1 message was not valid.
    pub const HTTP1_CODEC_ERROR: &str = "http1.codec_error";
    /// Content-Length and Transfer-Encoding in one request.
    pub const LENGTH_AND_CHUNKED: &str = "http1.content_length_and_chunked_not_allowed";
    /// A NUL in a head.
    pub const INVALID_CHARACTERS: &str = "http1.invalid_characters";
    /// The head is larger than `max_request_headers_kb`.
    pub const HEADERS_TOO_LARGE: &str = "http1.headers_too_large";
    /// More headers than `max_headers_count`.
    pub const TOO_MANY_HEADERS: &str = "http1.too_many_headers";
    /// The same of HTTP/2.
    pub const HTTP2_TOO_MANY_HEADERS: &str = "http2.too_many_headers";
    /// A transfer encoding other than `chunked`.
    pub const INVALID_TRANSFER_ENCODING: &str = "http1.invalid_transfer_encoding";
    /// The path cannot be brought to its normal form.
    pub const PATH_NORMALIZATION_FAILED: &str = "path_normalization_failed";
    /// The client asked for an upgrade that is not allowed.
    pub const UPGRADE_FAILED: &str = "upgrade_failed";
    /// The stream was idle for too long.
    pub const STREAM_IDLE_TIMEOUT: &str = "stream_idle_timeout";
    /// The request's head was not received in time.
    pub const REQUEST_HEADER_TIMEOUT: &str = "request_header_timeout";
    /// The whole request was not received in time.
    pub const REQUEST_OVERALL_TIMEOUT: &str = "request_overall_timeout";
    /// The request has a header with an underscore in its name, which configuration does not allow (HTTP/1).
    pub const HTTP1_UNEXPECTED_UNDERSCORE: &str = "http1.unexpected_underscore";
    /// The same over HTTP/2.
    pub const HTTP2_UNEXPECTED_UNDERSCORE: &str = "http2.unexpected_underscore";
    /// CONNECT over HTTP/1 announces a body.
    pub const BODY_DISALLOWED: &str = "http1.body_disallowed";
    /// The request has no host.
    pub const MISSING_HOST: &str = "missing_host_header";
    /// The request's host is not valid, or there are several.
    pub const INVALID_AUTHORITY: &str = "http.invalid_authority";
    /// The request has no path.
    pub const MISSING_PATH: &str = "missing_path_rejected";
    /// The connection matched no filter chain.
    pub const FILTER_CHAIN_NOT_FOUND: &str = "filter_chain_not_found";
}

/// What one downstream connection is: shared by all of its streams.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Our end of the connection, or the original destination when that was restored.
    pub local_address: Address,
    /// Our end of the connection as the socket has it.
    pub direct_local_address: Address,
    /// The destination that the peer had asked for, when a listener filter restored it; then `local_address` is the same.
    pub original_destination: Option<SocketAddr>,
    /// The direct peer's end of the connection.
    pub peer_address: Address,
    /// The server name that the client asked for, by TLS inspection or handshake.
    pub requested_server_name: Option<Arc<str>>,
    /// The finished TLS handshake, if there was one.
    pub tls: Option<TlsInfo>,
    /// Increasing number, unique in the process.
    pub connection_id: u64,
    /// The name of the filter chain that serves it.
    pub filter_chain: Arc<str>,
    /// Of its ClientHello, where a listener filter was asked for them.
    pub fingerprints: Option<Box<TlsFingerprints>>,
    /// When it was accepted.
    pub opened: Instant,
    /// When its handshake had ended, with TLS.
    pub secured: Option<Instant>,
}

/// Fingerprints of a ClientHello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFingerprints {
    /// MD5 in hexadecimal.
    pub ja3: Option<Box<str>>,
    /// `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    pub ja4: Option<Box<str>>,
}

/// The parts of a request that access logs may print, captured when the request goes upstream.
#[derive(Debug, Clone, Default)]
pub struct CapturedRequest {
    /// `:method`.
    pub method: Method,
    /// `:path` as the client sent it (after normalisation), `None` for CONNECT.
    pub path: Option<PathAndQuery>,
    /// `:authority`.
    pub authority: Option<HeaderValue>,
    /// `:scheme`.
    pub scheme: &'static str,
    /// Values of the headers in the HCM's `CapturePlan`, in its order.
    pub headers: SmallVec<[Option<HeaderValue>; 4]>,
    /// A bit for each matcher of the logs that took it.
    pub matched: u64,
}

/// One stream, from its first byte to its end.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// The downstream connection that carries it.
    pub connection: Arc<ConnectionInfo>,
    /// When the first byte of the request was seen, monotonic.
    pub start: Instant,
    /// The same by the wall clock, for logs.
    pub start_time: SystemTime,
    /// The client's address behind other proxies, where it is not the connection's.
    pub remote_address: Option<SocketAddr>,
    /// HTTP version of the downstream side; `None` for TCP.
    pub protocol: Option<Version>,
    /// Request parts for logs; `None` for TCP.
    pub request: Option<CapturedRequest>,
    /// Values of the response headers in the HCM's `CapturePlan`, in its order.
    pub response_headers: SmallVec<[Option<HeaderValue>; 2]>,
    /// Status sent downstream; 0 when none was sent.
    pub response_code: u16,
    /// `grpc-status` of a gRPC call's response, in headers or trailers; what is none of gRPC's own numbers is UNKNOWN (2).
    pub grpc_status: Option<u8>,
    /// One static string that says how the response came about; empty is `-`.
    pub response_code_details: &'static str,
    /// Why it failed.
    pub flags: ResponseFlags,
    /// Request body bytes (or TCP bytes) received from downstream.
    pub bytes_received: u64,
    /// Response body bytes (or TCP bytes) sent to downstream.
    pub bytes_sent: u64,
    /// It is a health check by somebody else (`envoy.filters.http.health_check`).
    pub health_check: bool,
    /// The matched route's name.
    pub route_name: Option<Arc<str>>,
    /// The cluster that was chosen.
    pub upstream_cluster: Option<Arc<Cluster>>,
    /// The host of the last attempt.
    pub upstream_host: Option<Arc<Host>>,
    /// Our address on the upstream connection.
    pub upstream_local_address: Option<SocketAddr>,
    /// HTTP version of the upstream side.
    pub upstream_protocol: Option<Version>,
    /// TLS of the upstream connection.
    pub upstream_tls: Option<Arc<TlsInfo>>,
    /// Why the upstream's transport failed, for people.
    pub upstream_transport_failure: Option<Arc<str>>,
    /// Number of upstream attempts.
    pub attempt_count: u32,
    /// From start until the request's last byte was received.
    pub request_complete: Option<Duration>,
    /// From start until the upstream's first response byte.
    pub first_upstream_byte: Option<Duration>,
    /// From start until the end, or until now for a stream that goes on.
    pub duration: Duration,
    /// What the formats of its logs ask for beyond this.
    pub log_details: Option<Box<LogDetails>>,
}

impl ConnectionInfo {
    /// Of a request of our own: nobody's connection stands for it but one on the loopback interface, as in Envoy.
    pub fn of_own_request() -> Self {
        Self::on_loopback(0, 0)
    }

    fn on_loopback(port: u16, connection_id: u64) -> Self {
        let address = Address::Ip((std::net::Ipv4Addr::LOCALHOST, port).into());
        Self {
            local_address: address.clone(),
            direct_local_address: address.clone(),
            original_destination: None,
            peer_address: address,
            requested_server_name: None,
            tls: None,
            connection_id,
            filter_chain: "".into(),
            fingerprints: None,
            opened: Instant::now(),
            secured: None,
        }
    }
}

#[cfg(test)]
impl StreamInfo {
    /// Of a connection on the loopback interface.
    pub(crate) fn of_test() -> Self {
        Self::new(Arc::new(ConnectionInfo::on_loopback(80, 7)), Some(Version::HTTP_11))
    }
}

impl StreamInfo {
    /// A stream that begins now.
    pub fn new(connection: Arc<ConnectionInfo>, protocol: Option<Version>) -> Self {
        Self {
            connection,
            start: Instant::now(),
            start_time: SystemTime::now(),
            remote_address: None,
            protocol,
            request: None,
            response_headers: SmallVec::new(),
            response_code: 0,
            grpc_status: None,
            response_code_details: "",
            flags: ResponseFlags::NONE,
            bytes_received: 0,
            bytes_sent: 0,
            health_check: false,
            route_name: None,
            upstream_cluster: None,
            upstream_host: None,
            upstream_local_address: None,
            upstream_protocol: None,
            upstream_tls: None,
            upstream_transport_failure: None,
            attempt_count: 0,
            request_complete: None,
            first_upstream_byte: None,
            duration: Duration::ZERO,
            log_details: None,
        }
    }
}

/// gRPC status → HTTP status, by the table of `google.rpc.Code`.
pub(crate) fn http_status_of_grpc(status: u16) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// HTTP status → gRPC status, by the table of the gRPC project.
pub(crate) fn grpc_status_of_http(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
