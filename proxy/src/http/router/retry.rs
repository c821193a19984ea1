//! Several attempts: which outcome is tried again, when, and what limits it.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;

use super::asked::Asked;
use super::attempt::{self, Avoid};
use super::first_frame::{self, UpstreamBody};
use super::replay::{Replay, SentRequest};
use super::timeout::Timeouts;
use crate::cluster::{Cluster, Host, Permit, Resource, lb, outlier};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::codec::Incoming;
use crate::http::deadlines::{DeadlineWatch, Deadlines};
use crate::http::error::{Failure, StreamError};
use crate::http::headers::{ATTEMPT_COUNT, GRPC_STATUS, RATE_LIMITED};
use crate::http::respond;
use crate::route::{PreviousPriorities, RateLimitedBackOff, RetryOn, RetryPolicy, Route, RouteAction};
use crate::stream_info::ResponseFlags;

/// What is kept of a body to be sent again when nothing says otherwise: Envoy's `per_connection_buffer_limit_bytes`.
const BUFFER_BYTES: u64 = 1 << 20;

/// Of a request that alone wants retries, or limits of an attempt, or whose redirects are followed.
static NO_POLICY: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::default);

/// What limits attempts, and which are tried again.
pub(super) struct Plan<'p> {
    policy: &'p RetryPolicy,
    /// What the request asks for beside the policy.
    asked: Option<Box<Asked>>,
}

/// The plan for a request; `None`: there is one attempt, nothing limits it, and nothing of it is kept.
pub(super) fn plan<'p>(
    stream: &ActiveStream,
    action: &'p RouteAction,
    asked: Option<Box<Asked>>,
) -> Option<Plan<'p>> {
    if let Some(policy) = &action.retry {
        return Some(Plan { policy, asked });
    }
    let is_limited = stream.timeouts.is_some_and(|own| own.attempt.is_some() || own.upstream.is_some());
    let is_planned = asked.is_some() || is_limited || action.internal_redirects.is_some();
    is_planned.then_some(Plan { policy: &NO_POLICY, asked })
}

type Outcome = Result<Response<UpstreamBody>, StreamError>;

/// Sends the request until an outcome is good enough, or the policy has no more to give.
pub(super) async fn forward(
    stream: &mut ActiveStream,
    route: &Route,
    action: &RouteAction,
    plan: Plan<'_>,
    cluster: &Arc<Cluster>,
    request: Request<RequestBody>,
    authority: &Authority,
) -> Outcome {
    let policy = plan.policy;
    let mut retries = Retries::new(plan, cluster, action.high_priority, stream, &request, authority);
    let (head, body) = request.into_parts();
    let kept_bytes = match retries.on == RetryOn::NONE && action.internal_redirects.is_none() {
        true => None,
        false => Some(action.buffer_limit_bytes.unwrap_or(BUFFER_BYTES)),
    };
    let body = Replay::new(body, kept_bytes, Some(cluster.stats.clone()));
    let mut tried: Vec<Arc<Host>> = Vec::new();
    let mut priorities = policy.previous_priorities.map(PreviousPriorities::new);
    loop {
        let mut request = Request::from_parts(head.clone(), body.attempt());
        if retries.made > 0 {
            renew_head(stream, route, action, retries.made, &mut request);
        }
        let criteria = action.criteria(stream.drawn);
        let others = |excluded: &[u32]| lb::has_other_priority(cluster, criteria, excluded);
        let excluded = priorities.as_mut().map(|priorities| priorities.next(others));
        let avoid = Avoid {
            predicates: &policy.host_predicates,
            tried: &tried,
            // The first attempt goes anywhere.
            redraws: if retries.made == 0 || policy.host_predicates.is_empty() { 0 } else { policy.redraws },
            priorities: excluded.unwrap_or_default(),
        };
        let sent = in_time(stream, cluster, action, policy, request, authority, avoid).await;
        let mut outcome = sent.map(|response| response.map(UpstreamBody::from));
        if let (true, Ok(response)) = (retries.on.any(RetryOn::GRPC), &mut outcome) {
            first_frame::read(&stream.connection.worker, response).await;
        }
        // What the client has heard of this upstream another one cannot take back.
        let may_go_on = stream.interim.as_ref().is_none_or(|interim| !interim.has_told());
        let wanted = may_go_on && retries.wants(&outcome);
        let next = match wanted && !body.is_whole() {
            true => None,
            false => retries.next(stream, &outcome, wanted),
        };
        let Some(wait) = next else {
            if let (Some(redirects), Ok(response)) = (&action.internal_redirects, &outcome)
                && redirects.statuses.contains(&response.status().as_u16())
            {
                stream.sent = Some(Box::new(SentRequest { head, body }));
            }
            return outcome.map_err(|error| StreamError { retried: retries.made > 0, ..error });
        };
        if let Some(host) = &stream.info.upstream_host {
            priorities.iter_mut().for_each(|priorities| priorities.tried(host));
            tried.push(host.clone());
        }
        let (status, heard, by_us) = match &outcome {
            Ok(response) => {
                let heard = respond::answer(stream, response.status(), response.headers());
                (response.status().as_u16(), heard, !response.body().is_end_stream())
            }
            Err(error) => {
                let status = stream.status_of(error.kind).as_u16();
                let by_us = !error.kind.flag().intersects(ResponseFlags::BY_UPSTREAM);
                (status, outlier::Outcome::Failed(status), by_us)
            }
        };
        stream.end_attempt(status, heard, by_us);
        drop(outcome);
        if !wait.is_zero() {
            stream.connection.worker.timers.wait(wait).await;
        }
    }
}

/// The headers that are others with each attempt.
fn renew_head(
    stream: &ActiveStream,
    route: &Route,
    action: &RouteAction,
    made: u32,
    request: &mut Request<RequestBody>,
) {
    let headers = request.headers_mut();
    if route.attempt_count_in_request {
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(made + 1));
    }
    // Of the whole timeout less is left than at first.
    let timeouts = stream.timeouts.unwrap_or_else(|| Timeouts::of_route(action));
    timeouts.tell(stream, action, headers, stream.forwarded.elapsed());
}

/// One attempt within the policy's timeouts.
async fn in_time(
    stream: &mut ActiveStream,
    cluster: &Arc<Cluster>,
    action: &RouteAction,
    policy: &RetryPolicy,
    request: Request<RequestBody>,
    authority: &Authority,
    avoid: Avoid<'_>,
) -> Result<Response<Incoming>, StreamError> {
    let timeout = stream.timeouts.map_or(policy.per_try_timeout, |own| own.attempt);
    let upstream = stream.timeouts.and_then(|own| own.upstream);
    let idle = policy.per_try_idle_timeout;
    if timeout.is_none() && idle.is_none() && upstream.is_none() {
        return attempt::send(stream, cluster, action, request, authority, avoid).await;
    }
    let deadlines = Deadlines { response: timeout, idle, max_duration: upstream, request: None };
    let start = Instant::now();
    stream.upstream_until = upstream.map(|duration| start + duration);
    let mut watch = DeadlineWatch::new(stream, deadlines, start);
    let late = |failure| match failure {
        Failure::Timeout => {
            cluster.stats.upstream_rq_per_try_timeout.inc();
            Failure::PerTryTimeout
        }
        Failure::MaxDuration => {
            cluster.stats.upstream_rq_max_duration_reached.inc();
            Failure::UpstreamMaxDuration
        }
        _ => {
            cluster.stats.upstream_rq_per_try_idle_timeout.inc();
            Failure::PerTryIdle
        }
    };
    watch
        .run(attempt::send(stream, cluster, action, request, authority, avoid))
        .await
        .unwrap_or_else(|failure| Err(late(failure).into()))
}

/// What has been tried, and what may be.
struct Retries<'p> {
    policy: &'p RetryPolicy,
    asked: Option<Box<Asked>>,
    on: RetryOn,
    cluster: &'p Arc<Cluster>,
    high_priority: bool,
    left: u32,
    made: u32,
    /// The retry's place in the circuit breaker.
    permit: Option<Permit>,
}

impl<'p> Retries<'p> {
    fn new(
        plan: Plan<'p>,
        cluster: &'p Arc<Cluster>,
        high_priority: bool,
        stream: &ActiveStream,
        request: &Request<RequestBody>,
        authority: &Authority,
    ) -> Self {
        let Plan { policy, asked } = plan;
        let view =
            crate::http::connection_manager::view(request, authority.as_str(), stream.connection.scheme);
        let may =
            policy.request_headers.is_empty() || policy.request_headers.iter().any(|h| h.matches(&view));
        let on = match may {
            true => policy.on | asked.as_ref().map_or(RetryOn::NONE, |asked| asked.on),
            false => RetryOn::NONE,
        };
        let left = asked.as_ref().and_then(|asked| asked.retries).unwrap_or(policy.retries);
        Self { policy, asked, on, cluster, high_priority, left, made: 0, permit: None }
    }

    fn wants(&self, outcome: &Outcome) -> bool {
        match outcome {
            Ok(response) => self.wants_response(response),
            Err(error) => self.wants_failure(error.kind),
        }
    }

    fn wants_failure(&self, failure: Failure) -> bool {
        let connecting = matches!(failure, Failure::ConnectRefused | Failure::ConnectTimeout);
        let reset = connecting
            || matches!(
                failure,
                Failure::ConnectionTermination
                    | Failure::RemoteReset
                    | Failure::RemoteRefused
                    | Failure::Protocol
                    | Failure::PerTryTimeout
                    | Failure::PerTryIdle
                    | Failure::UpstreamMaxDuration
            );
        reset
            && (self.on.any(RetryOn::RESET | RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR)
                || (connecting && self.on.any(RetryOn::CONNECT_FAILURE | RetryOn::RESET_BEFORE_REQUEST))
                || (failure == Failure::RemoteRefused && self.on.any(RetryOn::REFUSED_STREAM)))
    }

    fn wants_response(&self, response: &Response<UpstreamBody>) -> bool {
        let (status, headers) = (response.status().as_u16(), response.headers());
        if headers.contains_key(RATE_LIMITED) {
            return self.on.any(RetryOn::ENVOY_RATE_LIMITED);
        }
        (status >= 500 && self.on.any(RetryOn::FIVE_XX))
            || (matches!(status, 502..=504) && self.on.any(RetryOn::GATEWAY_ERROR))
            || (status == 409 && self.on.any(RetryOn::RETRIABLE_4XX))
            || (self.on.any(RetryOn::STATUS_CODES) && self.is_retriable_status(status))
            || (self.on.any(RetryOn::HEADERS) && self.has_retriable_header(response.status(), headers))
            || grpc_word(headers).is_some_and(|word| self.on.any(word))
            || response.body().trailers().and_then(grpc_word).is_some_and(|word| self.on.any(word))
    }

    fn is_retriable_status(&self, status: u16) -> bool {
        self.policy.status_codes.contains(&status)
            || self.asked.as_ref().is_some_and(|asked| asked.status_codes.contains(&status))
    }

    fn has_retriable_header(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.policy.headers.iter().any(|header| header.matches_response(status, headers))
            || self
                .asked
                .as_ref()
                .is_some_and(|asked| asked.headers.iter().any(|name| headers.contains_key(name)))
    }

    /// The wait before the next attempt; `None`: this outcome is the last.
    fn next(&mut self, stream: &mut ActiveStream, outcome: &Outcome, wanted: bool) -> Option<Duration> {
        let stats = &self.cluster.stats;
        let retried = self.permit.take().is_some();
        if !wanted {
            if retried {
                stats.upstream_rq_retry_success.inc();
                stream.counted.each(|requests| requests.retry_success.inc());
            }
            return None;
        }
        if self.left == 0 {
            stats.upstream_rq_retry_limit_exceeded.inc();
            stream.counted.each(|requests| requests.retry_limit_exceeded.inc());
            stream.info.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return None;
        }
        self.left -= 1;
        let Some(permit) = self.cluster.circuit_breakers.acquire(Resource::Retry, self.high_priority) else {
            stats.upstream_rq_retry_overflow.inc();
            stream.counted.each(|requests| requests.retry_overflow.inc());
            stream.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        };
        self.permit = Some(permit);
        stats.upstream_rq_retry.inc();
        stream.counted.each(|requests| requests.retry.inc());
        let made = self.made;
        self.made += 1;
        let asked = match (&self.policy.rate_limited, outcome) {
            (Some(limited), Ok(response)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                limited.asked_by(response.headers(), now.as_secs())
            }
            _ => None,
        };
        Some(match asked {
            Some(asked) => {
                stats.upstream_rq_retry_backoff_ratelimited.inc();
                RateLimitedBackOff::jittered(asked, fastrand::u64(..))
            }
            None => {
                stats.upstream_rq_retry_backoff_exponential.inc();
                self.policy.back_off.before(made, fastrand::u64(..))
            }
        })
    }
}

/// The word for the gRPC status in these headers or trailers.
fn grpc_word(headers: &HeaderMap) -> Option<RetryOn> {
    match headers.get(GRPC_STATUS)?.as_bytes() {
        b"1" => Some(RetryOn::GRPC_CANCELLED),
        b"4" => Some(RetryOn::GRPC_DEADLINE_EXCEEDED),
        b"8" => Some(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        b"13" => Some(RetryOn::GRPC_INTERNAL),
        b"14" => Some(RetryOn::GRPC_UNAVAILABLE),
        _ => None,
    }
}
