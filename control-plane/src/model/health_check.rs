//! How clients ask endpoints whether they are well.

use std::time::Duration;

/// A check, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: HealthCheckKind,
    /// From one check to the next.
    pub interval: Duration,
    /// An answer must be there within.
    pub timeout: Duration,
    /// So many in a row must pass before an endpoint that was not well is.
    pub success_threshold: u32,
    /// So many in a row must fail before it is not.
    pub failure_threshold: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheckKind {
    /// A GET request.
    Http {
        /// Path and query.
        path: String,
        /// Statuses of an endpoint that is well.
        statuses: Vec<StatusRange>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that is asked about; empty: the server as a whole.
        service: String,
    },
    /// A connection.
    Tcp,
}

/// Statuses of HTTP from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// The first.
    pub start: u16,
    /// The first that is none of them.
    pub end: u16,
}
