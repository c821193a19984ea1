//! The whole control plane in process: YAML in a directory, real xDS clients, live changes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod live;
mod variants;
mod world;
