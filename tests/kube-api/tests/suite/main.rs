//! The server as its clients see it: raw exchanges, and the `kube` crate on top of it.

#![expect(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that fails panics")]

mod access;
mod admission;
mod apply;
mod client;
mod custom;
mod discovery;
mod exec;
mod faults;
mod helm;
mod kube_client;
mod lists;
mod program;
mod schemas;
mod tools;
mod watches;
mod webhook;
mod writes;
