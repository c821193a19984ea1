//! HTTP/2 streams that leave HTTP: CONNECT (RFC 9113 section 8.5), and with a `:protocol` (RFC 8441).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::http::codec::Switched;

/// What one write hands over at most: a frame, so that a stream that waits holds no more.
const WRITE: usize = 16 << 10;

/// A stream as bytes both ways.
#[derive(Debug)]
pub(crate) struct Tunnel {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// What was received and not read yet.
    read: Bytes,
}

impl Tunnel {
    pub(super) fn new(receive: RecvStream, send: SendStream<Bytes>) -> Self {
        Self { receive, send, read: Bytes::new() }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => this.read = data,
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(io::Error::other(error)),
                    });
                }
            }
        }
        let read = this.read.len().min(buf.remaining());
        buf.put_slice(&this.read[..read]);
        this.read.advance(read);
        // It fails for a stream that has ended, where nothing more is granted.
        let _ = this.receive.flow_control().release_capacity(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wanted = buf.len().min(WRITE);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(wanted);
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let written = wanted.min(this.send.capacity());
        let sent = this.send.send_data(Bytes::copy_from_slice(&buf[..written]), false);
        Poll::Ready(sent.map(|()| written).map_err(io::Error::other))
    }

    /// The connection's task does that.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// The stream of a client's CONNECT, which leaves HTTP when its answer is sent.
///
/// It comes with the request, in its extensions, which can be cloned: the first who asks gets the stream.
#[derive(Debug, Clone)]
pub(crate) struct Switching(Arc<Mutex<Option<oneshot::Receiver<Tunnel>>>>);

impl Switching {
    /// With where to give the stream.
    pub(super) fn new() -> (oneshot::Sender<Tunnel>, Self) {
        let (give, receiver) = oneshot::channel();
        (give, Self(Arc::new(Mutex::new(Some(receiver)))))
    }

    /// Waits for it; `None`: the stream has ended before.
    pub(crate) async fn done(self) -> Option<Switched> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver?.await.ok().map(Switched::Http2)
    }
}

/// The protocol that a request asks for by `:protocol`, and its stream.
pub(crate) fn extended_connect<B>(request: &mut Request<B>) -> Option<(HeaderValue, Switching)> {
    let protocol = request.extensions_mut().remove::<Protocol>()?;
    let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
    Some((protocol, connect_stream(request)?))
}

/// The stream of a CONNECT.
pub(crate) fn connect_stream<B>(request: &mut Request<B>) -> Option<Switching> {
    request.extensions_mut().remove()
}

/// Makes it a request for that protocol.
pub(crate) fn set_protocol<B>(request: &mut Request<B>, protocol: &HeaderValue) {
    // It was an `upgrade` header or a `:protocol` before: visible ASCII.
    let protocol = protocol.to_str().unwrap_or_default();
    request.extensions_mut().insert(Protocol::from(protocol));
}
