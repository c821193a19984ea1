//! The HTTP codecs: HTTP/1 of our own, HTTP/2 on the crate `h2`, and nothing outside this folder knows. Servers and clients over a
//! [`crate::net::Stream`], bodies in and out, and what an error of a codec means for a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

mod client;
mod date;
mod ending;
mod error;
mod flow;
mod http1;
mod http2;
mod interim;
mod io;
mod late_head;
mod rest;
mod server;
mod switched;
mod wire;

pub(crate) use client::SendError;
pub(crate) use error::{ReadError, failure, request_failure};
#[cfg(feature = "fuzzing")]
pub(crate) use http1::fuzzing;
pub(crate) use http1::{Http1Sender, Meter, Refusal, connect_http1, serve_http1};
#[cfg(feature = "fuzzing")]
pub(crate) use http2::FrameWatch;
pub(crate) use http2::{
    Http2Sender, Switching, connect_http2, connect_stream, extended_connect, serve_http2, set_protocol,
};
pub(crate) use interim::Interim;
pub(crate) use server::{ServeError, Served, Version, detect};
pub(crate) use switched::{Switched, plain};
pub(crate) use wire::Fate;

/// A body that arrives from a peer.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// There is none: its stream leaves HTTP.
    None,
    Http1(http1::Http1Body),
    Http2(http2::Http2Body),
}

impl Incoming {
    /// Counts the bytes of the exchange that the body belongs to, with HTTP/1.
    pub(crate) fn meter(&self) -> Option<Meter> {
        match self {
            Self::Http1(body) => Some(body.meter()),
            Self::Http2(_) | Self::None => None,
        }
    }

    /// The upstream says itself whether the client is to send this body, and what else comes before its answer: the way to tell it.
    pub(crate) fn leave_to_upstream(&mut self) -> Option<Interim> {
        match self {
            Self::Http1(body) => Some(body.leave_to_upstream()),
            Self::Http2(body) => body.leave_to_upstream(),
            Self::None => None,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::None => SizeHint::default(),
        }
    }
}
