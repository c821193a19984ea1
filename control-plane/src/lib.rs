//! The control plane: Kubernetes objects in, xDS out, and the mesh's certificate authority.
//!
//! ```text
//! source ─Event─► api ─► model::Registry ─ChangeSet─► snapshot (only what changed) ─► ads: push queue per proxy ─► xDS
//!                                                        ├─► auth: a token for each pod ─► ca: certificates
//!                                                        └─► status: what became of each object ◄─ what proxies refuse
//! ```
//!
//! [`server::ControlPlane`] is the whole of it in one value, for the binary and for tests in process.

pub mod admin;
pub mod ads;
pub mod analyze;
pub mod api;
pub mod auth;
pub mod ca;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod inject;
pub mod metrics;
pub mod model;
pub mod scope;
pub mod server;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod translate;
pub mod webhook;

pub use server::{Addresses, ControlPlane, Options, Source, StartError, XdsAddress, run};
