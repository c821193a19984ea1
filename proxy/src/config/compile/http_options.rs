//! `HttpProtocolOptions`, `Http1ProtocolOptions`, `Http2ProtocolOptions`: shared by both sides of the proxy.

use std::time::Duration;

use outrigger_xds_api::wire::core::v3 as wire;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::header_case::compile_header_case;
use super::values;
use crate::cluster::Http2KeepAlive;
use crate::http::{FrameLimits, HttpOptions1, HttpOptions2, Underscores};

/// Envoy's default idle timeout of a connection, both sides.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Envoy's default number of header fields.
const MAX_HEADERS_COUNT: u32 = 100;
/// Envoy's defaults for HTTP/2: streams, bytes a stream, bytes a connection.
pub(crate) const MAX_CONCURRENT_STREAMS: u32 = 1024;
/// Envoy's default of `interval_jitter`.
const KEEP_ALIVE_JITTER_PERCENT: f64 = 15.0;
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 24 * 1024 * 1024;

/// `common_http_protocol_options`.
#[derive(Debug, Clone)]
pub(crate) struct CommonHttpOptions {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) max_headers_count: u32,
    pub(crate) max_response_headers_bytes: Option<u32>,
    pub(crate) max_requests_per_connection: u32,
    pub(crate) underscores: Underscores,
}

/// Which side of the proxy the options are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Downstream,
    Upstream,
}

/// Compiles `common_http_protocol_options`, at the context's present path.
pub(crate) fn compile_common(
    cx: &mut CompileCx<'_>,
    value: &wire::HttpProtocolOptions,
    side: Side,
) -> Compiled<CommonHttpOptions> {
    use wire::http_protocol_options::HeadersWithUnderscoresAction;
    let wire::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = value;
    ignored!(cx; max_connection_duration_jitter);
    let action = values::enumeration(cx, "headers_with_underscores_action", *headers_with_underscores_action);
    let underscores = action.map(|action| match action {
        HeadersWithUnderscoresAction::Allow => Underscores::Allow,
        HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
        HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
    });
    if side == Side::Upstream && *headers_with_underscores_action != 0 {
        // Envoy: not applicable to upstream connections.
        cx.ignored("headers_with_underscores_action");
    }
    if side == Side::Downstream {
        ignored!(cx; max_response_headers_kb);
    }
    let max_headers_count = values::uint32(max_headers_count, MAX_HEADERS_COUNT);
    if max_headers_count == 0 {
        cx.refuse("max_headers_count", "value must be greater than or equal to 1");
    }
    Ok(CommonHttpOptions {
        idle_timeout: values::timeout(cx, "idle_timeout", idle_timeout, Some(IDLE_TIMEOUT)),
        max_connection_duration: values::timeout(
            cx,
            "max_connection_duration",
            max_connection_duration,
            None,
        ),
        max_stream_duration: values::timeout(cx, "max_stream_duration", max_stream_duration, None),
        max_headers_count,
        max_response_headers_bytes: max_response_headers_kb.map(|kb| kb.value.saturating_mul(1024)),
        max_requests_per_connection: values::uint32(max_requests_per_connection, 0),
        underscores: underscores?,
    })
}

/// Compiles `http_protocol_options`, at the context's present path.
pub(crate) fn compile_http1(
    cx: &mut CompileCx<'_>,
    value: &wire::Http1ProtocolOptions,
    side: Side,
) -> Compiled<HttpOptions1> {
    let wire::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = value;
    unsupported!(cx; allow_chunked_length, send_fully_qualified_url,
        ignore_http_11_upgrade);
    // A malformed message always ends its connection; any method is passed on.
    ignored!(cx; override_stream_error_on_invalid_http_message, allow_custom_methods);
    informational!(use_balsa_parser);
    if side == Side::Upstream {
        ignored!(cx; accept_http_10, default_host_for_http_10, allow_absolute_url);
    }
    let default_host_for_http_10 = if default_host_for_http_10.is_empty() {
        None
    } else {
        Some(values::header_value(cx, "default_host_for_http_10", default_host_for_http_10)?)
    };
    let header_case = cx.field("header_key_format", |cx| compile_header_case(cx, header_key_format))?;
    Ok(HttpOptions1 {
        enable_trailers: *enable_trailers,
        header_case,
        accept_http_10: *accept_http_10,
        default_host_for_http_10,
        allow_absolute_url: values::boolean(allow_absolute_url, true),
    })
}

/// Compiles `http2_protocol_options`, at the context's present path.
pub(crate) fn compile_http2(
    cx: &mut CompileCx<'_>,
    value: &wire::Http2ProtocolOptions,
    side: Side,
) -> Compiled<HttpOptions2> {
    let wire::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = value;
    unsupported!(cx; allow_metadata, custom_settings_parameters);
    // The engine holds back no more than one answer of each kind, and has its own limit for resets; the rest tunes Envoy's codec.
    ignored!(cx; hpack_table_size, max_outbound_frames, max_outbound_control_frames, stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message, enable_huffman_encoding,
        max_header_field_size_kb, disallow_obs_text, stream_reset_burst, stream_reset_rate);
    informational!(use_oghttp2_codec, max_metadata_size);
    if side == Side::Upstream {
        // A host of our own is trusted with this.
        ignored!(cx; max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
            max_inbound_window_update_frames_per_data_frame_sent);
    }
    let default = FrameLimits::default();
    let frames = FrameLimits {
        empty_in_a_row: values::uint32(
            max_consecutive_inbound_frames_with_empty_payload,
            default.empty_in_a_row,
        ),
        priorities_per_stream: values::uint32(
            max_inbound_priority_frames_per_stream,
            default.priorities_per_stream,
        ),
        window_updates_per_data_frame: values::uint32(
            max_inbound_window_update_frames_per_data_frame_sent,
            default.window_updates_per_data_frame,
        ),
    };
    let keep_alive =
        cx.field("connection_keepalive", |cx| compile_keep_alive(cx, connection_keepalive, side));
    Ok(HttpOptions2 {
        keep_alive: keep_alive?,
        frames,
        // Clusters need none: a client may ask, and the upstream says whether it agrees.
        allow_connect: *allow_connect,
        max_concurrent_streams: in_range(
            cx,
            "max_concurrent_streams",
            values::uint32(max_concurrent_streams, MAX_CONCURRENT_STREAMS),
            1,
        ),
        initial_stream_window_bytes: in_range(
            cx,
            "initial_stream_window_size",
            values::uint32(initial_stream_window_size, STREAM_WINDOW_BYTES),
            65_535,
        ),
        initial_connection_window_bytes: in_range(
            cx,
            "initial_connection_window_size",
            values::uint32(initial_connection_window_size, CONNECTION_WINDOW_BYTES),
            65_535,
        ),
    })
}

fn compile_keep_alive(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::KeepaliveSettings>,
    side: Side,
) -> Compiled<Option<Http2KeepAlive>> {
    let Some(value) = value else { return Ok(None) };
    let wire::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = value;
    // Idle connections are looked at before they are used, but no PING goes before a request. Envoy has it for clients only.
    if side == Side::Upstream {
        ignored!(cx; connection_idle_interval);
    }
    let jitter = interval_jitter.as_ref().map_or(KEEP_ALIVE_JITTER_PERCENT, |percent| percent.value);
    let jitter_percent = cx.field("interval_jitter", |cx| values::percent(cx, "value", jitter))?;
    let timeout = values::duration(cx, "timeout", timeout).unwrap_or_default();
    if timeout < Duration::from_millis(1) {
        cx.refuse("timeout", "value must be greater than or equal to 1ms");
    }
    let interval = values::timeout(cx, "interval", interval, None);
    if interval.is_some_and(|interval| interval < Duration::from_millis(1)) {
        cx.refuse("interval", "value must be greater than or equal to 1ms");
    }
    Ok(interval.map(|interval| Http2KeepAlive { interval, timeout, jitter_percent }))
}

/// HTTP/2 settings end at 2^31 - 1; Envoy wants windows of at least the protocol's own default.
fn in_range(cx: &mut CompileCx<'_>, name: &str, value: u32, min: u32) -> u32 {
    if !(min..=0x7fff_ffff).contains(&value) {
        cx.refuse(name, format!("value must be inside range [{min}, 2147483647]"));
    }
    value
}
