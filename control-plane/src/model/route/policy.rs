//! What is done to requests on their way.

use std::time::Duration;

use crate::model::route::{Ppm, StringMatch};

/// Changes of headers in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderOperations,
    /// Of the response.
    pub response: HeaderOperations,
}

impl HeaderChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes of headers. Values are Envoy's format strings: a `%` that means itself is written twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// They get this value, whatever they had.
    pub set: Vec<(String, String)>,
    /// They get this value too.
    pub add: Vec<(String, String)>,
    /// They are taken away.
    pub remove: Vec<String>,
}

/// When a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// So often at most; 1 or more.
    pub attempts: u32,
    /// Envoy's names of conditions (`x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
    pub on: Vec<String>,
    /// Status codes of answers, which `retriable-status-codes` is about.
    pub status_codes: Vec<u32>,
    /// Limit for one attempt.
    pub per_try_timeout: Option<Duration>,
    /// Shortest pause before the first one; it grows up to ten times. Envoy's default is 25 ms.
    pub backoff: Option<Duration>,
    /// Whether another endpoint is preferred.
    pub elsewhere: bool,
    /// Whether another locality is preferred.
    pub other_localities: bool,
}

/// Requests that are delayed or refused on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// A delay before they are forwarded.
    pub delay: Option<Delay>,
    /// An answer instead of being forwarded.
    pub abort: Option<Abort>,
}

/// A delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// So long.
    pub time: Duration,
    /// Of how many requests.
    pub share: Ppm,
}

/// An answer that stands for a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// Its status.
    pub status: AbortStatus,
    /// Of how many requests.
    pub share: Ppm,
}

/// The status of an [`Abort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// Of HTTP, 200 to 599.
    Http(u16),
    /// Of gRPC.
    Grpc(u16),
}

/// Who may call from a browser (CORS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may.
    pub origins: Vec<StringMatch>,
    /// `Access-Control-Allow-Methods`
    pub methods: Vec<String>,
    /// `Access-Control-Allow-Headers`
    pub headers: Vec<String>,
    /// `Access-Control-Expose-Headers`
    pub expose: Vec<String>,
    /// `Access-Control-Max-Age`
    pub max_age: Option<Duration>,
    /// `Access-Control-Allow-Credentials`
    pub credentials: Option<bool>,
    /// Whether preflights of other origins are forwarded, not answered.
    pub forward_unmatched: bool,
}
