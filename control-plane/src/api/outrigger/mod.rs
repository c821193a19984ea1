//! Our own kinds, for what neither Gateway API nor Istio has. So far there is one.
//!
//! The types that read an object are what its schema on an API server is made of ([`definitions`]), so that the two cannot say
//! different things.

mod definition;
mod schema;
mod traffic_policy;

pub use definition::definitions;
pub(super) use traffic_policy::traffic_policy;

/// The group of our own kinds.
pub(super) const GROUP: &str = "outrigger.dev";

/// Their version.
pub(super) const VERSION: &str = "v1alpha1";

/// The kind of policies for traffic.
pub(super) const TRAFFIC_POLICY: &str = "TrafficPolicy";
