//! `envoy.filters.http.local_ratelimit`: requests take tokens of buckets that all workers of the proxy share, or of their connection's.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use smallvec::SmallVec;

use super::limiter::{Limiter, LimiterPlan, TokenBucket, Verdict};
use super::{Decision, FilterReply, Kept, Override, is_drawn};
use crate::formatter::{RequestLine, Values};
use crate::http::HttpConnectionManager;
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::connection_manager::view;
use crate::route::{Action, Described, HeaderMutations, RateLimit, RateLimits, RequestView};
use crate::stats::LocalRateLimitStats;
use crate::stream_info::{ResponseFlags, details};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The token buckets of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    limiter: Rc<Limiter>,
    /// The connection manager that they were made for. It keeps the address from being another's.
    made_by: Weak<HttpConnectionManager>,
}

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, compiled.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `stat_prefix`.
    pub stats: Arc<LocalRateLimitStats>,
    /// `token_bucket`, `descriptors` and what belongs to them.
    pub plan: Arc<LimiterPlan>,
    /// The buckets; `None`: each connection has its own (`local_rate_limit_per_downstream_connection`).
    pub limiter: Option<Limiter>,
    /// `rate_limits`; empty: those of the route and its virtual host.
    pub rate_limits: Box<[RateLimit]>,
    /// `stage`: those of the route with this number.
    pub stage: u32,
    /// `vh_rate_limits`.
    pub virtual_host: VirtualHostLimits,
    /// The node's `cluster`.
    pub service_cluster: Arc<str>,
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
    /// `enable_x_ratelimit_headers`.
    pub tells_limits: bool,
    /// `enable_retry_after_header`.
    pub tells_retry_after: bool,
}

/// `vh_rate_limits`: whether the virtual host's rate limits count beside the route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualHostLimits {
    /// `OVERRIDE`: only if the route has none.
    Override,
    /// `INCLUDE`.
    Include,
    /// `IGNORE`.
    Ignore,
}

pub(super) fn on_request(
    own: &LocalRateLimit,
    said: Option<&Override>,
    at: usize,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) -> Decision {
    let limit = match said {
        Some(Override::LocalRateLimit(limit)) => limit,
        _ => own,
    };
    if !is_drawn(limit.enabled_ppm) {
        return Decision::Continue;
    }
    limit.stats.enabled.inc();
    let now = Instant::now();
    let (verdict, tells_limits) = limit.judge(stream, request, now);
    let bucket = verdict.bucket.map(|(bucket, _)| bucket);
    if let Some(bucket) = bucket.as_ref().filter(|_| tells_limits) {
        stream.filter_state.get_or_insert_default().keep(at, Kept::RateLimit(bucket.clone()));
    }
    if verdict.allowed {
        limit.stats.ok.inc();
        return Decision::Continue;
    }
    limit.stats.rate_limited.inc();
    if bucket.as_ref().is_some_and(|bucket| bucket.shadow) {
        limit.stats.shadow_mode.inc();
        return Decision::Continue;
    }
    if !is_drawn(limit.enforced_ppm) {
        if !limit.not_enforced.is_empty() {
            super::header_mutation::change_request(&limit.not_enforced, stream, request);
        }
        return Decision::Continue;
    }
    limit.stats.enforced.inc();
    Decision::Reply(Box::new(limit.reply(stream, bucket.as_deref(), now)))
}

pub(super) fn on_response(kept: Option<&Kept>, headers: &mut HeaderMap) {
    let Some(Kept::RateLimit(bucket)) = kept else { return };
    let (left, seconds) = bucket.left(Instant::now());
    headers.append(LIMIT, HeaderValue::from(bucket.limit()));
    headers.append(REMAINING, HeaderValue::from(left));
    headers.append(RESET, HeaderValue::from(seconds));
}

impl LocalRateLimit {
    /// Whether the request may pass, and whether the response tells the limit.
    fn judge(&self, stream: &ActiveStream, request: &Request<RequestBody>, now: Instant) -> (Verdict, bool) {
        let of_connection;
        let limiter = match &self.limiter {
            Some(limiter) => limiter,
            None => {
                of_connection = self.limiter_of(stream, now);
                &*of_connection
            }
        };
        if self.plan.descriptors.is_empty() {
            return (limiter.take(&[], now), self.tells_limits);
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let view = view(request, host, stream.connection.scheme);
        let described = self.described(stream, &view);
        let (mut descriptors, mut made_by) = (SmallVec::<[_; 4]>::new(), SmallVec::<[&RateLimit; 4]>::new());
        self.each_rate_limit(stream, |rate_limit| {
            if let Some(descriptor) = rate_limit.descriptor(described) {
                descriptors.push(descriptor);
                made_by.push(rate_limit);
            }
        });
        let verdict = limiter.take(&descriptors, now);
        let of_rate_limit = match &verdict.bucket {
            Some((_, Some(at))) => made_by[*at].tells_limits,
            _ => None,
        };
        (verdict, of_rate_limit.unwrap_or(self.tells_limits))
    }

    /// The buckets of the connection. As in Envoy the first filter makes them for all that ask; those of a connection manager that
    /// is another one now are not taken over.
    fn limiter_of(&self, stream: &ActiveStream, now: Instant) -> Rc<Limiter> {
        let mut kept = stream.connection.limiter.borrow_mut();
        match &*kept {
            Some(kept) if std::ptr::eq(kept.made_by.as_ptr(), &*stream.hcm) => kept.limiter.clone(),
            _ => {
                let limiter = Rc::new(Limiter::new(&self.plan, now));
                let made_by = Arc::downgrade(&stream.hcm);
                *kept = Some(Box::new(ConnectionLimiter { limiter: limiter.clone(), made_by }));
                limiter
            }
        }
    }

    fn described<'r>(&'r self, stream: &'r ActiveStream, request: &'r RequestView<'r>) -> Described<'r> {
        Described {
            request,
            source_cluster: &self.service_cluster,
            destination_cluster: stream.chosen_cluster().unwrap_or_default(),
            remote: stream.remote_ip(),
            values: Values {
                line: Some(RequestLine {
                    method: request.method,
                    path: request.path,
                    authority: request.authority,
                    scheme: request.scheme,
                }),
                request: Some(request.headers),
                ..Values::from(&stream.info)
            },
        }
    }

    /// The rate limits for such requests, in their order.
    fn each_rate_limit<'r>(&'r self, stream: &'r ActiveStream, mut each: impl FnMut(&'r RateLimit)) {
        if !self.rate_limits.is_empty() {
            return self.rate_limits.iter().for_each(each);
        }
        let Some(Action::Route(action)) = stream.route.as_deref().map(|route| &route.action) else { return };
        let Some(RateLimits { of_route, of_virtual_host, include_virtual_host }) =
            action.rate_limits.as_deref()
        else {
            return;
        };
        let of_stage = |limits: &'r [RateLimit]| limits.iter().filter(|limit| limit.stage == self.stage);
        of_stage(of_route).for_each(&mut each);
        let with_virtual_host = match self.virtual_host {
            _ if *include_virtual_host => true,
            VirtualHostLimits::Include => true,
            VirtualHostLimits::Ignore => false,
            VirtualHostLimits::Override => of_route.is_empty(),
        };
        if with_virtual_host {
            of_stage(of_virtual_host).for_each(&mut each);
        }
    }

    fn reply(&self, stream: &ActiveStream, bucket: Option<&TokenBucket>, now: Instant) -> FilterReply {
        let mut headers = HeaderMap::new();
        self.response_headers.apply_to_response(&mut headers, Values::from(&stream.info));
        if let Some(bucket) = bucket
            && self.tells_retry_after
            && self.status == StatusCode::TOO_MANY_REQUESTS
        {
            let (_, seconds) = bucket.left(now);
            headers.entry(RETRY_AFTER).or_insert(HeaderValue::from(seconds.max(1)));
        }
        FilterReply {
            status: self.status,
            grpc_status: self.resource_exhausted.then_some(8),
            body: Bytes::from_static(b"local_rate_limited"),
            headers,
            takes_route_headers: true,
            flag: ResponseFlags::RATE_LIMITED,
            details: details::LOCAL_RATE_LIMITED,
        }
    }
}
