//! `envoy.filters.http.local_ratelimit`: a token bucket that all workers of the proxy share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use super::{Decision, FilterReply, Override};
use crate::formatter::Values;
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::route::HeaderMutations;
use crate::stream_info::{ResponseFlags, details};

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, compiled.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `token_bucket`; `None`: nothing is limited.
    pub bucket: Option<TokenBucket>,
    /// `status`, default 429.
    pub status: StatusCode,
    /// `filter_enabled` in parts per million, default never.
    pub enabled_ppm: u32,
    /// `filter_enforced` in parts per million, default never: requests are only counted.
    pub enforced_ppm: u32,
    /// `request_headers_to_add_when_not_enforced`.
    pub not_enforced: HeaderMutations,
    /// `response_headers_to_add`, for the answers of the filter.
    pub response_headers: HeaderMutations,
    /// `rate_limited_as_resource_exhausted`: gRPC status 8 instead of 14.
    pub resource_exhausted: bool,
}

/// `envoy.type.v3.TokenBucket`. Lock-free: its whole state is the moment at which it was empty.
#[derive(Debug)]
pub struct TokenBucket {
    start: Instant,
    /// Nanoseconds after `start` at which no token was left.
    empty_at_ns: AtomicU64,
    max_tokens: u64,
    ns_per_token: u64,
}

/// So far before `start` a bucket may have been empty, so that a full one can be told by a number that is not negative.
const HEAD_START_NS: u64 = 1 << 62;

impl TokenBucket {
    /// A full bucket that gets `tokens` in every `interval`, spread evenly.
    pub fn new(max_tokens: u32, tokens: u32, interval: Duration, start: Instant) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let ns_per_token = (interval_ns / u64::from(tokens.max(1))).max(1);
        Self { start, empty_at_ns: AtomicU64::new(0), max_tokens: max_tokens.into(), ns_per_token }
    }

    /// Takes one token, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let since = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let now_ns = HEAD_START_NS.saturating_add(since);
        let full_ns = self.max_tokens.saturating_mul(self.ns_per_token);
        let took = self.empty_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            // More than a full bucket does not fit.
            let empty_at = empty_at.max(now_ns.saturating_sub(full_ns));
            let after = empty_at.saturating_add(self.ns_per_token);
            (after <= now_ns).then_some(after)
        });
        took.is_ok()
    }
}

pub(super) fn on_request(
    own: &LocalRateLimit,
    said: Option<&Override>,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) -> Decision {
    let limit = match said {
        Some(Override::LocalRateLimit(limit)) => limit,
        _ => own,
    };
    let Some(bucket) = &limit.bucket else { return Decision::Continue };
    if !is_drawn(limit.enabled_ppm) {
        return Decision::Continue;
    }
    let stats = &stream.hcm.stats;
    stats.local_rate_limit_enabled.inc();
    if bucket.take(Instant::now()) {
        stats.local_rate_limit_ok.inc();
        return Decision::Continue;
    }
    stats.local_rate_limit_rate_limited.inc();
    if !is_drawn(limit.enforced_ppm) {
        if !limit.not_enforced.is_empty() {
            super::header_mutation::change_request(&limit.not_enforced, stream, request);
        }
        return Decision::Continue;
    }
    stats.local_rate_limit_enforced.inc();
    let mut headers = HeaderMap::new();
    limit.response_headers.apply_to_response(&mut headers, Values::from(&stream.info));
    Decision::Reply(Box::new(FilterReply {
        status: limit.status,
        grpc_status: limit.resource_exhausted.then_some(8),
        body: Bytes::from_static(b"local_rate_limited"),
        headers,
        takes_route_headers: true,
        flag: ResponseFlags::RATE_LIMITED,
        details: details::LOCAL_RATE_LIMITED,
    }))
}

fn is_drawn(ppm: u32) -> bool {
    ppm >= 1_000_000 || (ppm > 0 && fastrand::u32(..1_000_000) < ppm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_full_at_first_and_fills_evenly() {
        let start = Instant::now();
        let bucket = TokenBucket::new(3, 2, Duration::from_secs(1), start);
        let takes = |ms: u64| bucket.take(start + Duration::from_millis(ms));
        assert_eq!([takes(0), takes(0), takes(0), takes(0)], [true, true, true, false]);
        assert_eq!([takes(499), takes(500), takes(501)], [false, true, false]);
        // Never more than it holds.
        assert_eq!([takes(60_000), takes(60_000), takes(60_000), takes(60_000)], [true, true, true, false]);
    }
}
