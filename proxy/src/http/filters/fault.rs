//! `envoy.filters.http.fault`: requests that are held up or answered with an error, to see how callers bear it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use super::pace::Pace;
use super::{Content, Decision, FilterReply, Kept, Override, ResponseHead, ResponseStage, Wait, is_drawn};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::route::HeaderMatcher;
use crate::stats::HttpStats;
use crate::stream_info::{ResponseFlags, details};

/// `envoy.extensions.filters.http.fault.v3.HTTPFault`, compiled.
#[derive(Debug, Default)]
pub struct Fault {
    /// `delay`.
    pub delay: Option<FaultDelay>,
    /// `abort`.
    pub abort: Option<FaultAbort>,
    /// `response_rate_limit`.
    pub rate_limit: Option<FaultRateLimit>,
    /// `upstream_cluster`: only requests for this one.
    pub upstream_cluster: Option<Box<str>>,
    /// `headers`: only requests that match all of them.
    pub headers: Box<[HeaderMatcher]>,
    /// `downstream_nodes`: only requests whose `x-envoy-downstream-service-node` is one of them.
    pub downstream_nodes: Box<[Box<str>]>,
    /// `max_active_faults`; `None` = no limit. Faults of all filters with one `stat_prefix` count, as in Envoy.
    pub max_active: Option<u32>,
}

/// `FaultRateLimit`.
#[derive(Debug, Clone, Copy)]
pub struct FaultRateLimit {
    /// `fixed_limit.limit_kbps`, KiB a second; `None`: `header_limit`, the request says it.
    pub kbps: Option<u64>,
    /// `percentage`.
    pub share: FaultShare,
}

/// `percentage`: of how many requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultShare {
    /// Parts per million.
    pub ppm: u32,
    /// What one in the numerator is worth, parts per million: a request that asks for a fault may ask for less by it.
    pub unit_ppm: u32,
}

/// `FaultDelay`.
#[derive(Debug, Clone, Copy)]
pub struct FaultDelay {
    /// `fixed_delay`; `None`: `header_delay`, the request says it.
    pub fixed: Option<Duration>,
    /// `percentage`.
    pub share: FaultShare,
}

/// `FaultAbort`.
#[derive(Debug)]
pub struct FaultAbort {
    /// `error_type`.
    pub status: FaultStatus,
    /// `percentage`.
    pub share: FaultShare,
    /// `response_body`, default `fault filter abort`.
    pub body: Bytes,
}

/// `FaultAbort.error_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultStatus {
    /// `http_status`.
    Http(StatusCode),
    /// `grpc_status`.
    Grpc(u16),
    /// `header_abort`: the request says it.
    Header,
}

/// One active fault; dropped, it no longer counts.
#[derive(Debug)]
pub(super) struct Active(Arc<HttpStats>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fault_active.dec();
    }
}

const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENTAGE: &str = "x-envoy-fault-delay-request-percentage";
const THROUGHPUT: &str = "x-envoy-fault-throughput-response";
const THROUGHPUT_PERCENTAGE: &str = "x-envoy-fault-throughput-response-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENTAGE: &str = "x-envoy-fault-abort-request-percentage";

pub(super) fn on_request(
    own: &Arc<Fault>,
    said: Option<&Override>,
    at: usize,
    stream: &mut ActiveStream,
    request: &Request<RequestBody>,
) -> Decision {
    let fault = match said {
        Some(Override::Fault(fault)) => fault,
        _ => own,
    };
    if !fault.concerns(stream, request) {
        return Decision::Continue;
    }
    let headers = request.headers();
    if let Some(kbps) = fault.throughput_for(headers)
        && fault.activate(at, stream)
    {
        stream.hcm.stats.fault_response_rl_injected.inc();
        if let Some(Kept::Fault { throughput_kbps, .. }) =
            stream.filter_state.as_mut().and_then(|state| state.get_mut(at))
        {
            *throughput_kbps = Some(kbps);
        }
    }
    if let Some(delay) = fault.delay_for(headers) {
        if !fault.activate(at, stream) {
            return Decision::Continue;
        }
        stream.hcm.stats.fault_delays_injected.inc();
        stream.info.flags.insert(ResponseFlags::DELAY_INJECTED);
        return Decision::Wait(Wait::Fault(delay, fault.clone(), at));
    }
    match abort(fault, at, stream, request) {
        Some(reply) => Decision::Reply(Box::new(reply)),
        None => Decision::Continue,
    }
}

pub(super) fn on_response(
    kept: Option<&Kept>,
    stream: &ActiveStream,
    head: &ResponseHead<'_>,
) -> Option<ResponseStage> {
    let Some(Kept::Fault { throughput_kbps: Some(kbps), .. }) = kept else { return None };
    let has_body = !matches!(head.content, Content::Nothing);
    has_body.then(|| ResponseStage::Pace(Pace::new(*kbps, &stream.connection.worker)))
}

/// The reply that the request gets, if it is one of those to be aborted.
pub(super) fn abort(
    fault: &Fault,
    at: usize,
    stream: &mut ActiveStream,
    request: &Request<RequestBody>,
) -> Option<FilterReply> {
    let abort = fault.abort.as_ref()?;
    let headers = request.headers();
    let (status, grpc_status) = match abort.status {
        FaultStatus::Http(status) => (status, None),
        FaultStatus::Grpc(status) => (StatusCode::OK, Some(status)),
        FaultStatus::Header => match http_status(headers) {
            Some(status) => (status, None),
            None => (StatusCode::OK, Some(u16::try_from(number(headers, ABORT_GRPC)?).ok()?)),
        },
    };
    let asked = (abort.status == FaultStatus::Header).then_some(ABORT_PERCENTAGE);
    if !abort.share.is_drawn(headers, asked) || !fault.activate(at, stream) {
        return None;
    }
    stream.hcm.stats.fault_aborts_injected.inc();
    Some(FilterReply {
        status,
        grpc_status,
        body: abort.body.clone(),
        headers: HeaderMap::new(),
        takes_route_headers: true,
        flag: ResponseFlags::FAULT_INJECTED,
        details: details::FAULT_ABORT,
    })
}

impl Fault {
    /// Whether the fault is for such requests.
    fn concerns(&self, stream: &ActiveStream, request: &Request<RequestBody>) -> bool {
        if self.delay.is_none() && self.abort.is_none() && self.rate_limit.is_none() {
            return false;
        }
        if let Some(wanted) = &self.upstream_cluster
            && stream.chosen_cluster().is_none_or(|cluster| *cluster != **wanted)
        {
            return false;
        }
        if !self.downstream_nodes.is_empty() {
            let node = request.headers().get("x-envoy-downstream-service-node");
            if !self.downstream_nodes.iter().any(|n| node.is_some_and(|node| node == &**n)) {
                return false;
            }
        }
        super::all_match(&self.headers, stream, request)
    }

    fn delay_for(&self, headers: &HeaderMap) -> Option<Duration> {
        let delay = self.delay?;
        let length = match delay.fixed {
            Some(fixed) => fixed,
            None => Duration::from_millis(number(headers, DELAY)?),
        };
        let asked = delay.fixed.is_none().then_some(DELAY_PERCENTAGE);
        (!length.is_zero() && delay.share.is_drawn(headers, asked)).then_some(length)
    }

    fn throughput_for(&self, headers: &HeaderMap) -> Option<u64> {
        let limit = self.rate_limit?;
        let kbps = limit.kbps.or_else(|| number(headers, THROUGHPUT)).filter(|kbps| *kbps > 0)?;
        let asked = limit.kbps.is_none().then_some(THROUGHPUT_PERCENTAGE);
        limit.share.is_drawn(headers, asked).then_some(kbps)
    }

    /// Counts one more active fault for as long as the stream lives, unless there are too many.
    fn activate(&self, at: usize, stream: &mut ActiveStream) -> bool {
        if stream.filter_state.as_ref().is_some_and(|state| state.get(at).is_some()) {
            return true;
        }
        let stats = &stream.hcm.stats;
        // Not exact when many come at once, as with other circuit breakers.
        if self.max_active.is_some_and(|max| stats.fault_active.get() >= max.into()) {
            stats.fault_overflow.inc();
            return false;
        }
        stats.fault_active.inc();
        let fault = Kept::Fault { _active: Active(stats.clone()), throughput_kbps: None };
        stream.filter_state.get_or_insert_default().keep(at, fault);
        true
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The status that a request asks for: one that may be the last of a response.
fn http_status(headers: &HeaderMap) -> Option<StatusCode> {
    let code = number(headers, ABORT).and_then(|code| u16::try_from(code).ok())?;
    StatusCode::from_u16(code).ok().filter(|_| (200..600).contains(&code))
}

impl FaultShare {
    /// Draws; a request that asks for the fault itself may ask for a smaller numerator, in the header `asked`.
    fn is_drawn(self, headers: &HeaderMap, asked: Option<&str>) -> bool {
        let asked = asked.and_then(|name| number(headers, name));
        let asked = asked.map(|numerator| numerator.saturating_mul(self.unit_ppm.into()));
        is_drawn(asked.and_then(|ppm| u32::try_from(ppm).ok()).map_or(self.ppm, |ppm| ppm.min(self.ppm)))
    }
}
