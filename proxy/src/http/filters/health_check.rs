//! `envoy.filters.http.health_check`: the health checks of others, answered here or passed on.
//!
//! A health check counts in no response statistics, neither downstream nor upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{Decision, FilterReply, Kept, Wait};
use crate::cluster::Health;
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::route::{ClusterRef, HeaderMatcher};
use crate::stream_info::{ResponseFlags, details};

const HEALTH_CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// `envoy.extensions.filters.http.health_check.v3.HealthCheck`, compiled.
#[derive(Debug)]
pub struct HealthCheck {
    /// `headers`: what makes a request a health check; all must match.
    pub headers: Box<[HeaderMatcher]>,
    /// `pass_through_mode`: the upstream is asked.
    pub pass_through: bool,
    /// `cache_time`: how long the upstream's answer stands for it.
    pub cache: Option<AnswerCache>,
    /// `cluster_min_healthy_percentages`, whole percents, by name.
    pub clusters: Box<[(ClusterRef, u64)]>,
    /// The node's `cluster`, which answers to health checks name.
    pub service_cluster: HeaderValue,
}

/// The last answer to a health check. It stands until the present interval of `cache_time` ends; intervals follow each other from
/// the start on, as the ticks of Envoy's timer do.
#[derive(Debug)]
pub struct AnswerCache {
    start: Instant,
    interval: Duration,
    /// Status, then one bit for degraded, then the number of the interval; 0: no answer yet.
    packed: AtomicU64,
}

const STATUS_BITS: u32 = 16;
const DEGRADED_BIT: u64 = 1 << STATUS_BITS;
const INTERVAL_SHIFT: u32 = STATUS_BITS + 1;

impl AnswerCache {
    /// An empty cache; `interval` is at least 1 ms.
    pub fn new(interval: Duration, start: Instant) -> Self {
        Self { start, interval, packed: AtomicU64::new(0) }
    }

    fn interval_at(&self, now: Instant) -> u64 {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ms(now.saturating_duration_since(self.start)) / ms(self.interval).max(1)
    }

    fn keep(&self, status: u16, degraded: bool, now: Instant) {
        let degraded = if degraded { DEGRADED_BIT } else { 0 };
        let packed = self.interval_at(now) << INTERVAL_SHIFT | degraded | u64::from(status);
        self.packed.store(packed, Ordering::Relaxed);
    }

    /// The answer that stands, and whether it was degraded.
    fn get(&self, now: Instant) -> Option<(StatusCode, bool)> {
        let interval = self.packed.load(Ordering::Relaxed) >> INTERVAL_SHIFT;
        if interval == self.interval_at(now) { self.last() } else { None }
    }

    fn last(&self) -> Option<(StatusCode, bool)> {
        let packed = self.packed.load(Ordering::Relaxed);
        let status = u16::try_from(packed & (DEGRADED_BIT - 1)).ok()?;
        Some((StatusCode::from_u16(status).ok()?, packed & DEGRADED_BIT != 0))
    }
}

/// What a health check is answered with.
struct Verdict {
    status: StatusCode,
    degraded: bool,
    details: &'static str,
}

impl Verdict {
    fn of(status: StatusCode, details: &'static str) -> Self {
        Self { status, degraded: false, details }
    }
}

pub(super) fn on_request(
    own: &Arc<HealthCheck>,
    at: usize,
    stream: &mut ActiveStream,
    request: &Request<RequestBody>,
) -> Decision {
    if !super::all_match(&own.headers, stream, request) {
        return Decision::Continue;
    }
    stream.info.health_check = true;
    stream.filter_state.get_or_insert_default().keep(at, Kept::HealthCheck);
    let cached = || own.cache.as_ref().is_some_and(|cache| cache.get(Instant::now()).is_some());
    if own.pass_through && !has_failed(stream) && !cached() {
        return Decision::Continue;
    }
    match request.body().is_end_stream() {
        true => Decision::Reply(Box::new(own.answer(stream))),
        false => Decision::Wait(Wait::HealthCheck(own.clone())),
    }
}

/// The answer comes after the request's last byte, as in Envoy.
pub(super) async fn after_body(
    own: &HealthCheck,
    stream: &ActiveStream,
    request: &mut Request<RequestBody>,
) -> FilterReply {
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    own.answer(stream)
}

pub(super) fn on_response(
    own: &HealthCheck,
    kept: Option<&Kept>,
    stream: &ActiveStream,
    headers: &mut HeaderMap,
) {
    if matches!(kept, Some(Kept::HealthCheck)) {
        if let Some(cache) = &own.cache {
            cache.keep(stream.info.response_code, headers.contains_key(DEGRADED), Instant::now());
        }
        headers.insert(HEALTH_CHECKED_CLUSTER, own.service_cluster.clone());
    }
    if has_failed(stream) {
        headers.insert(IMMEDIATE_FAIL, HeaderValue::from_static("true"));
    }
}

/// `/healthcheck/fail` was asked for.
fn has_failed(stream: &ActiveStream) -> bool {
    stream.connection.worker.shared.health_check_failed.load(Ordering::Relaxed)
}

impl HealthCheck {
    fn answer(&self, stream: &ActiveStream) -> FilterReply {
        let Verdict { status, degraded, details } = self.verdict(has_failed(stream));
        let mut headers = HeaderMap::new();
        if degraded {
            headers.insert(DEGRADED, HeaderValue::from_static(""));
        }
        FilterReply {
            status,
            grpc_status: None,
            body: Default::default(),
            headers,
            takes_route_headers: true,
            flag: match status.is_success() {
                true => ResponseFlags::NONE,
                false => ResponseFlags::FAILED_LOCAL_HEALTH_CHECK,
            },
            details,
        }
    }

    fn verdict(&self, has_failed: bool) -> Verdict {
        if has_failed {
            return Verdict::of(StatusCode::SERVICE_UNAVAILABLE, details::HEALTH_CHECK_FAILED);
        }
        if let Some(cache) = &self.cache {
            // Its interval may have ended while the request's body came.
            let (status, degraded) = cache.last().unwrap_or((StatusCode::OK, false));
            return Verdict { status, degraded, details: details::HEALTH_CHECK_CACHED };
        }
        let mut verdict = Verdict::of(StatusCode::OK, details::HEALTH_CHECK_OK);
        for (cluster, min_percent) in &self.clusters {
            verdict.details = details::HEALTH_CHECK_CLUSTER_HEALTHY;
            if let Err(details) = judge(cluster, *min_percent) {
                return Verdict::of(StatusCode::SERVICE_UNAVAILABLE, details);
            }
        }
        verdict
    }
}

/// Whether enough of the cluster's hosts are healthy, and what is wrong if not.
fn judge(cluster: &ClusterRef, min_percent: u64) -> Result<(), &'static str> {
    let Some(cluster) = cluster.get() else { return Err(details::HEALTH_CHECK_NO_CLUSTER) };
    let hosts = cluster.hosts();
    let healthy = hosts.iter().filter(|(_, host)| host.health() == Health::Healthy).count() as u64;
    match hosts.len() as u64 {
        0 if min_percent > 0 => Err(details::HEALTH_CHECK_CLUSTER_EMPTY),
        total if 100 * healthy < total * min_percent => Err(details::HEALTH_CHECK_CLUSTER_UNHEALTHY),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_until_its_interval_ends() {
        let start = Instant::now();
        let cache = AnswerCache::new(Duration::from_millis(100), start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(cache.get(at(0)), None);
        cache.keep(503, true, at(150));
        assert_eq!(cache.get(at(199)), Some((StatusCode::SERVICE_UNAVAILABLE, true)));
        assert_eq!(cache.get(at(200)), None);
        cache.keep(200, false, at(250));
        assert_eq!(cache.get(at(251)), Some((StatusCode::OK, false)));
    }
}
