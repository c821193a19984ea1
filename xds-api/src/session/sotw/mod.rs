//! The state-of-the-world ("sotw") variant of the xDS protocol.
//!
//! Each request names the whole subscription. A response for listeners or clusters is the complete state: what it does
//! not have is removed. For other types it has what changed, and nothing in the protocol says that a resource is gone:
//! the client learns it from whoever referred to it, or by waiting in vain. What holds on both ends:
//!
//! * A version belongs to a type, not to a resource. The server makes it from what the client gets, so that it is the
//!   same after a restart and on every replica; a client that comes back with it is sent nothing.
//! * An ACK names the response's nonce and version; a NACK the nonce, the reason, and the version that was accepted
//!   last. A NACK may be partial: it rejects versions of some resources, never removals.
//! * A request that says nothing new asks again for everything: the client may have dropped what it had.
//! * A resource with a TTL, and its heartbeats, come wrapped in an `envoy.service.discovery.v3.Resource`, to clients
//!   that take it ([`ClientFeatures`](super::ClientFeatures)).

mod announced;
mod client;
#[cfg(test)]
mod convergence_tests;
mod holdings;
mod server;
mod subscription;
mod version;

pub use client::Client;
pub use server::Server;
