//! Substitution format strings, `%COMMAND(parameters):length%`, compiled to parts that are appended one after the other: lines of
//! access logs, values of headers, bodies of local replies.
//!
//! Compiled on main, with the configuration; appending is done on the workers and looks nothing up by name of a command.

mod format;
mod json;
mod operator;
mod time;

use http::{HeaderMap, HeaderName};

pub use format::{DEFAULT_FORMAT, Format};
use operator::Header;
pub(crate) use time::Clock;

use crate::stream_info::StreamInfo;

/// Which headers formats print. Built while they compile. Formats of access logs are appended when the headers are gone: what they
/// print is captured before, and a format refers to it by its index here.
#[derive(Debug, Clone, Default)]
pub struct CapturePlan {
    /// Request headers, without pseudo-headers.
    pub request: Vec<HeaderName>,
    /// Response headers.
    pub response: Vec<HeaderName>,
    /// Nothing is captured: see [`CapturePlan::live`].
    live: bool,
    /// A format prints something of the request's head.
    names_request: bool,
}

impl CapturePlan {
    /// For formats that are appended while the headers are there ([`Values`] has them).
    pub fn live() -> Self {
        Self { live: true, ..Self::default() }
    }

    /// Whether a format prints something of the request's head.
    pub fn names_request(&self) -> bool {
        self.names_request
    }

    fn request_header(&mut self, name: HeaderName) -> Header {
        self.names_request = true;
        match self.live {
            true => Header::LiveRequest(name),
            false => Header::Request(Self::index(&mut self.request, name)),
        }
    }

    fn response_header(&mut self, name: HeaderName) -> Header {
        match self.live {
            true => Header::LiveResponse(name),
            false => Header::Response(Self::index(&mut self.response, name)),
        }
    }

    fn index(names: &mut Vec<HeaderName>, name: HeaderName) -> usize {
        names.iter().position(|n| *n == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
    }
}

/// The pseudo-headers of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:path`, with its query.
    pub path: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:scheme`.
    pub scheme: &'a str,
}

/// Where values come from.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// What is known of the stream.
    pub info: &'a StreamInfo,
    /// The request's pseudo-headers; `None`: what was captured of them.
    pub line: Option<RequestLine<'a>>,
    /// The request's headers, for formats that are [`CapturePlan::live`].
    pub request: Option<&'a HeaderMap>,
    /// The response's headers, for formats that are [`CapturePlan::live`].
    pub response: Option<&'a HeaderMap>,
}

impl<'a> From<&'a StreamInfo> for Values<'a> {
    fn from(info: &'a StreamInfo) -> Self {
        Self { info, line: None, request: None, response: None }
    }
}
