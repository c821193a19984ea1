//! The state of one discovery session (one stream, one resource type), for both ends, as pure state machines.
//!
//! No I/O and no clock: the owner of the stream feeds in what was received and sends what comes out. Each variant of
//! the protocol has its own module.

pub mod delta;
pub mod nack;

/// The name that subscribes to every resource of a type (xDS protocol, "wildcard subscriptions").
pub const WILDCARD: &str = "*";
