//! What the whole-system suites stand on: fakes around a proxy, the proxy itself as a child process, and clients.
//!
//! All of it is blocking code on plain threads, so that a test reads top to bottom and a hang is one thread's stack;
//! HTTP/2 and gRPC run on small runtimes of their own behind blocking calls. Nothing here waits by sleeping for a
//! fixed time: [`wait::eventually`] polls a condition with one deadline. Every socket is on its own 127.x.y.z address
//! ([`addr`]), so that suites can run side by side.
//!
//! A broken harness must fail the test at once, hence the panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod addr;
pub mod ads;
pub mod bootstrap;
pub mod callgrind;
pub mod certs;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod control_plane;
pub mod differential;
pub mod dns;
pub mod envoy_sidecar;
pub mod foreign_xds;
pub mod helm;
pub mod injected;
pub mod kubelet;
pub mod live_cluster;
pub mod load;
pub mod mesh;
pub mod message;
pub mod netns;
pub mod netns_redirect;
pub mod pods;
pub mod prometheus;
pub mod prometheus_server;
pub mod proxy;
pub mod resources;
pub mod secret_server;
pub mod tcp_servers;
pub mod tools;
pub mod upstream;
pub mod wait;
mod wire;

pub use bootstrap::Bootstrap;
pub use client::{Http2Client, RawClient, Tls};
pub use message::{Headers, Request, Response};
pub use proxy::{Engine, Proxy};
pub use upstream::{FrameUpstream, Http2Upstream, Upstream};
