//! Informational responses of upstreams on their way to a client (RFC 9110 section 15.2).

use std::cell::Cell;
use std::rc::Rc;

use http::{HeaderMap, StatusCode};

use super::http1::Unanswered;
use super::http2::Responder;
use crate::http::headers::remove_hop_by_hop;

/// Tells the client of one request what its upstream says before it answers.
#[derive(Debug)]
pub(crate) struct Interim {
    client: Client,
    has_told: Cell<bool>,
}

#[derive(Debug)]
enum Client {
    Http1(Unanswered),
    Http2(Rc<Responder>),
}

impl Interim {
    pub(super) fn http1(client: Unanswered) -> Self {
        Self { client: Client::Http1(client), has_told: Cell::new(false) }
    }

    pub(super) fn http2(client: Rc<Responder>) -> Self {
        Self { client: Client::Http2(client), has_told: Cell::new(false) }
    }

    /// Tells it, unless the answer has begun. As in Envoy the first of each request is told, and only those that are known.
    pub(super) fn tell(&self, status: StatusCode, mut headers: HeaderMap) {
        if self.has_told.get() || !matches!(status.as_u16(), 100 | 102 | 103) {
            return;
        }
        remove_hop_by_hop(&mut headers);
        let has_told = match &self.client {
            Client::Http1(client) => client.tell(status, &headers),
            Client::Http2(client) => client.tell(status, headers),
        };
        self.has_told.set(has_told);
    }

    /// Whether something of this upstream's has gone to the client: no other one may be asked.
    pub(crate) fn has_told(&self) -> bool {
        self.has_told.get()
    }
}
