//! A Kubernetes API server for tests: objects in memory, HTTPS, and a switch for every fault.
//!
//! It answers like a real 1.36 server as far as clients of a mesh can tell: discovery, lists and watches with resource
//! versions, patches and server-side apply, admission webhooks, tokens, roles. It runs no controllers, except that it
//! collects garbage, ends namespaces, and serves the kinds of CustomResourceDefinitions. It is test support and no
//! product: everything is kept in memory, and speed does not matter.
//!
//! ```no_run
//! let server = outrigger_kube_api::ApiServer::start();
//! std::fs::write("kubeconfig", server.kubeconfig())?;
//! # std::io::Result::Ok(())
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that fails panics"))]

mod access;
mod admission;
mod apply;
mod cluster;
mod discovery;
mod dispatch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod kinds;
mod object;
mod openapi;
mod schema;
mod selector;
mod server;
mod status;
mod store;
mod strategy;
mod switches;
mod table;
mod tls;
mod verbs;

pub use access::tokens::TokenSpec;
pub use kinds::{Collection, Resource};
pub use server::{ApiServer, Options};
pub use status::Status;
pub use switches::{Cut, Seen};
pub use verbs::exec::{Exec, Ran};
