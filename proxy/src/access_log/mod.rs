//! Access logs: lines of a [`Format`], appended to a worker's buffer, written by one thread per file.
//!
//! Formats are compiled and [`LogFile`]s opened on main, with the configuration. A worker owns one [`LogBuffers`]: writing a
//! line appends bytes to it, nothing else. Buffers go to the file's thread when they are full and at the worker's tick.

mod file;

use std::sync::Arc;

pub use file::{LogBuffers, LogFile, LogFiles, Sink};

use crate::formatter::Format;
use crate::stream_info::StreamInfo;

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
        buffers.append(&self.file, |out, clock| self.format.append(info.into(), clock, out));
    }
}
