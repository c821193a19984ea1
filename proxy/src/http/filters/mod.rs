//! HTTP filters: what is done to every request and response around the route's own action.
//!
//! A chain runs in its order for a request and in reverse for the response, upstream's or our own. A filter decides at once; only one
//! that has to wait costs an allocation. What one does to bodies is in `body`. What a route says to a filter is found by the
//! filter's name in the chain, and only for routes that say something. To add a filter: one file here, one arm in
//! `config/compile/http_filter.rs`.

mod body;
mod buffer;
mod cors;
mod discovered;
mod fault;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod grpc_stats;
mod grpc_web;
mod header_mutation;
mod health_check;
mod limiter;
mod local_rate_limit;
mod on_demand;
mod overrides;
mod pace;
mod state;

#[cfg(test)]
mod discovered_tests;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode};

pub(crate) use body::{FilteredRequest, FilteredResponse, ResponseStage};
pub use buffer::Buffer;
pub(crate) use buffer::BufferedBody;
pub use cors::CorsPolicy;
pub use discovered::DiscoveredFilter;
pub use fault::{Fault, FaultAbort, FaultDelay, FaultRateLimit, FaultShare, FaultStatus};
pub use grpc_stats::{CountedMethods, GrpcCounting};
pub use header_mutation::{Mutation, Mutations, QueryMutation};
pub use health_check::{AnswerCache, HealthCheck};
pub use limiter::{BucketSize, LimitedDescriptor, Limiter, LimiterPlan, TokenBucket};
pub(crate) use local_rate_limit::ConnectionLimiter;
pub use local_rate_limit::{LocalRateLimit, VirtualHostLimits};
pub use on_demand::{OnDemand, OnDemandClusters};
pub use overrides::{Override, Overrides};
pub(crate) use state::FilterState;
use state::Kept;

use super::active_stream::ActiveStream;
use super::body::RequestBody;
use super::connection_manager::view;
use super::error::Failure;
use super::router::UpstreamBody;
use crate::on_demand::Asker;
use crate::route::HeaderMatcher;
use crate::stream_info::ResponseFlags;

/// `http_filters` without the router.
#[derive(Debug, Default)]
pub struct FilterChain {
    slots: Box<[Slot]>,
    /// Some filter's configuration comes from a source.
    has_discovered: bool,
}

/// One entry of `http_filters`.
#[derive(Debug)]
pub struct Slot {
    /// `name`: by it routes speak to the filter.
    pub name: Arc<str>,
    /// `disabled`: only for routes that enable it.
    pub disabled: bool,
    /// The filter itself.
    pub filter: SlotFilter,
}

/// Where a filter's configuration comes from.
#[derive(Debug)]
pub enum SlotFilter {
    /// `typed_config`.
    Configured(HttpFilter),
    /// `config_discovery`.
    Discovered(Arc<DiscoveredFilter>),
}

/// A filter.
#[derive(Debug)]
pub enum HttpFilter {
    /// `envoy.filters.http.buffer`.
    Buffer(Buffer),
    /// `envoy.filters.http.cors`: routes have the policies.
    Cors,
    /// `envoy.filters.http.fault`.
    Fault(Arc<Fault>),
    /// `envoy.filters.http.grpc_stats`.
    GrpcStats(Arc<GrpcCounting>),
    /// `envoy.filters.http.grpc_web`.
    GrpcWeb,
    /// `envoy.filters.http.header_mutation`.
    HeaderMutation {
        /// Its own mutations, before those of routes.
        own: Arc<Mutations>,
        /// `most_specific_header_mutations_wins`: those of routes from the least specific on.
        most_specific_wins: bool,
    },
    /// `envoy.filters.http.health_check`.
    HealthCheck(Arc<HealthCheck>),
    /// `envoy.filters.http.local_ratelimit`.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.filters.http.on_demand`.
    OnDemand(OnDemand),
}

/// The head of a response on its way to the client.
pub(crate) struct ResponseHead<'r> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'r mut HeaderMap,
    pub(crate) content: Content,
}

/// What follows the head of a response.
#[derive(Debug)]
pub(crate) enum Content {
    /// Neither body nor trailers.
    Nothing,
    /// This.
    Whole(Bytes),
    /// What the upstream will send.
    Streamed,
}

/// What a response that is wanted whole has of its body, if it is long only its beginning.
///
/// # Errors
/// What ended the body before its end.
pub(crate) async fn whole_body(body: &mut UpstreamBody) -> Result<Bytes, Failure> {
    grpc_web::message_of(body).await
}

/// What a filter says to a request.
#[derive(Debug)]
enum Decision {
    Continue,
    Reply(Box<FilterReply>),
    /// The rest of the chain waits.
    Wait(Wait),
}

/// What a chain waits for.
#[derive(Debug)]
pub(crate) enum Wait {
    /// A delay; then the fault of the filter of this number may still abort.
    Fault(Duration, Arc<Fault>, usize),
    /// The whole body.
    Body(Buffer),
    /// The body of a health check that is answered here.
    HealthCheck(Arc<HealthCheck>),
    /// A cluster of this name.
    Cluster(OnDemandClusters, String),
    /// A virtual host of this name.
    VirtualHost(Asker, String),
}

/// What came of waiting.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The chain goes on.
    GoesOn,
    Reply(Box<FilterReply>),
    /// There may be a route now.
    ChooseAgain,
}

/// A response by a filter.
#[derive(Debug)]
pub(crate) struct FilterReply {
    pub(crate) status: StatusCode,
    /// For gRPC; `None`: what stands for the HTTP status.
    pub(crate) grpc_status: Option<u16>,
    pub(crate) body: Bytes,
    pub(crate) headers: HeaderMap,
    /// The route's `response_headers_to_*` are for it too.
    pub(crate) takes_route_headers: bool,
    pub(crate) flag: ResponseFlags,
    pub(crate) details: &'static str,
}

/// How far a chain has come.
#[derive(Debug)]
pub(crate) enum Progress {
    Done,
    Reply(Box<FilterReply>),
    /// To be waited for; the chain goes on with the filter of this number.
    Wait(Wait, usize),
}

impl FilterChain {
    /// The filters in the order of requests.
    pub fn new(slots: Vec<Slot>) -> Self {
        let has_discovered = slots.iter().any(|slot| matches!(slot.filter, SlotFilter::Discovered(_)));
        Self { slots: slots.into(), has_discovered }
    }

    /// The filters in the order of requests.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether there is nothing but the router.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether some filter counts requests by the address that they come from, or may one day.
    pub fn counts_by_address(&self) -> bool {
        self.slots.iter().any(|slot| match &slot.filter {
            SlotFilter::Configured(filter) => matches!(filter, HttpFilter::LocalRateLimit(_)),
            SlotFilter::Discovered(filter) => {
                filter.accepts("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit")
            }
        })
    }

    /// Whether clusters that are not known are asked for, or may be one day.
    pub fn asks_for_clusters(&self) -> bool {
        self.slots.iter().any(|slot| match &slot.filter {
            SlotFilter::Configured(HttpFilter::OnDemand(own)) => own.clusters.is_some(),
            SlotFilter::Configured(_) => false,
            SlotFilter::Discovered(filter) => {
                filter.accepts("envoy.extensions.filters.http.on_demand.v3.OnDemand")
            }
        })
    }

    /// Runs the filters from the one of this number on.
    pub(crate) fn on_request(
        &self,
        from: usize,
        stream: &mut ActiveStream,
        request: &mut Request<RequestBody>,
    ) -> Progress {
        if from == 0
            && let Some(state) = &mut stream.filter_state
        {
            state.forget();
        }
        if from == 0 && self.has_discovered {
            let state = stream.filter_state.get_or_insert_default();
            if state.pinned.is_empty() {
                state.pinned = self.pin();
            }
        }
        let route = stream.route.clone();
        let said_by = overrides_of(route.as_deref(), stream);
        for (at, slot) in self.slots.iter().enumerate().skip(from) {
            let said = said_by.and_then(|o| o.get(&slot.name));
            if slot.is_disabled(said) {
                continue;
            }
            let Some(filter) = slot.filter(at, stream) else {
                return Progress::Reply(discovered::missing());
            };
            let decision = match &*filter {
                HttpFilter::Buffer(buffer) => buffer::on_request(buffer, said, request),
                HttpFilter::Cors => cors::on_request(said, at, stream, request),
                HttpFilter::Fault(fault) => fault::on_request(fault, said, at, stream, request),
                HttpFilter::GrpcStats(counting) => grpc_stats::on_request(counting, at, stream, request),
                HttpFilter::GrpcWeb => grpc_web::on_request(at, stream, request),
                HttpFilter::HeaderMutation { own, most_specific_wins } => {
                    header_mutation::on_request(own, *most_specific_wins, said, stream, request)
                }
                HttpFilter::HealthCheck(check) => health_check::on_request(check, at, stream, request),
                HttpFilter::LocalRateLimit(limit) => {
                    local_rate_limit::on_request(limit, said, at, stream, request)
                }
                HttpFilter::OnDemand(own) => on_demand::on_request(own, said, stream),
            };
            match decision {
                Decision::Continue => {}
                Decision::Reply(reply) => return Progress::Reply(reply),
                Decision::Wait(wait) => return Progress::Wait(wait, at + 1),
            }
        }
        Progress::Done
    }

    /// Runs the filters in reverse over the head of a response, and tells what they do to its body.
    pub(crate) fn on_response(
        &self,
        stream: &ActiveStream,
        mut head: ResponseHead<'_>,
    ) -> Vec<ResponseStage> {
        let mut stages = Vec::new();
        let said_by = overrides_of(stream.route.as_deref(), stream);
        for (at, slot) in self.slots.iter().enumerate().rev() {
            let said = said_by.and_then(|o| o.get(&slot.name));
            if slot.is_disabled(said) {
                continue;
            }
            let Some(filter) = slot.filter(at, stream) else { continue };
            let kept = stream.filter_state.as_ref().and_then(|state| state.get(at));
            match &*filter {
                HttpFilter::Cors => cors::on_response(said, kept, head.headers),
                HttpFilter::Fault(_) => stages.extend(fault::on_response(kept, stream, &head)),
                HttpFilter::GrpcWeb => stages.extend(grpc_web::on_response(kept, &mut head)),
                HttpFilter::GrpcStats(_) => stages.extend(grpc_stats::on_response(kept, stream, &head)),
                HttpFilter::HeaderMutation { own, most_specific_wins } => {
                    header_mutation::on_response(own, *most_specific_wins, said, stream, head.headers);
                }
                HttpFilter::HealthCheck(check) => {
                    health_check::on_response(check, kept, stream, head.headers)
                }
                HttpFilter::LocalRateLimit(_) => local_rate_limit::on_response(kept, head.headers),
                HttpFilter::Buffer(_) | HttpFilter::OnDemand(_) => {}
            }
        }
        stages
    }
}

impl FilterChain {
    /// What the source has for each filter now.
    fn pin(&self) -> Box<[Option<Arc<HttpFilter>>]> {
        let present = |slot: &Slot| match &slot.filter {
            SlotFilter::Configured(_) => None,
            SlotFilter::Discovered(filter) => filter.get(),
        };
        self.slots.iter().map(present).collect()
    }
}

/// A filter as one request has it.
enum Present<'s> {
    Configured(&'s HttpFilter),
    Discovered(Arc<HttpFilter>),
}

impl Deref for Present<'_> {
    type Target = HttpFilter;

    fn deref(&self) -> &HttpFilter {
        match self {
            Self::Configured(filter) => filter,
            Self::Discovered(filter) => filter,
        }
    }
}

impl Slot {
    /// The filter as the stream has it; this is the slot of number `at`. `None`: its configuration has not come.
    fn filter(&self, at: usize, stream: &ActiveStream) -> Option<Present<'_>> {
        let filter = match &self.filter {
            SlotFilter::Configured(filter) => return Some(Present::Configured(filter)),
            SlotFilter::Discovered(filter) => filter,
        };
        let state = stream.filter_state.as_ref();
        let found = match state.filter(|state| !state.pinned.is_empty()) {
            Some(state) => state.pinned.get(at).cloned().flatten(),
            // A request that was refused before its chain began.
            None => filter.get(),
        };
        found.map(Present::Discovered)
    }

    fn is_disabled(&self, said: Option<&Override>) -> bool {
        match said {
            Some(said) => matches!(said, Override::Disabled),
            None => self.disabled,
        }
    }
}

/// Whether the request has all of these headers.
fn all_match(headers: &[HeaderMatcher], stream: &ActiveStream, request: &Request<RequestBody>) -> bool {
    if headers.is_empty() {
        return true;
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let view = view(request, host, stream.connection.scheme);
    headers.iter().all(|header| header.matches(&view))
}

/// Draws a request by a share in parts per million.
fn is_drawn(ppm: u32) -> bool {
    ppm >= 1_000_000 || (ppm > 0 && fastrand::u32(..1_000_000) < ppm)
}

/// What the route, or its weighted cluster, says to filters.
fn overrides_of<'r>(route: Option<&'r crate::route::Route>, stream: &ActiveStream) -> Option<&'r Overrides> {
    let route = route?;
    let weighted = match &route.action {
        crate::route::Action::Route(action) => action.clusters.weighted(stream.drawn),
        _ => None,
    };
    weighted.and_then(|w| w.overrides.as_deref()).or(route.overrides.as_deref())
}

impl Wait {
    /// Waits, and says what then happens to the request.
    pub(crate) async fn done(self, stream: &mut ActiveStream, request: &mut Request<RequestBody>) -> Waited {
        let reply = match self {
            Wait::Fault(delay, fault, at) => {
                stream.connection.worker.timers.wait(delay).await;
                fault::abort(&fault, at, stream, request)
            }
            Wait::Body(buffer) => buffer::fill(buffer, request).await,
            Wait::HealthCheck(check) => Some(health_check::after_body(&check, stream, request).await),
            Wait::Cluster(clusters, name) => on_demand::cluster(clusters, name, stream).await,
            Wait::VirtualHost(asker, name) => return on_demand::virtual_host(asker, name).await,
        };
        reply.map_or(Waited::GoesOn, |reply| Waited::Reply(Box::new(reply)))
    }
}
