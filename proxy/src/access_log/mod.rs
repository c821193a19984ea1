//! Access logs: a format compiled to operations, appended to a worker's buffer, written by one thread per file.

use http::HeaderName;

/// Which headers the access logs of one connection manager print. Built while the formats compile; a format refers to a header by
/// its index here, so nothing is looked up by name when a line is written.
#[derive(Debug, Clone, Default)]
pub struct CapturePlan {
    /// Request headers, without pseudo-headers.
    pub request: Vec<HeaderName>,
    /// Response headers.
    pub response: Vec<HeaderName>,
}

/// One compiled `envoy.config.accesslog.v3.AccessLog`.
#[derive(Debug)]
pub struct AccessLog {}
