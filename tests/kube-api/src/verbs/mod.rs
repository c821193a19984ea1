//! What may be done with objects, one file a verb.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod patch;
pub(crate) mod port_forward;
pub(crate) mod read;
pub(crate) mod strategic;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use http::HeaderMap;
use hyper::upgrade::OnUpgrade;

use crate::access::User;
use crate::cluster::Cluster;
use crate::http::path::Target;
use crate::http::query::Query;
use crate::http::respond::Answer;
use crate::status::Result;

/// Changes a request to a WebSocket.
pub(crate) type Start = fn(&Arc<Cluster>, &User, &Target, &Query, &HeaderMap, OnUpgrade) -> Result<Answer>;

/// What answers a subresource of a Pod that is a WebSocket.
pub(crate) fn upgrade(subresource: Option<&str>) -> Option<Start> {
    match subresource {
        Some("exec") => Some(exec::start),
        Some("portforward") => Some(port_forward::start),
        _ => None,
    }
}
