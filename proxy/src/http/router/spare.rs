//! A request that is kept while it goes out on a connection that has carried others: its host may be closing that connection just now.
//!
//! It is sent again when the host has not seen it; or when the connection had rested and ended without a byte of an answer, and the
//! method says that doing it twice is doing it once (RFC 9110 section 9.2.2). This needs no retry policy, and a fresh connection never
//! asks for it.

use http::Request;
use http::request::Parts;
use http_body::Body as _;

use super::replay::Replay;
use crate::http::body::RequestBody;
use crate::http::codec::{Fate, SendError, Version};
use crate::http::pool::Reuse;

/// What is kept of a body; one that has sent more is not sent again.
const KEPT_BYTES: u64 = 64 << 10;

/// The request once more.
#[derive(Debug)]
pub(super) struct Spare {
    /// With HTTP/2; an HTTP/1 connection gives the head back.
    head: Option<Box<Parts>>,
    /// `None`: it has none.
    body: Option<Replay>,
}

/// Which connection may carry the request.
pub(super) fn reuse(request: &Request<RequestBody>) -> Reuse {
    let body = request.body();
    let is_kept = || body.is_end_stream() || body.size_hint().upper().is_some_and(|n| n <= KEPT_BYTES);
    match request.method().is_idempotent() && is_kept() {
        true => Reuse::Any,
        false => Reuse::Proven,
    }
}

impl Spare {
    /// Gives the request back, to be sent in this version.
    pub(super) fn keep(request: Request<RequestBody>, version: Version) -> (Request<RequestBody>, Self) {
        let (head, body) = request.into_parts();
        let kept = match body {
            RequestBody::Empty => None,
            body => Some(Replay::new(body, Some(KEPT_BYTES), None)),
        };
        let body = kept.as_ref().map_or(RequestBody::Empty, Replay::attempt);
        let copied = (version == Version::Http2).then(|| Box::new(head.clone()));
        (Request::from_parts(head, body), Self { head: copied, body: kept })
    }

    /// The request again, if that is right after what became of it and nothing of it is lost.
    pub(super) fn again(self, failed: SendError, rested: bool) -> Option<Request<RequestBody>> {
        let head = *self.head.or(failed.head)?;
        let may = match failed.fate {
            Fate::Unseen => true,
            // Hosts close what has rested.
            Fate::Unanswered => rested && head.method.is_idempotent(),
            Fate::Unknown => false,
        };
        let whole = self.body.as_ref().is_none_or(Replay::is_whole);
        if !may || !whole {
            return None;
        }
        let body = self.body.as_ref().map_or(RequestBody::Empty, Replay::attempt);
        Some(Request::from_parts(head, body))
    }

    /// The host has answered.
    pub(super) fn forget(&self) {
        if let Some(body) = &self.body {
            body.forget();
        }
    }
}
