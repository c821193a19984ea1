//! Sends the body of a message on its HTTP/2 stream, as fast as the peer grants windows.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// One body on its way.
#[derive(Debug)]
pub(super) struct BodySender<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// What the body gave and there is no window for yet; and whether it is the last.
    held: Option<(Bytes, bool)>,
}

/// A body that cannot be sent to its end.
#[derive(Debug)]
pub(super) enum BodySendError<E> {
    /// It cannot be read.
    Body(E),
    /// The peer wants no more of it, or the connection has ended.
    Stream,
}

impl<B: Body<Data = Bytes> + Unpin> BodySender<B> {
    pub(super) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, held: None }
    }

    /// Sends until all is sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodySendError<B::Error>>> {
        // Here the task is also kept, to be told of a reset while it waits for the body.
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(BodySendError::Stream));
        }
        loop {
            if self.held.is_some() && !ready!(self.poll_window(cx)) {
                return Poll::Ready(Err(BodySendError::Stream));
            }
            if let Some((data, is_last)) = self.held.take() {
                match self.send(data, is_last) {
                    Ok(()) if !is_last => continue,
                    sent => return Poll::Ready(sent),
                }
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(BodySendError::Body(error))),
                None => return Poll::Ready(self.send(Bytes::new(), true)),
            };
            match frame.into_data() {
                Ok(data) => {
                    let is_last = self.body.is_end_stream();
                    if !data.is_empty() {
                        // As little as there can be: a stream that waits keeps no window from others. The rest is asked for when the
                        // data is handed over.
                        self.stream.reserve_capacity(1);
                        self.held = Some((data, is_last));
                    } else if is_last {
                        return Poll::Ready(self.send(data, true));
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.stream.reserve_capacity(0);
                        let sent = self.stream.send_trailers(trailers);
                        return Poll::Ready(sent.map_err(|_| BodySendError::Stream));
                    }
                }
            }
        }
    }

    /// Ready when something may be sent; false when nothing will be.
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(false);
            }
        }
        Poll::Ready(true)
    }

    fn send(&mut self, data: Bytes, is_last: bool) -> Result<(), BodySendError<B::Error>> {
        self.stream.send_data(data, is_last).map_err(|_| BodySendError::Stream)
    }

    /// Tells the peer that the rest will not come.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}
