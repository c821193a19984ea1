//! The HTTP engine: hyper, and nothing outside this folder knows. Servers and clients over a [`crate::net::Stream`], bodies in and
//! out, and what an engine error means for a stream.

mod client;
mod flow;
mod frame_watch;
mod framing;
mod io;
mod late_head;
mod rest;
mod server;
mod switched;
mod wire;

pub(crate) use client::{
    Http1Sender, Http2Sender, SendError, connect_http1, connect_http2, failure, request_failure,
};
#[cfg(feature = "fuzzing")]
pub(crate) use frame_watch::FrameWatch;
pub(crate) use framing::{Framing, Refusal};
pub(crate) use server::{ServeError, Served, Version, detect, serve_http1, serve_http2};
pub(crate) use switched::{Switched, Switching, connect_stream, extended_connect, plain, set_protocol};
pub(crate) use wire::Fate;

/// A body that arrives from a peer.
pub(crate) type Incoming = hyper::body::Incoming;
