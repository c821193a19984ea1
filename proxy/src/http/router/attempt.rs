//! One attempt: a host, a connection to it, the request out and the head of the response in.

use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::rewrite;
use super::spare::{self, Spare};
use crate::cluster::{Cluster, HealthFlag, Host, lb, outlier};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::codec::{Incoming, Version};
use crate::http::error::{Failure, StreamError};
use crate::http::pool::Reuse;
use crate::http::upgrade;
use crate::route::{HostPredicate, HostRewrite, RouteAction};

/// How often a request that its host has not seen may move to another connection: pooled ones that the upstream closed meanwhile.
const MAX_MOVES: u32 = 5;

/// A host that is actively checked wants no more requests.
const FAILS_AT_ONCE: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// What an attempt had better not go to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Avoid<'a> {
    pub(super) predicates: &'a [HostPredicate],
    /// The hosts of the attempts before.
    pub(super) tried: &'a [Arc<Host>],
    /// How often another host is drawn for one that is rejected.
    pub(super) redraws: u32,
    pub(super) priorities: &'a [u32],
}

impl Avoid<'_> {
    fn rejects(&self, host: &Host) -> bool {
        self.predicates.iter().any(|predicate| predicate.rejects(host, self.tried))
    }
}

/// Sends the request to one host of the cluster and waits for the response's head.
pub(super) async fn send(
    stream: &mut ActiveStream,
    cluster: &Arc<Cluster>,
    action: &RouteAction,
    mut request: Request<RequestBody>,
    authority: &Authority,
    avoid: Avoid<'_>,
) -> Result<Response<Incoming>, StreamError> {
    // A retry had better succeed.
    let criteria = action.criteria(stream.drawn);
    let probe = if stream.info.attempt_count == 0 { outlier::probe(cluster, criteria) } else { None };
    let began = cluster.lb.now();
    let picked = match &probe {
        Some(probe) => Some(probe.host().clone()),
        None => pick(stream, cluster, criteria, avoid, began),
    };
    let Some(host) = picked else {
        return Err(Failure::NoHealthyHost.into());
    };
    stream.info.upstream_host = Some(host.clone());
    stream.attempt(cluster, &host, began);
    if let Some(probe) = probe {
        stream.is_probe(probe);
    }
    let rewritten = match action.host_rewrite {
        Some(HostRewrite::Auto) => rewrite::to_upstream_host(stream, &mut request, action, &host),
        _ => None,
    };
    let authority = rewritten.as_ref().unwrap_or(authority);
    let downstream = stream.connection.version;
    let worker = stream.connection.worker.clone();
    let mut moves = 0;
    let mut reuse = if stream.upgrade.is_none() { spare::reuse(&request) } else { Reuse::Proven };
    loop {
        let checkout = worker.pools.checkout(cluster, &host, downstream, action.high_priority, reuse);
        let mut lease = match checkout.await {
            Ok(lease) => lease,
            Err(error) => return Err(failed(stream, cluster, error)),
        };
        if !stream.note(&lease, action.high_priority) {
            lease.finish();
            cluster.stats.upstream_rq_pending_overflow.inc();
            // Logs name the host, as Envoy's do: there was a connection for it.
            return Err(Failure::Overflow.into());
        }
        let mut outgoing = outgoing(request, lease.version(), authority, stream.connection.scheme);
        let rested = lease.has_rested();
        let may_move = lease.is_reused() && moves < MAX_MOVES;
        let mut spare = None;
        if may_move && stream.upgrade.is_none() {
            let (request, kept) = Spare::keep(outgoing, lease.version());
            (outgoing, spare) = (request, Some(kept));
        }
        let sent = match &stream.upgrade {
            None => lease.send(outgoing, stream.interim.as_deref()).await,
            Some(upgrade) => {
                upgrade.ask(&mut outgoing, lease.version(), authority);
                // On the heap, so that requests without it do not carry its state.
                Box::pin(upgrade::send(stream, &mut lease, outgoing)).await
            }
        };
        match sent {
            Ok(response)
                if response.status() == StatusCode::SWITCHING_PROTOCOLS && !stream.is_switching() =>
            {
                stream.lend(lease);
                return Err(failed(stream, cluster, Failure::Protocol.into()));
            }
            Ok(response) => {
                if host.has(HealthFlag::Checked) && response.headers().contains_key(&FAILS_AT_ONCE) {
                    host.active_health().fail_at_once();
                }
                stream.lend(lease);
                stream.count_response_fields(response.headers());
                stream.info.first_upstream_byte = Some(Instant::now() - stream.info.start);
                spare.inspect(|spare| spare.forget());
                return Ok(response);
            }
            Err(mut error) => {
                let failure = stream.request_failure();
                let late = failure.unwrap_or(error.failure);
                moves += 1;
                if let (true, Some(unsent)) = (may_move, error.unsent.take()) {
                    request = unsent;
                } else if let (None, Some(again)) =
                    (failure, spare.and_then(|spare| spare.again(error, rested)))
                {
                    cluster.stats.upstream_rq_replayed.inc();
                    reuse = Reuse::None;
                    request = again;
                } else {
                    stream.lend(lease);
                    return Err(failed(stream, cluster, late.into()));
                }
            }
        }
    }
}

/// A host; another one than those to avoid, if a few draws find one.
pub(super) fn pick(
    stream: &ActiveStream,
    cluster: &Cluster,
    criteria: Option<&lb::Criteria>,
    avoid: Avoid<'_>,
    now: Option<Instant>,
) -> Option<Arc<Host>> {
    let original_destination = stream.info.connection.original_destination;
    let excluded_priorities = avoid.priorities;
    let hash = stream.hash;
    let context = lb::Context { original_destination, hash, redraw: 0, excluded_priorities, criteria, now };
    let draw = |redraw| lb::pick(cluster, lb::Context { redraw, ..context });
    let mut host = draw(0)?;
    for redraw in 1..=avoid.redraws {
        if !avoid.rejects(&host) {
            break;
        }
        host = draw(redraw)?;
    }
    Some(host)
}

pub(super) fn failed(stream: &mut ActiveStream, cluster: &Arc<Cluster>, error: StreamError) -> StreamError {
    stream.info.upstream_transport_failure.clone_from(&error.transport_failure);
    let stats = &cluster.stats;
    match error.kind {
        // No connection was found for it, so it went to no host.
        Failure::Overflow => stream.info.upstream_host = None,
        Failure::ConnectRefused | Failure::ConnectTimeout => stats.upstream_rq_pending_failure_eject.inc(),
        Failure::RemoteReset | Failure::RemoteRefused => stats.upstream_rq_rx_reset.inc(),
        Failure::Protocol => stats.upstream_cx_protocol_error.inc(),
        _ => {}
    }
    error
}

/// The request as the upstream's HTTP version wants it: `host` and an origin-form target for HTTP/1, `:authority` for HTTP/2.
pub(super) fn outgoing(
    mut request: Request<RequestBody>,
    version: Version,
    authority: &Authority,
    scheme: &'static str,
) -> Request<RequestBody> {
    let path = request.uri().path_and_query().cloned();
    match version {
        Version::Http1 => {
            *request.version_mut() = http::Version::HTTP_11;
            if matches!(request.body(), RequestBody::Empty)
                && !matches!(*request.method(), Method::GET | Method::HEAD | Method::CONNECT | Method::DELETE)
            {
                request.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
            }
            if let Some(path) = path
                && request.uri().scheme().is_some()
            {
                *request.uri_mut() = Uri::from(path);
            }
        }
        Version::Http2 => {
            *request.version_mut() = http::Version::HTTP_2;
            request.headers_mut().remove(HOST);
            request.headers_mut().remove(TRANSFER_ENCODING);
            let mut parts = Parts::default();
            parts.scheme = Some(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = Some(authority.clone());
            parts.path_and_query = path;
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}
