//! The body of a message that is being read from an HTTP/1 connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::channel::{Channel, Meter};
use super::unanswered::Unanswered;
use crate::http::codec::ReadError;
use crate::http::codec::interim::Interim;

/// Reads from its connection when it is asked for more. It holds nothing of its own.
#[derive(Debug)]
pub(crate) struct Http1Body {
    channel: Rc<RefCell<Channel>>,
    /// Which message it belongs to.
    message: u64,
    /// How much comes, if that is known.
    left: Option<u64>,
    is_done: bool,
    /// The client waits to be asked for it (RFC 9110 section 10.1.1).
    is_awaited: bool,
}

impl Http1Body {
    /// Of the message that has just begun.
    pub(super) fn new(channel: &Rc<RefCell<Channel>>, is_awaited: bool) -> Self {
        let begun = channel.borrow();
        let (message, left, is_done) = (begun.message, begun.decoder.exact(), begun.decoder.is_done());
        Self { channel: channel.clone(), message, left, is_done, is_awaited }
    }
}

impl Http1Body {
    /// Counts the bytes of the exchange that it belongs to.
    pub(crate) fn meter(&self) -> Meter {
        Meter::new(&self.channel)
    }

    /// The upstream asks for the body, not we.
    pub(crate) fn leave_to_upstream(&mut self) -> Interim {
        self.is_awaited = false;
        Interim::http1(Unanswered::new(&self.channel, self.message))
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        self.channel.borrow_mut().abandoned = self.message;
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let this = self.get_mut();
        if this.is_done {
            return Poll::Ready(None);
        }
        let mut channel = this.channel.borrow_mut();
        if channel.message != this.message {
            return Poll::Ready(Some(Err(ReadError::Ended)));
        }
        if std::mem::take(&mut this.is_awaited) && channel.answered < this.message {
            channel.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // What cannot be written now goes before the answer.
            let _ = channel.poll_flush(cx);
        }
        let frame = channel.poll_body(cx);
        if let Poll::Ready(frame) = &frame {
            this.is_done = channel.decoder.is_done() || !matches!(frame, Some(Ok(_)));
            if let (Some(left), Some(Ok(frame))) = (&mut this.left, frame)
                && let Some(data) = frame.data_ref()
            {
                *left -= data.len() as u64;
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
