//! How much the codecs hold of what one side sends faster than the other side takes it: `per_connection_buffer_limit_bytes`.
//!
//! The limit of the listener bounds what is held for clients, the one of the cluster what is held for upstreams; each way of an exchange
//! counts by itself. With HTTP/1 that is the connection, with HTTP/2 each stream. What is read last may go beyond it.
//!
//! Envoy grants a whole window and stops granting more when it holds too much; so it may hold a window above its limit. Here the
//! window of a stream is no larger than the limit.

/// Sizes which no limit makes larger: what waits to be written on an HTTP/1 connection, and what waits to be sent on an HTTP/2 stream.
const HTTP1_BUFFER: usize = 408 << 10;
const HTTP2_SEND_BUFFER: usize = 400 << 10;

/// No limit goes below one frame of HTTP/2.
const LEAST: u32 = 16 << 10;

/// What may wait to be written on an HTTP/1 connection before more is asked for.
pub(super) fn http1_buffer(limit: u32) -> usize {
    HTTP1_BUFFER.min(limit.max(LEAST) as usize)
}

/// The window of a stream, where `configured` is asked for.
pub(super) fn http2_stream_window(limit: u32, configured: u32) -> u32 {
    configured.min(limit.max(LEAST))
}

/// What may wait to be sent on a stream.
pub(super) fn http2_send_buffer(limit: u32) -> usize {
    HTTP2_SEND_BUFFER.min(limit.max(LEAST) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_but_for_single_frames() {
        assert_eq!(http1_buffer(100_000), 100_000);
        assert_eq!(http1_buffer(1), LEAST as usize);
        assert_eq!(http1_buffer(u32::MAX), HTTP1_BUFFER);
        assert_eq!(http2_stream_window(1 << 20, 16 << 20), 1 << 20);
        assert_eq!(http2_stream_window(1 << 20, 65_535), 65_535);
        assert_eq!(http2_stream_window(1, 65_535), LEAST);
        assert_eq!(http2_send_buffer(u32::MAX), HTTP2_SEND_BUFFER);
        assert_eq!(http2_send_buffer(100_000), 100_000);
    }
}
