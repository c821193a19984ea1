//! HTTP: connections, what a request asks for, what form the answer takes.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod path;
mod protobuf;
pub(crate) mod query;
pub(crate) mod respond;
pub(crate) mod server;
pub(crate) mod websocket;
