//! The answer to one request of an HTTP/2 client, until its head is sent. Shared by the task that serves the request, and by those who
//! have something to say before: the body that is waited for, and the upstream.

use std::cell::RefCell;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response, StatusCode};

#[derive(Debug)]
pub(in crate::http::codec) struct Responder(RefCell<SendResponse<Bytes>>);

impl Responder {
    pub(super) fn new(response: SendResponse<Bytes>) -> Self {
        Self(RefCell::new(response))
    }

    /// Says this before the answer. `false`: that has been sent, or nobody listens any more.
    /// Says this before the answer. `false`: that has been sent, or nobody listens any more.
    pub(in crate::http::codec) fn tell(&self, status: StatusCode, headers: HeaderMap) -> bool {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        self.0.borrow_mut().send_informational(response).is_ok()
    }

    /// Sends the head; with `is_whole` nothing comes after it. `None`: nobody listens any more.
    pub(super) fn send(&self, response: Response<()>, is_whole: bool) -> Option<SendStream<Bytes>> {
        let sent = self.0.borrow_mut().send_response(response, is_whole);
        if sent.is_err() {
            self.reset();
        }
        sent.ok()
    }

    /// There is no answer.
    pub(super) fn reset(&self) {
        self.0.borrow_mut().send_reset(Reason::INTERNAL_ERROR);
    }

    /// Ready when the client waits for the answer no more.
    pub(super) fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_reset(cx).map(|_| ())
    }
}
