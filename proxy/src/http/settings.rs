//! The compiled `HttpConnectionManager`: what the compiler builds and the connection manager reads.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;

use super::PathRules;
use super::client_certificate::ForwardClientCert;
use super::filters::FilterChain;
use super::local_reply::LocalReplies;
use super::origin::InternalAddresses;
use super::proxy_status::ProxyStatus;
use crate::access_log::AccessLogs;
use crate::cluster::{HeaderCase, Http2KeepAlive};
use crate::config::live::Live;
use crate::route::{RouteConfiguration, Upgrades};
use crate::stats::{HttpStats, Reporter};

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`, compiled.
#[derive(Debug)]
pub struct HttpConnectionManager {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// `envoy_http_*`.
    pub stats: Arc<HttpStats>,
    /// `route_config` or `rds`.
    pub routes: RouteSource,
    /// `access_log`.
    pub access_logs: AccessLogs,
    /// `access_log_options.flush_access_log_on_new_request`.
    pub log_on_new_request: bool,
    /// `access_log_options.flush_log_on_tunnel_successfully_established`.
    pub log_on_tunnel: bool,
    /// `local_reply_config`.
    pub local_replies: Option<LocalReplies>,
    /// `append_local_overload`: what the overload manager refuses says so.
    pub append_local_overload: bool,
    /// `proxy_status_config`.
    pub proxy_status: Option<ProxyStatus>,
    /// `server_name`, default `envoy`.
    pub server_name: HeaderValue,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `use_remote_address`.
    pub use_remote_address: bool,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// Something asks where requests come from: logs, the question of what is inside, filters.
    pub asks_address: bool,
    /// `xff_num_trusted_hops`.
    pub xff_num_trusted_hops: u32,
    /// `internal_address_config`.
    pub internal_addresses: InternalAddresses,
    /// `append_x_forwarded_port`.
    pub append_x_forwarded_port: bool,
    /// `via`, for requests and responses.
    pub via: Option<HeaderValue>,
    /// `generate_request_id`, default true.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub always_set_request_id_in_response: bool,
    /// `http_filters` before the router.
    pub filters: FilterChain,
    /// Router's `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
    /// Router's `respect_expected_rq_timeout`: what an Envoy before this one has told its upstream is the timeout.
    pub respect_expected_timeout: bool,
    /// `normalize_path` and its like.
    pub path: PathRules,
    /// `strip_any_host_port` (`Some(true)`) or `strip_matching_host_port` (`Some(false)`).
    pub strip_host_port: Option<bool>,
    /// `proxy_100_continue`: upstreams say whether clients are to send the body they announce, and what else comes before an answer.
    pub proxy_100_continue: bool,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_host_dot: bool,
    /// How long a request may take.
    pub limits: StreamLimits,
    /// `http_protocol_options`.
    pub http1: HttpOptions1,
    /// `common_http_protocol_options.headers_with_underscores_action`.
    pub underscores: Underscores,
    /// `upgrade_configs`.
    pub upgrades: Upgrades,
    /// Our own: the listener's `outrigger.dev` metadata turns mesh metrics on.
    pub reporter: Option<Reporter>,
}

/// What serves HTTP on the connections of a filter chain.
#[derive(Debug)]
pub struct LiveConnectionManager {
    /// The same for all connections of the chain.
    pub connection: ConnectionOptions,
    current: ArcSwap<HttpConnectionManager>,
}

impl LiveConnectionManager {
    /// For a new chain.
    pub fn new(connection: ConnectionOptions, manager: Arc<HttpConnectionManager>) -> Self {
        Self { connection, current: ArcSwap::new(manager) }
    }

    /// The present one, pinned: a request keeps it to its end.
    pub fn get(&self) -> Arc<HttpConnectionManager> {
        self.current.load_full()
    }

    /// The next request of every connection follows this one.
    pub fn publish(&self, manager: Arc<HttpConnectionManager>) {
        self.current.store(manager);
    }
}

/// What a connection is opened with and has to its end (timeouts: `None` = off). A filter chain whose connections are opened in
/// another way is another chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `codec_type`.
    pub codec: CodecType,
    /// `common_http_protocol_options.idle_timeout`, default 1 h.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`, default off.
    pub max_duration: Option<Duration>,
    /// `drain_timeout`, default 5 s: so long a connection that is to end because of the two above still takes requests.
    pub drain_timeout: Duration,
    /// `delayed_close_timeout`, default 1 s: so long a client whose request was not read to its end may take to read the answer, and to end
    /// the connection. `None`: no time at all.
    pub delayed_close: Option<Duration>,
    /// How long the client may take nothing of what is ready for it: `stream_idle_timeout`, default 5 min.
    pub stall_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`, 0 = no limit.
    pub max_requests: u32,
    /// `request_headers_timeout`, default off.
    pub request_headers_timeout: Option<Duration>,
    /// `max_request_headers_kb` in bytes, default 60 KiB.
    pub max_request_headers_bytes: u32,
    /// `common_http_protocol_options.max_headers_count`, default 100.
    pub max_headers_count: u32,
    /// The listener's `per_connection_buffer_limit_bytes`, default 1 MiB; `u32::MAX`: no limit (0 in the file).
    pub buffer_limit_bytes: u32,
    /// `http2_protocol_options`.
    pub http2: HttpOptions2,
    /// `http_protocol_options.header_key_format`: how names of responses are written to HTTP/1 clients.
    pub header_case: HeaderCase,
    /// `forward_client_cert_details` and `set_current_client_cert_details`: what is said of the client is made once.
    pub forward_client_cert: ForwardClientCert,
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecType {
    /// By ALPN, else by the first bytes.
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only, with prior knowledge.
    Http2,
}

/// `route_specifier`.
#[derive(Debug)]
pub enum RouteSource {
    /// `route_config`.
    Inline(Arc<RouteConfiguration>),
    /// `rds`: the next request sees what is published then.
    Rds(Arc<Live<RouteConfiguration>>),
}

/// `server_header_transformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHeader {
    /// `OVERWRITE`.
    Overwrite,
    /// `APPEND_IF_ABSENT`.
    AppendIfAbsent,
    /// `PASS_THROUGH`.
    PassThrough,
}

/// `headers_with_underscores_action`: what becomes of request headers with an underscore in their name, which some applications take for
/// a hyphen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// `ALLOW`: nothing.
    #[default]
    Allow,
    /// `DROP_HEADER`: they go no further.
    Drop,
    /// `REJECT_REQUEST`: the request is refused (HTTP/1: 400; HTTP/2: its stream is reset).
    Reject,
}

/// Timeouts of a request (`None` = off).
#[derive(Debug, Clone)]
pub struct StreamLimits {
    /// `request_timeout`, default off.
    pub request_timeout: Option<Duration>,
    /// `stream_idle_timeout`, default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_stream_duration`, default off.
    pub max_stream_duration: Option<Duration>,
}

/// `http_protocol_options`.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions1 {
    /// `accept_http_10`.
    pub accept_http_10: bool,
    /// `default_host_for_http_10`.
    pub default_host_for_http_10: Option<HeaderValue>,
    /// `allow_absolute_url`, default true.
    pub allow_absolute_url: bool,
    /// `enable_trailers`: trailers go on from clients and to them.
    pub enable_trailers: bool,
    /// `header_key_format`.
    pub header_case: HeaderCase,
}

/// `http2_protocol_options`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions2 {
    /// `max_concurrent_streams`, default 1024.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size`, bytes, default 16 MiB; no more than the buffer limit is granted.
    pub initial_stream_window_bytes: u32,
    /// `initial_connection_window_size`, bytes, default 24 MiB.
    pub initial_connection_window_bytes: u32,
    /// `allow_connect`: clients may ask for other protocols on a stream (RFC 8441).
    pub allow_connect: bool,
    /// What clients may send that brings nothing.
    pub frames: FrameLimits,
    /// `connection_keepalive`, default off.
    pub keep_alive: Option<Http2KeepAlive>,
}

/// Limits of `http2_protocol_options` for frames of a client that cost work and bring nothing; more ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// `max_consecutive_inbound_frames_with_empty_payload`, default 1.
    pub empty_in_a_row: u32,
    /// `max_inbound_priority_frames_per_stream`, default 100: so many for each stream that was opened, and one stream more.
    pub priorities_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`, default 10: twice as many for each DATA frame, two for each stream,
    /// and five.
    pub window_updates_per_data_frame: u32,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { empty_in_a_row: 1, priorities_per_stream: 100, window_updates_per_data_frame: 10 }
    }
}
