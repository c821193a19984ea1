//! The state of one discovery session (one stream, one resource type), for both ends, as pure state machines.
//!
//! No I/O and no clock: the owner of the stream feeds in what was received and sends what comes out. Each variant of
//! the protocol has its own module, [`delta`] and [`sotw`]. They share what the owners see: a server serves a [`View`]
//! and hears an [`Outcome`]; a client gives what it [`Received`].

pub mod delta;
mod features;
pub mod nack;
mod outcome;
mod received;
pub mod sotw;
mod ttl;
mod view;

pub use features::ClientFeatures;
pub use outcome::{InvalidRequest, Outcome, Verdict};
pub use received::{Heartbeat, MalformedResponse, Received, Update};
pub use view::{Part, Resource, View};

use crate::wire::rpc;

/// The name that subscribes to every resource of a type (xDS protocol, "wildcard subscriptions").
pub const WILDCARD: &str = "*";

/// The `error_detail` of a NACK.
fn rejection(message: &str) -> rpc::Status {
    rpc::Status { code: rpc::Code::InvalidArgument as i32, message: message.to_owned(), details: Vec::new() }
}
