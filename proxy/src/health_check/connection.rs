//! Connections of checks: over the cluster's transport socket, but counted nowhere, as in Envoy: they are no traffic.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{Iter, iter};
use http::{Request, Response};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::Version;
use super::probe::Context;
use crate::net::{self, Stream};
use crate::transport_socket::UpstreamTransport;

/// Connects to where the host is checked; `None`: it cannot be done. Has no timeout of its own.
pub(super) async fn open(context: &Context) -> Option<Stream> {
    let cluster = &context.cluster;
    let settings = &cluster.connection;
    let raw = net::connect(&context.address, settings.source_address, settings.tcp_keepalive).await.ok()?;
    match &settings.transport {
        UpstreamTransport::Plaintext => Some(Stream::from(raw)),
        UpstreamTransport::Tls(tls) => {
            let alpn = &context.check().alpn;
            let offered = (!alpn.is_empty()).then_some(alpn.as_slice());
            tls.connect_offering(raw, &cluster.stats.ssl, offered).await.ok().map(|(stream, _)| stream)
        }
    }
}

/// What a check sends: with its length, or without it, as gRPC does.
pub(super) type RequestBody =
    Either<Full<Bytes>, StreamBody<Iter<std::option::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

/// With its length.
pub(super) fn whole(data: Bytes) -> RequestBody {
    Either::Left(Full::new(data))
}

/// Without it.
pub(super) fn streamed(data: Bytes) -> RequestBody {
    Either::Right(StreamBody::new(iter(Some(Ok(Frame::data(data))))))
}

/// A connection that speaks HTTP; it ends with the value.
#[derive(Debug)]
pub(super) struct HttpConnection {
    sender: Sender,
    /// The task that moves its bytes.
    _task: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl HttpConnection {
    /// Connects; `None`: it cannot be done.
    pub(super) async fn open(context: &Context, version: Version) -> Option<Self> {
        let io = TokioIo::new(open(context).await?);
        let mut task = JoinSet::new();
        let sender = match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await.ok()?;
                task.spawn(async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
                task.spawn(async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Some(Self { sender, _task: task })
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Errors
    /// The connection or the stream broke, or the answer is not HTTP.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}
