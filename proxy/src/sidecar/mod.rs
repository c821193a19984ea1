//! `outrigger-proxy sidecar`: what a proxy beside a workload is more than a proxy.
//!
//! [`flags`] makes a bootstrap and the options of the process out of flags and the pod's environment. [`agent`] serves port 15020:
//! the metrics of sidecar and application as one page ([`metrics`]), the kubelet's probes handed on to the application
//! ([`probes`], [`probing`]), `/drain` and `/quitquitquit`. [`request`] is the other end of it, for lifecycle hooks.
//!
//! Runs on the main runtime, never on a worker. How a sidecar ends is in `server::shutdown`.

pub mod agent;
mod application;
mod flags;
pub mod metrics;
pub mod probes;
mod probing;
pub mod request;
#[cfg(test)]
mod tests;

pub use flags::{InterceptionMode, SidecarFlags};
