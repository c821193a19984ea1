//! Doors for the targets in `fuzz/`: parsers that nobody outside this crate calls otherwise. Exists with the feature `fuzzing` only.

use std::time::Duration;

use serde_json::Value;

use crate::api::duration;
use crate::inject::quantity;
use crate::source::{Object, Position, document};
use crate::webhook::{Webhooks, inject, review, validate};

/// The objects of a file.
///
/// # Errors
/// Where the text is wrong, and how.
pub fn objects(text: &[u8]) -> Result<Vec<Object>, (Option<Position>, String)> {
    document::parse(&"fuzz.yaml".into(), text).map_err(|error| (error.position, error.reason))
}

/// What `POST /inject` answers to this body.
///
/// # Errors
/// It is no admission review.
pub fn inject_review(body: &[u8], webhooks: &Webhooks) -> Result<Value, String> {
    review::read(body).map(|request| inject::answer(&request, webhooks).review(&request.uid))
}

/// What `POST /validate` answers to this body.
///
/// # Errors
/// It is no admission review.
pub fn validate_review(body: &[u8], webhooks: &Webhooks) -> Result<Value, String> {
    review::read(body).map(|request| validate::answer(&request, webhooks).review(&request.uid))
}

/// A duration of Istio's kinds.
///
/// # Errors
/// What is expected.
pub fn go_duration(text: &str) -> Result<Duration, String> {
    duration::parse_go(text)
}

/// A duration of the Gateway API.
///
/// # Errors
/// What is expected.
pub fn gateway_duration(text: &str) -> Result<Duration, String> {
    duration::parse_gateway_api(text)
}

/// A quantity of Kubernetes, for example `100m` or `1Gi`.
///
/// # Errors
/// What is expected.
pub fn quantity(text: &str) -> Result<f64, String> {
    quantity::parse(text)
}
