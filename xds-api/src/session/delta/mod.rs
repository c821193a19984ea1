//! The incremental ("delta") variant of the xDS protocol.
//!
//! A response carries only what changed; the client answers each with an ACK or a NACK that names its nonce. On a new
//! stream the client says which versions it holds (`initial_resource_versions`), so a reconnect costs only the
//! difference. What holds on both ends:
//!
//! * The subscription in a request counts whatever the nonce in it says.
//! * A NACK rejects versions, never removals: what the server removed is gone on both ends.

mod client;
#[cfg(test)]
mod convergence_tests;
mod server;

pub use client::Client;
pub use server::Server;
