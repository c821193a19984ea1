//! Admission webhooks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::Value;

use crate::dispatch::Call;
use crate::status::Result;

/// What happens to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// Where the services of webhooks are reached: (namespace, name) to address.
pub(crate) type Addresses = Mutex<HashMap<(String, String), SocketAddr>>;

pub(crate) async fn mutate(
    _call: &Call,
    _operation: Operation,
    _object: Option<&mut Value>,
    _old: Option<&Value>,
    _dry_run: bool,
) -> Result<Vec<String>> {
    Ok(Vec::new())
}

pub(crate) async fn validate(
    _call: &Call,
    _operation: Operation,
    _object: Option<&Value>,
    _old: Option<&Value>,
    _dry_run: bool,
) -> Result<Vec<String>> {
    Ok(Vec::new())
}
