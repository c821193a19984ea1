//! The source `kubernetes` and the identity of its workloads, against the API server of the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod both_sources;
mod identity;
mod outages;
mod own_kinds;
mod statuses;
mod trust_anchors;
mod world;
