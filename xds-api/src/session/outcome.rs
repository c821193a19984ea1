//! What a server session hears from its client.

/// What a request said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it said about a response.
    pub verdict: Verdict,
    /// Whether it asked for something, or no longer, so that there may be something new to send.
    pub subscription_changed: bool,
}

/// A client's answer to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request answers nothing.
    None,
    /// The outstanding response was accepted.
    Ack,
    /// The outstanding response was rejected, wholly or in part.
    Nack {
        /// The response's nonce.
        nonce: String,
        /// The client's reason.
        message: String,
        /// The names of the resources that were new in the response.
        names: Vec<String>,
    },
    /// The answer is not about the outstanding response and changes nothing.
    Stale {
        /// The nonce that it named.
        nonce: String,
    },
}

/// A request that this session cannot serve. The stream is to be closed with `INVALID_ARGUMENT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// The request is about another type than this session.
    #[error("request has type {actual:?}, expected {expected}")]
    Type {
        /// The type URL of this session.
        expected: &'static str,
        /// The type URL found.
        actual: String,
    },
    /// Subscription by `ResourceLocator` is not supported.
    #[error("{field}: subscription by resource locator is not supported")]
    Locator {
        /// The field that was set.
        field: &'static str,
    },
}
