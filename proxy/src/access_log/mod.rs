//! Access logs: a format compiled to operations, appended to a worker's buffer, written by one thread per file.
//!
//! [`Format`]s are compiled and [`LogFile`]s opened on main, with the configuration. A worker owns one [`LogBuffers`]: writing a
//! line appends bytes to it, nothing else. Buffers go to the file's thread when they are full and at the worker's tick.

mod file;
mod format;
mod json;
mod operator;
mod time;

use std::sync::Arc;

use http::HeaderName;

pub use file::{LogBuffers, LogFile, LogFiles, Sink};
pub use format::{DEFAULT_FORMAT, Format};

use crate::stream_info::StreamInfo;

/// Which headers the access logs of one connection manager print. Built while the formats compile; a format refers to a header by
/// its index here, so nothing is looked up by name when a line is written.
#[derive(Debug, Clone, Default)]
pub struct CapturePlan {
    /// Request headers, without pseudo-headers.
    pub request: Vec<HeaderName>,
    /// Response headers.
    pub response: Vec<HeaderName>,
}

impl CapturePlan {
    fn index(names: &mut Vec<HeaderName>, name: HeaderName) -> usize {
        names.iter().position(|n| *n == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
    }
}

/// One compiled `envoy.config.accesslog.v3.AccessLog`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    format: Arc<Format>,
    file: Arc<LogFile>,
}

impl AccessLog {
    /// A log that writes lines of `format` to `file`.
    pub fn new(format: Format, file: Arc<LogFile>) -> Self {
        Self { format: Arc::new(format), file }
    }

    /// Appends the line of a stream that has ended. `buffers` are the worker's own.
    pub fn log(&self, info: &StreamInfo, buffers: &LogBuffers) {
        buffers.append(&self.file, |out, clock| self.format.append(info, clock, out));
    }
}
