//! HTTP/1 (RFC 9112): messages of clients and upstreams, over connections that carry one exchange at a time.
//!
//! `channel` holds the bytes of a connection, `head` and `decode` read messages from them, `encode` and `case` write them; `server` and
//! `client` are the two ends. There are no tasks between a request and its connection: who needs bytes reads them.

mod body;
mod case;
mod channel;
mod client;
mod decode;
mod encode;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod head;
mod server;
mod unanswered;

pub(crate) use body::Http1Body;
pub(crate) use channel::Meter;
pub(crate) use client::{Http1Sender, connect_http1};
pub(crate) use head::Refusal;
pub(super) use server::answer_last;
pub(crate) use server::{BadHead, serve_http1};
pub(super) use unanswered::Unanswered;
