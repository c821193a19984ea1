//! Access logs: lines of a [`Format`], appended to a worker's buffer, written by one thread per file.
//!
//! Formats are compiled and [`LogFile`]s opened on main, with the configuration. A worker owns one [`LogBuffers`]: writing a
//! line appends bytes to it, nothing else. Buffers go to the file's thread when they are full and at the worker's tick.

mod file;
mod filter;

use std::sync::Arc;

pub use file::{LogBuffers, LogFile, LogFiles, Sink};
pub use filter::{Comparison, LogFilter, Operator};

use crate::formatter::{CapturePlan, Format, Values};
use crate::route::{HeaderMatcher, RequestView};
use crate::stream_info::{AccessLogType, StreamInfo};

/// The logs of one network filter or listener, and what streams have to keep for them.
#[derive(Debug, Default)]
pub struct AccessLogs {
    /// `access_log`.
    pub logs: Vec<AccessLog>,
    /// What the formats print.
    pub captures: CapturePlan,
    /// The matchers of `header_filter`s, at most 64.
    pub matchers: Vec<HeaderMatcher>,
}

impl AccessLogs {
    /// Whether streams have to keep something of their requests.
    pub fn wants_request(&self) -> bool {
        !self.logs.is_empty() || !self.matchers.is_empty() || self.captures.is_used()
    }

    /// A bit for each matcher that takes the request.
    pub fn matched(&self, request: &RequestView<'_>) -> u64 {
        let bits = self.matchers.iter().enumerate();
        bits.fold(0, |bits, (at, matcher)| bits | u64::from(matcher.matches(request)) << at)
    }

    /// Appends the lines of a stream. `buffers` are the worker's own.
    pub fn log(&self, info: &StreamInfo, log_type: AccessLogType, buffers: &LogBuffers) {
        for log in &self.logs {
            log.log(info, log_type, buffers);
        }
    }
}

/// One compiled `envoy.config.accesslog.v3.AccessLog`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    format: Arc<Format>,
    filter: Option<Arc<LogFilter>>,
    file: Arc<LogFile>,
}

impl AccessLog {
    /// A log that writes lines of `format` to `file`, for streams that pass `filter`.
    pub fn new(format: Format, filter: Option<LogFilter>, file: Arc<LogFile>) -> Self {
        Self { format: Arc::new(format), filter: filter.map(Arc::new), file }
    }

    fn log(&self, info: &StreamInfo, log_type: AccessLogType, buffers: &LogBuffers) {
        let values = Values { log_type, ..info.into() };
        if self.filter.as_ref().is_none_or(|filter| filter.passes(values)) {
            buffers.append(&self.file, |out, clock| self.format.append(values, clock, out));
        }
    }
}
