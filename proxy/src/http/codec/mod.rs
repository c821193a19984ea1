//! The HTTP codecs: HTTP/1 of our own, HTTP/2 by hyper, and nothing outside this folder knows. Servers and clients over a
//! [`crate::net::Stream`], bodies in and out, and what an error of a codec means for a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

mod client;
mod error;
mod flow;
mod frame_watch;
mod http1;
mod io;
mod late_head;
mod rest;
mod server;
mod switched;
mod wire;

pub(crate) use client::{Http2Sender, SendError, connect_http2};
pub(crate) use error::{ReadError, failure, request_failure};
#[cfg(feature = "fuzzing")]
pub(crate) use frame_watch::FrameWatch;
#[cfg(feature = "fuzzing")]
pub(crate) use http1::fuzzing;
pub(crate) use http1::{Http1Sender, Interim, Meter, Refusal, connect_http1, serve_http1};
pub(crate) use server::{ServeError, Served, Version, detect, serve_http2};
pub(crate) use switched::{Switched, Switching, connect_stream, extended_connect, plain, set_protocol};
pub(crate) use wire::Fate;

/// A body that arrives from a peer.
#[derive(Debug)]
pub(crate) enum Incoming {
    Http1(http1::Http1Body),
    Http2(hyper::body::Incoming),
}

impl Incoming {
    /// Counts the bytes of the exchange that the body belongs to, with HTTP/1.
    pub(crate) fn meter(&self) -> Option<Meter> {
        match self {
            Self::Http1(body) => Some(body.meter()),
            Self::Http2(_) => None,
        }
    }

    /// The upstream says itself whether the client is to send this body, and what else comes before its answer: the way to tell it. HTTP/2
    /// has none here.
    pub(crate) fn leave_to_upstream(&mut self) -> Option<Interim> {
        match self {
            Self::Http1(body) => Some(body.leave_to_upstream()),
            Self::Http2(_) => None,
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
            Self::Http2(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(ReadError::Http2)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
