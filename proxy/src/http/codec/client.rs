//! What the clients of both HTTP versions have in common: how a request fails before its response, and how long a connection may last.

use std::future::Future;
use std::time::Instant;

use http::Request;
use http::request::Parts;

use super::wire::{Fate, Mark, Wire};
use crate::http::body::RequestBody;
use crate::http::error::Failure;

/// A request that failed before response headers. `unsent` gives it back when not a byte of it reached the upstream.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) failure: Failure,
    pub(crate) unsent: Option<Request<RequestBody>>,
    /// Its head, with HTTP/1: there it is written from where it is.
    pub(crate) head: Option<Box<Parts>>,
    /// What became of it when its connection ended.
    pub(crate) fate: Fate,
}

impl SendError {
    pub(super) fn new(failure: Failure, fate: Fate) -> Self {
        Self { failure, unsent: None, head: None, fate }
    }

    /// Of a request that began at `mark`.
    pub(super) fn of(failure: Failure, wire: &Wire, mark: Mark) -> Self {
        let fate = match failure {
            Failure::ConnectionTermination => wire.fate(mark),
            // RFC 9113 sections 6.8 and 8.7.
            Failure::RemoteRefused => Fate::Unseen,
            _ => Fate::Unknown,
        };
        Self::new(failure, fate)
    }
}

/// Runs a connection, but no longer than until `closes`.
pub(super) async fn until<T>(closes: Option<Instant>, connection: impl Future<Output = T>) -> Option<T> {
    match closes {
        Some(at) => tokio::time::timeout_at(at.into(), connection).await.ok(),
        None => Some(connection.await),
    }
}
