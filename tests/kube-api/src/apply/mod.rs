//! Server-side apply.

pub(crate) mod lists;

use serde_json::Value;

use crate::dispatch::Call;
use crate::http::respond::Reply;
use crate::status::{Result, Status};

pub(crate) async fn apply(_call: &Call, _patch: Value, _dry_run: bool) -> Result<Reply> {
    Err(Status::new(501, "NotImplemented", "server-side apply"))
}
