//! Substitution format strings, `%COMMAND(parameters):length%`, compiled to parts that are appended one after the other: lines of
//! access logs, values of headers, bodies of local replies.
//!
//! Compiled on main, with the configuration; appending is done on the workers and looks nothing up by name of a command.

mod append;
mod closing;
mod coalesce;
mod duration;
mod format;
mod grpc_status;
mod header;
mod json;
mod metadata;
mod operator;
mod target;
mod time;
mod tls;
mod wire;

use http::{HeaderMap, HeaderName};

pub use format::{DEFAULT_FORMAT, Format};
pub use grpc_status::GrpcStatus;
use header::Header;
pub use header::RequestNumber;
pub(crate) use time::Clock;

use crate::stream_info::{AccessLogType, StreamInfo};

/// Appends `%RESPONSE_CODE_DETAILS%`.
pub(crate) fn append_response_code_details(info: &StreamInfo, out: &mut Vec<u8>) {
    operator::response_code_details(info, out);
}

/// What formats print that has to be kept for them. Built while they compile. Formats of access logs are appended when the headers are
/// gone: what they print is captured before, and a format refers to it by its index here.
#[derive(Debug, Clone, Default)]
pub struct CapturePlan {
    /// Request headers, without pseudo-headers.
    pub request: Vec<HeaderName>,
    /// Response headers.
    pub response: Vec<HeaderName>,
    /// Response trailers.
    pub trailers: Vec<HeaderName>,
    /// Streams keep [`LogDetails`](crate::stream_info::LogDetails).
    pub details: bool,
    /// The bytes of streams on the wire are counted.
    pub wire: bool,
    scope: Scope,
    /// A format prints something of the request's head.
    names_request: bool,
}

/// Where formats are appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Scope {
    /// In logs of the connection manager.
    #[default]
    Http,
    /// In logs below HTTP.
    Tcp,
    /// In replies that the proxy makes itself: the request is captured, the response is there.
    LocalReply,
    /// While the headers are there: nothing is captured.
    Live,
}

impl CapturePlan {
    /// For formats that are appended while the headers are there ([`Values`] has them).
    pub fn live() -> Self {
        Self { scope: Scope::Live, ..Self::default() }
    }

    /// For logs below HTTP.
    pub fn tcp() -> Self {
        Self { scope: Scope::Tcp, ..Self::default() }
    }

    /// Compiles formats of replies that the proxy makes itself, beside those of the logs.
    pub fn of_local_replies<T>(&mut self, compile: impl FnOnce(&mut Self) -> T) -> T {
        let logs = std::mem::replace(&mut self.scope, Scope::LocalReply);
        let compiled = compile(self);
        self.scope = logs;
        compiled
    }

    /// Streams have to keep what only logs print.
    fn want_details(&mut self, operator: &str) -> Result<(), String> {
        if self.scope == Scope::Live {
            return Err(format!("{operator} is supported in access logs only"));
        }
        self.details = true;
        Ok(())
    }

    /// Whether anything is to be kept.
    pub fn is_used(&self) -> bool {
        self.names_request || self.details
    }

    /// The bytes of streams on the wire have to be counted.
    fn want_wire(&mut self, operator: &str) -> Result<(), String> {
        self.want_details(operator)?;
        self.wire = true;
        Ok(())
    }

    /// Whether the logs are below HTTP.
    fn is_tcp(&self) -> bool {
        self.scope == Scope::Tcp
    }

    /// Whether a format prints something of the request's head.
    pub fn names_request(&self) -> bool {
        self.names_request
    }

    fn request_header(&mut self, name: HeaderName) -> Header {
        self.names_request = true;
        match self.scope {
            Scope::Live => Header::LiveRequest(name),
            _ => Header::Request(Self::index(&mut self.request, name)),
        }
    }

    fn response_header(&mut self, name: HeaderName) -> Header {
        match self.scope {
            Scope::Live | Scope::LocalReply => Header::LiveResponse(name),
            _ => Header::Response(Self::index(&mut self.response, name)),
        }
    }

    fn response_trailer(&mut self, name: HeaderName) -> Result<Header, String> {
        self.want_details("TRAILER")?;
        Ok(Header::Trailer(Self::index(&mut self.trailers, name)))
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
    /// When the line is written.
    pub log_type: AccessLogType,
    /// The body of the reply that the proxy makes itself.
    pub local_reply_body: Option<&'a [u8]>,
    /// A value of JSON is appended.
    pub(crate) json: bool,
}

impl<'a> From<&'a StreamInfo> for Values<'a> {
    fn from(info: &'a StreamInfo) -> Self {
        Self {
            info,
            line: None,
            request: None,
            response: None,
            log_type: AccessLogType::NotSet,
            local_reply_body: None,
            json: false,
        }
    }
}
