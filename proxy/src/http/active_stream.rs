//! One request in flight, and its end: exactly one place, on success, failure, disconnect and panic alike (`Drop`).

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};

use super::HttpConnectionManager;
use super::body::RequestProgress;
use super::codec::{self, Interim};
use super::counted::Counted;
use super::deadlines::{DeadlineWatch, Deadlines};
use super::downstream::DownstreamConnection;
use super::error::Failure;
use super::filters::FilterState;
use super::internal_redirect::Redirects;
use super::pool::Lease;
use super::router::{SentRequest, Timeouts};
use super::upgrade::Upgrade;
use super::upstream::Upstream;
use super::wire_bytes::Meters;
use crate::cluster::outlier::{self, Outcome};
use crate::cluster::{Cluster, Host};
use crate::formatter::{RequestLine, Values};
use crate::on_demand::Asker;
use crate::route::{
    Action, Drawn, NamedCluster, RequestView, Route, RouteAction, RouteConfiguration, is_grpc,
};
use crate::stream_info::{AccessLogType, ResponseFlags, StreamInfo, details};

#[derive(Debug)]
pub(crate) struct ActiveStream {
    pub(crate) info: StreamInfo,
    /// Since when it is on its way to the upstream: from its start, or from the end of a filter's wait.
    pub(crate) forwarded: Instant,
    pub(crate) connection: Rc<DownstreamConnection>,
    /// The connection manager as it was when the request came.
    pub(crate) hcm: Arc<HttpConnectionManager>,
    /// The request is gRPC, so local replies are too.
    pub(crate) grpc: bool,
    /// The request is HEAD, so no response has a body.
    pub(crate) head: bool,
    /// The client wants another protocol.
    pub(crate) upgrade: Option<Box<Upgrade>>,
    /// Response headers went downstream.
    pub(crate) response_started: bool,
    /// The response went downstream to its last byte.
    pub(crate) complete: bool,
    /// The response cannot be finished.
    aborted: bool,
    /// No filter has seen it, and none sees its response.
    pub(crate) skips_filters: bool,
    /// Another stream has gone on from it.
    redirected: bool,
    /// The request may ask something of the router by headers of its own.
    pub(crate) asks_router: bool,
    /// The timeouts that are this request's own.
    pub(crate) timeouts: Option<Timeouts>,
    /// When the upstream must be done, whatever it does.
    pub(crate) upstream_until: Option<Instant>,
    /// The internal redirects that it has taken.
    pub(crate) redirects: Option<Box<Redirects>>,
    /// The request as it went upstream, when the answer is an internal redirect.
    pub(crate) sent: Option<Box<SentRequest>>,
    /// What the response is to repeat of the request's `x-request-id`.
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) progress: Option<Rc<RequestProgress>>,
    /// Where informational responses go, when they do.
    pub(crate) interim: Option<Box<Interim>>,
    /// The route that was found.
    pub(crate) route: Option<Arc<Route>>,
    /// Which of its weighted clusters was drawn.
    pub(crate) drawn: Drawn,
    /// The cluster that the request names by the route's `cluster_header`.
    pub(crate) named: Option<NamedCluster>,
    /// What the route's hash policies made of the request, where its cluster picks by that.
    pub(crate) hash: Option<u64>,
    /// The virtual host that is missing, where it can be asked for.
    pub(crate) lacks_host: LacksHost,
    /// What filters keep for the response.
    pub(crate) filter_state: Option<Box<FilterState>>,
    /// The request's head, when headers of the response are made of it.
    kept_head: Option<Box<http::request::Parts>>,
    /// Taken out while the router holds the stream.
    pub(crate) watch: Option<DeadlineWatch>,
    upstream: Option<Upstream>,
    /// Where it counts beside its cluster.
    pub(super) counted: Counted,
    pub(super) meters: Meters,
}

/// Whether a stream found no virtual host.
#[derive(Debug)]
pub(crate) enum LacksHost {
    No,
    /// Whom to ask for it, and its name.
    Yes(Box<(Asker, String)>),
    /// It was asked for.
    Asked,
}

impl ActiveStream {
    pub(crate) fn begin<B>(
        connection: &Rc<DownstreamConnection>,
        hcm: Arc<HttpConnectionManager>,
        request: &Request<B>,
    ) -> Box<Self> {
        let stats = &hcm.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        if request.version() == Version::HTTP_2 {
            stats.downstream_rq_http2_total.inc();
        } else {
            stats.downstream_rq_http1_total.inc();
        }
        connection.handle.stream_started();
        let mut info = StreamInfo::new(connection.info.clone(), Some(request.version()));
        if hcm.access_logs.captures.details {
            info.log_details = Some(Box::default());
        }
        Box::new(Self {
            forwarded: info.start,
            grpc: is_grpc(request.headers()),
            head: request.method() == Method::HEAD,
            info,
            connection: connection.clone(),
            hcm,
            upgrade: None,
            response_started: false,
            complete: false,
            aborted: false,
            skips_filters: false,
            redirected: false,
            asks_router: false,
            timeouts: None,
            upstream_until: None,
            redirects: None,
            sent: None,
            request_id: None,
            progress: None,
            interim: None,
            route: None,
            drawn: None,
            named: None,
            hash: None,
            lacks_host: LacksHost::No,
            filter_state: None,
            kept_head: None,
            watch: None,
            upstream: None,
            counted: Counted::default(),
            meters: Meters::default(),
        })
    }

    /// Keeps the request's head if headers of the route's response are made of it.
    pub(crate) fn keep_head_for_route<B>(&mut self, request: &Request<B>) {
        if self.route.as_ref().is_some_and(|route| route.keeps_request_head) {
            self.keep_head(request);
        }
    }

    /// Keeps the request's head: headers of the response are made of it.
    pub(crate) fn keep_head<B>(&mut self, request: &Request<B>) {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method.clone_from(request.method());
        head.uri.clone_from(request.uri());
        head.headers.clone_from(request.headers());
        self.kept_head = Some(Box::new(head));
    }

    /// What formats of response headers are made of.
    pub(crate) fn values(&self) -> Values<'_> {
        let mut values = Values::from(&self.info);
        if let Some(head) = &self.kept_head {
            values.line = Some(RequestLine {
                method: head.method.as_str(),
                path: head.uri.path_and_query().map_or("", |p| p.as_str()),
                authority: head.headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default(),
                scheme: self.connection.scheme,
            });
            values.request = Some(&head.headers);
        }
        values
    }

    /// There is no virtual host for this authority. It is asked for once.
    pub(crate) fn lack_host(&mut self, routes: &RouteConfiguration, authority: &str) {
        if let (Some(asker), LacksHost::No) = (&routes.vhds, &self.lacks_host) {
            let name = format!("{}/{}", routes.name, authority.to_ascii_lowercase());
            self.lacks_host = LacksHost::Yes(Box::new((asker.clone(), name)));
        }
    }

    /// Takes a route, and one of its clusters.
    pub(crate) fn take(&mut self, route: &Arc<Route>, request: &RequestView<'_>) {
        self.info.route_name.clone_from(&route.name);
        if let Action::Route(action) = &route.action {
            self.drawn = action.clusters.draw(fastrand::u64(..));
            let header = action.clusters.header(self.drawn);
            self.named = header.and_then(|header| header.named(request));
        }
        self.route = Some(route.clone());
    }

    /// The cluster that the request is for; `None`: there is none.
    pub(crate) fn cluster(&self, action: &RouteAction) -> Option<Arc<Cluster>> {
        match action.clusters.cluster(self.drawn) {
            Some(cluster) => cluster.get(),
            None => self.named.as_ref()?.cell.as_ref()?.get(),
        }
    }

    /// The name of the cluster that the request is for.
    pub(crate) fn chosen_cluster(&self) -> Option<&str> {
        match &self.route.as_ref()?.action {
            Action::Route(action) => match action.clusters.cluster(self.drawn) {
                Some(cluster) => Some(&**cluster.name()),
                // As in Envoy: a request that names none is for the one without a name.
                None => Some(self.named.as_ref().and_then(NamedCluster::name).unwrap_or_default()),
            },
            _ => None,
        }
    }

    /// The cluster that the request is for, if it exists.
    pub(crate) fn route_cluster(&self) -> Option<Arc<Cluster>> {
        match &self.route.as_ref()?.action {
            Action::Route(action) => self.cluster(action),
            _ => None,
        }
    }

    /// To logs and metrics the request was for the route's cluster, although a filter kept it from going there.
    pub(crate) fn note_cluster(&mut self) {
        if let Some(Action::Route(action)) = self.route.as_deref().map(|route| &route.action) {
            self.info.upstream_cluster = self.cluster(action);
        }
    }

    /// The header changes that the route makes of a response.
    pub(crate) fn change_response_headers(&self, headers: &mut HeaderMap) {
        let Some(route) = &self.route else { return };
        let weighted = match &route.action {
            Action::Route(action) => action.clusters.weighted(self.drawn).map(|w| &w.response_headers),
            _ => None,
        };
        let weighted = weighted.filter(|steps| !steps.is_empty());
        if weighted.is_none() && route.response_headers.is_empty() {
            return;
        }
        let values = self.values();
        for steps in weighted.into_iter().chain(route.response_headers.iter().map(|m| &**m)) {
            steps.apply_to_response(headers, values);
        }
    }

    /// The attempt goes to this host.
    pub(crate) fn attempt(&mut self, cluster: &Arc<Cluster>, host: &Arc<Host>, began: Option<Instant>) {
        if self.info.attempt_count > 0 {
            // Up to here the log has the attempt before.
            self.info.upstream_local_address = None;
            self.info.upstream_protocol = None;
            self.info.upstream_tls = None;
            self.info.upstream_transport_failure = None;
            self.info.first_upstream_byte = None;
        }
        self.info.upstream_host = Some(host.clone());
        self.info.attempt_count += 1;
        self.upstream = Some(Upstream::new(cluster, host, began));
    }

    /// The attempt decides whether its host comes back.
    pub(crate) fn is_probe(&mut self, probe: Box<outlier::Probe>) {
        if let Some(upstream) = &mut self.upstream {
            upstream.probe = Some(probe);
        }
    }

    /// The request goes out on this connection. False when the circuit breaker has no place for it.
    pub(crate) fn note(&mut self, lease: &Lease, high_priority: bool) -> bool {
        let about = lease.connection();
        // Once, however many connections were closed under it.
        if let Some(upstream) = self.upstream.as_mut().filter(|upstream| upstream.permit.is_none()) {
            if !upstream.send(high_priority) {
                return false;
            }
            upstream.cluster.stats.upstream_rq_total.inc();
            self.counted.each(|requests| requests.total.inc());
            upstream.host.requests_total.fetch_add(1, Ordering::Relaxed);
        }
        self.begin_upstream_wire(lease);
        self.info.upstream_local_address = about.local_address;
        self.info.upstream_protocol = Some(lease.version().into());
        self.info.upstream_tls.clone_from(&about.tls);
        self.note_connection(about);
        if let Some(upstream) = &self.upstream {
            outlier::connected(&upstream.cluster, &upstream.host);
        }
        true
    }

    /// The connection of a tunnel is there. False when the circuit breaker has no place for it.
    pub(crate) fn note_tunnel(&mut self, high_priority: bool) -> bool {
        self.upstream.as_mut().is_none_or(|upstream| upstream.send(high_priority))
    }

    /// Keeps the connection until the response was read.
    pub(crate) fn lend(&mut self, lease: Lease) {
        if let Some(upstream) = &mut self.upstream {
            upstream.lease = Some(lease);
        }
    }

    /// The attempt is given up for another one. Its outcome stands for this status. `by_us`: it was not the upstream that ended it.
    pub(crate) fn end_attempt(&mut self, status: u16, outcome: Outcome, by_us: bool) {
        let Some(mut upstream) = self.upstream.take() else { return };
        if by_us {
            upstream.count_reset(self.info.upstream_protocol);
        }
        if status >= 500 {
            upstream.host.requests_error.fetch_add(1, Ordering::Relaxed);
        }
        upstream.record(outcome);
    }

    /// The upstream's redirect is followed: another stream goes on.
    pub(crate) fn end_by_redirect(&mut self, status: StatusCode) {
        self.info.response_code = status.as_u16();
        self.info.response_code_details = details::INTERNAL_REDIRECT;
        (self.complete, self.redirected) = (true, true);
        if let Some(mut upstream) = self.upstream.take() {
            upstream.record(Outcome::Answered(status.as_u16()));
        }
    }

    /// The status that a failure stands for: a caller may have timeouts answered with 204, and half a request is the client's doing.
    pub(crate) fn status_of(&self, failure: Failure) -> StatusCode {
        match failure {
            Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdle
                if self.timeouts.is_some_and(|timeouts| timeouts.answers_no_content) =>
            {
                StatusCode::NO_CONTENT
            }
            // It is the client that is waited for.
            Failure::StreamIdle | Failure::MaxDuration if self.is_receiving() => StatusCode::REQUEST_TIMEOUT,
            _ => failure.status(),
        }
    }

    /// The upstream answered with this status, or failed in a way that stands for it.
    pub(crate) fn upstream_outcome(&mut self, status: u16, outcome: Outcome) {
        let Some(upstream) = &mut self.upstream else { return };
        if !self.info.health_check {
            upstream.cluster.stats.response(status);
            self.counted.each(|requests| requests.response(status));
            if status >= 500 {
                upstream.host.requests_error.fetch_add(1, Ordering::Relaxed);
            }
        }
        upstream.record(outcome);
    }

    /// The upstream's response was read to the end; the client may not have all of it yet.
    pub(crate) fn upstream_complete(&mut self) {
        if let Some(details) = &mut self.info.log_details {
            details.upstream_rx_end.get_or_insert_with(Instant::now);
        }
        self.settle_upstream_wire();
        if let Some(upstream) = &mut self.upstream {
            upstream.complete = true;
            if let Some(lease) = upstream.lease.take() {
                lease.finish();
            }
        }
    }

    /// The response cannot be finished.
    pub(crate) fn fail_after_response(&mut self, failure: Failure) {
        self.aborted = true;
        self.info.flags.insert(failure.flag());
        self.info.response_code_details = failure.details_after_response();
        failure.count_late(&self.hcm.stats);
        let Some(upstream) = &self.upstream else { return };
        match failure {
            Failure::Timeout => {
                upstream.cluster.stats.upstream_rq_timeout.inc();
                self.counted.each(|requests| requests.timeout.inc());
            }
            Failure::UpstreamMaxDuration => upstream.cluster.stats.upstream_rq_max_duration_reached.inc(),
            Failure::RemoteReset | Failure::RemoteRefused => {
                upstream.cluster.stats.upstream_rq_rx_reset.inc();
                upstream.broke_off();
            }
            _ => {}
        }
        self.hcm.stats.downstream_rq_tx_reset.inc();
        // Envoy counts its own resets here too.
        self.hcm.stats.downstream_rq_rx_reset.inc();
    }

    /// The stream is reset without an answer.
    pub(crate) fn abort(&mut self, why: &'static str) {
        self.aborted = true;
        // To the log it never was a request.
        self.info.request = None;
        self.info.flags.insert(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
        self.info.response_code_details = why;
        self.hcm.stats.downstream_rq_tx_reset.inc();
    }

    /// The upstream agrees to the protocol that the client wants.
    pub(crate) fn is_switching(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_accepted())
    }

    /// Whether the request's body went out to its end.
    pub(crate) fn has_sent_request(&self) -> bool {
        self.request_sent_after().is_some()
    }

    /// So long after the request's start its body went out to its end; `None`: it has not yet.
    pub(crate) fn request_sent_after(&self) -> Option<Duration> {
        match &self.progress {
            None => Some(Duration::ZERO),
            Some(progress) => progress.complete.get().map(|at| at - self.info.start),
        }
    }

    /// Whether more of the request's body is to come.
    fn is_receiving(&self) -> bool {
        let receives = |progress: &RequestProgress| progress.asked.get() && progress.complete.get().is_none();
        self.progress.as_deref().is_some_and(receives)
    }

    /// Whether an answer of our own comes as soon as the head of the request, and not its end, has been read.
    pub(crate) fn is_early(&self) -> bool {
        self.info.upstream_host.is_none()
            && self.progress.as_ref().is_some_and(|progress| progress.complete.get().is_none())
    }

    /// Whether trailers are taken from the upstream: with HTTP/1 they need to be enabled.
    pub(crate) fn takes_trailers(&self) -> bool {
        self.info.upstream_protocol == Some(Version::HTTP_2)
            || self.upstream.as_ref().is_some_and(|upstream| upstream.cluster.connection.http1_trailers)
    }

    /// Whether trailers go to the client: the same.
    pub(crate) fn sends_trailers(&self) -> bool {
        self.connection.version == codec::Version::Http2 || self.hcm.http1.enable_trailers
    }

    /// Where the request comes from: the address behind trusted proxies, else the peer's. Known where something asks for it.
    pub(crate) fn remote_ip(&self) -> Option<IpAddr> {
        let known = self.info.remote_address.map(|address| address.ip());
        known.or_else(|| self.connection.info.peer_address.ip())
    }

    /// Why the request's body could not be read.
    pub(crate) fn request_failure(&self) -> Option<Failure> {
        self.progress.as_ref()?.failed.get()
    }

    /// Something moved.
    pub(crate) fn touch(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.touch();
        }
    }

    /// Sets what the rest of the stream may take.
    pub(crate) fn limit(&mut self, deadlines: Deadlines) {
        let watch = DeadlineWatch::new(self, deadlines, self.info.start);
        self.watch = Some(watch.with_response_from(self.forwarded));
    }

    /// What follows is not a response: only silence and the whole duration are limited.
    pub(crate) fn end_of_http(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.end_of_http();
        }
    }

    /// The response is here; what keeps it is not the upstream's doing.
    pub(crate) fn end_of_response(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.end_of_response();
        }
    }

    /// Whether a deadline has passed; otherwise the task is woken when the next one may have.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Option<Failure> {
        self.watch.as_mut()?.poll(cx)
    }

    fn finish(&mut self) {
        let now = Instant::now();
        let (connection, hcm) = (&self.connection, &self.hcm);
        let stats = &hcm.stats;
        self.info.bytes_received += self.progress.as_ref().map_or(0, |progress| progress.bytes.get());
        self.info.request_complete = self.request_sent_after();
        self.info.duration = now - self.info.start;
        if !self.complete && !self.aborted && self.info.flags.is_empty() {
            let is_open = !connection.handle.is_client_ended() && !connection.handle.is_killed();
            let (flag, why) = match self.info.protocol == Some(Version::HTTP_2) && is_open {
                true => (ResponseFlags::DOWNSTREAM_REMOTE_RESET, details::HTTP2_REMOTE_RESET),
                false => {
                    (ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, details::DOWNSTREAM_REMOTE_DISCONNECT)
                }
            };
            self.info.flags.insert(flag);
            self.info.response_code_details = why;
            stats.downstream_rq_rx_reset.inc();
        }
        if self.info.health_check {
            stats.tracing_health_check.inc();
        } else if self.info.response_code > 0 && !self.redirected {
            stats.response(self.info.response_code);
        }
        stats.downstream_rq_time.observe_duration(self.info.duration);
        if let Some(upstream) = self.upstream.take() {
            let cluster = &upstream.cluster.stats;
            let never_sent = self.info.upstream_local_address.is_none();
            if never_sent && self.info.response_code == 0 {
                cluster.upstream_rq_cancelled.inc();
            }
            if !self.info.flags.intersects(ResponseFlags::BY_UPSTREAM) {
                upstream.count_reset(self.info.upstream_protocol);
            }
            if !self.info.health_check {
                cluster.upstream_rq_time.observe_duration(self.info.duration);
                if upstream.complete {
                    self.counted.each(|requests| requests.time.observe_duration(self.info.duration));
                }
            }
        }
        if let Some(reporter) = hcm.reporter {
            connection.mesh.record(reporter, connection, &self.info, self.grpc);
        }
        if !hcm.access_logs.logs.is_empty() {
            self.settle_wire();
            self.log(AccessLogType::DownstreamEnd);
        }
        let connection = &self.connection;
        // With HTTP/1 the stream is part of the connection's task, which counts itself.
        if self.info.protocol == Some(Version::HTTP_2) {
            connection.worker.shared.count_panic();
        }
        // Last of all, so that who waits for it finds everything counted.
        self.hcm.stats.downstream_rq_active.dec();
        connection.handle.stream_ended(now);
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.finish();
    }
}
