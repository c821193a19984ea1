//! HTTP/2 (RFC 9113): messages of clients and upstreams, each on a stream of its own. Frames, windows and header compression are the
//! crate `h2`'s; what is between its streams and our messages is here.
//!
//! `server` and `client` are the two ends, `body` reads what a peer sends, `body_sender` writes, `tunnel` is a stream that has left
//! HTTP. `last_answer` is for heads that do not end; `frame_watch` counts what clients send before `h2` has it.

mod body;
mod body_sender;
mod client;
mod frame_watch;
mod head;
mod keep_alive;
mod last_answer;
mod responder;
mod server;
mod shared_io;
mod tunnel;

pub(crate) use body::Http2Body;
pub(crate) use client::{Http2Sender, connect_http2};
pub(crate) use frame_watch::FrameWatch;
pub(super) use responder::Responder;
pub(super) use server::LateStream;
pub(crate) use server::serve_http2;
pub(crate) use tunnel::{Switching, Tunnel, connect_stream, extended_connect, set_protocol};
