//! Outrigger's proxy: a small L7 proxy that runs Envoy's configuration.
//!
//! Two worlds (docs/architecture.md): the *main* runtime thinks (`config`, `xds`, `identity`, `admin`, `server`), the *workers*
//! move bytes (`listener`, `transport_socket`, `http`, `tcp`, `route`, `cluster`). Data goes from main to the workers only as
//! immutable values behind an `Arc`, through `config::live`.

// The compiled configuration nests deeply (down to rustls), and the compiler looks through all of it for `Send` and `Sync`.
#![recursion_limit = "256"]

pub mod access_log;
pub mod admin;
pub mod bootstrap;
pub mod capture;
pub mod cluster;
pub mod config;
pub mod formatter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod health_check;
pub mod http;
pub mod identity;
pub mod listener;
pub mod logging;
mod mesh_peers;
pub mod metadata;
pub mod net;
pub mod on_demand;
pub mod overload;
pub mod route;
pub mod sds;
pub mod server;
pub mod sidecar;
pub mod state;
pub mod stats;
pub mod stream_info;
pub mod tcp;
pub mod transport_socket;
pub mod worker;
pub mod xds;
