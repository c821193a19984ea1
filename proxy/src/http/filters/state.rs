//! What filters keep of a request for its response, by their numbers in the chain: two of one kind keep what is theirs.

use std::sync::Arc;

use http::{HeaderValue, Response};
use smallvec::SmallVec;

use super::fault::Active;
use super::grpc_stats::CountedCall;
use super::grpc_web::{self, WebCall};
use super::{HttpFilter, TokenBucket};
use crate::http::router::UpstreamBody;

/// What the filters of one stream keep. Only streams whose filters keep something have one.
#[derive(Debug, Default)]
pub(crate) struct FilterState {
    kept: SmallVec<[(usize, Kept); 2]>,
    /// For each filter of the chain: what it was when the request came, if a source has it. Empty: the chain has not begun.
    pub(super) pinned: Box<[Option<Arc<HttpFilter>>]>,
}

/// What one filter keeps.
#[derive(Debug)]
pub(super) enum Kept {
    /// The origin that a CORS policy allows.
    CorsOrigin(HeaderValue),
    /// Series of a gRPC call.
    CountedCall(CountedCall),
    /// A call of gRPC-Web.
    WebCall(WebCall),
    /// A fault.
    Fault {
        /// It counts as active as long as the stream lives.
        _active: Active,
        /// What is let through of the response, KiB a second.
        throughput_kbps: Option<u64>,
    },
    /// The bucket that decided, when the response tells it.
    RateLimit(Arc<TokenBucket>),
    /// The request is this health check filter's.
    HealthCheck,
}

impl FilterState {
    /// What the filter of this number keeps.
    pub(super) fn get(&self, filter: usize) -> Option<&Kept> {
        self.kept.iter().find(|(number, _)| *number == filter).map(|(_, kept)| kept)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, filter: usize) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|(number, _)| *number == filter).map(|(_, kept)| kept)
    }

    /// Keeps this for the filter of this number, which has kept nothing yet.
    pub(super) fn keep(&mut self, filter: usize, kept: Kept) {
        self.kept.push((filter, kept));
    }

    /// The chain begins anew.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    /// Whether the response has to be here to its end before its head can go.
    pub(crate) fn wants_whole(&self, response: &Response<UpstreamBody>) -> bool {
        self.kept.iter().any(|(_, kept)| matches!(kept, Kept::WebCall(_))) && grpc_web::wants_whole(response)
    }
}
