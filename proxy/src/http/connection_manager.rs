//! One downstream HTTP connection, and the request pipeline: read `serve_request` top to bottom.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::active_stream::ActiveStream;
use super::body::{Aborted, RequestBody, ResponseBody};
use super::codec::{self, Incoming, Refusal, ServeError, Served, Version};
use super::deadlines::{DeadlineWatch, Deadlines};
use super::downstream::{CountedConnection, DownstreamConnection};
use super::error::{Failure, StreamError};
use super::filters::{self, FilterReply, Progress, Waited};
use super::headers::X_REQUEST_ID;
use super::mesh_metrics::MeshSeries;
use super::origin::INTERNAL;
use super::path::Normalised;
use super::respond::{self, failed, local, redirected, refused, respond, switch};
use super::router::UpstreamBody;
use super::upgrade::Upgrade;
use super::{
    HttpConnectionManager, LiveConnectionManager, RouteSource, internal_redirect, overload, redirect, router,
};
use crate::formatter::{RequestLine, Values};
use crate::net::Stream;
use crate::route::{
    Action, PeerCertificate, Redirect, RequestView, RequireTls, Route, RouteAction, RouteConfiguration,
};
use crate::stream_info::{AccessLogType, ConnectionInfo, ResponseFlags, details};
use crate::worker::{ConnectionHandle, ConnectionLimits, Worker};

/// Serves a connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    live: Arc<LiveConnectionManager>,
    mut stream: Stream,
    info: Arc<ConnectionInfo>,
    handle: Rc<ConnectionHandle>,
) {
    let opened = Instant::now();
    let stats = live.get().stats.clone();
    handle.limit(ConnectionLimits {
        idle_timeout: live.connection.idle_timeout,
        max_duration: live.connection.max_duration,
        drain_timeout: live.connection.drain_timeout,
        // A stream cannot see its own timeout while the engine does not ask it for more, as the client takes nothing.
        stall_timeout: live.connection.stall_timeout,
        stats: stats.clone(),
    });
    let detected = tokio::select! {
        detected = codec::detect(&live, info.tls.as_ref(), &mut stream) => detected,
        () = handle.closing() => return,
    };
    let Ok((version, read_ahead)) = detected else { return };
    if overload::closes(&handle, &worker, &stats) {
        return;
    }
    let _counted = CountedConnection::new(&stats, version, info.tls.is_some(), &handle, opened);
    let connection = Rc::new(DownstreamConnection {
        scheme: if info.tls.is_some() { "https" } else { "http" },
        worker,
        live: live.clone(),
        stats: stats.clone(),
        info,
        handle: handle.clone(),
        version,
        mesh: MeshSeries::default(),
        authority: RefCell::new(None),
        requests: Cell::new(0),
        client_cert: OnceCell::new(),
        exchange: RefCell::new(None),
        limiter: RefCell::default(),
    });
    let requests = |request| serve_request(connection.clone(), request);
    let ended = match version {
        Version::Http1 => codec::serve_http1(stream, read_ahead, &connection, requests).await,
        Version::Http2 => codec::serve_http2(stream, read_ahead, &connection, requests).await,
    };
    match ended {
        Ok(Served::Closed) => {}
        Ok(Served::Late(late)) => {
            let answer = respond::late_head(&connection, late.failure);
            late.answer(answer, &connection).await;
        }
        Ok(Served::Bad(head)) => {
            let answer = respond::bad_head(&connection, head.refusal);
            head.answer(answer, &connection).await;
        }
        Ok(Served::Switched(downstream)) => {
            let exchange = connection.exchange.take();
            if let Some(exchange) = exchange {
                tokio::select! {
                    () = exchange.run(downstream) => {}
                    () = handle.killed() => {}
                }
            }
        }
        Err(ServeError::Incomplete) => {
            respond::log_incomplete(&connection);
        }
        Err(ServeError::Io) => {}
    }
}

/// The request pipeline. The response's body owns the stream from here on; dropped without a response, the client has gone.
///
/// # Errors
/// The client's side failed in the middle of its request: there is nobody to answer.
async fn serve_request(
    connection: Rc<DownstreamConnection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Aborted> {
    // Pinned, with all that it has: whatever configuration does meanwhile.
    let hcm = connection.live.get();
    let mut stream = ActiveStream::begin(&connection, hcm.clone(), &request);
    let hcm = &*hcm;
    connection.count_request(hcm, request.version());
    stream.begin_wire(&request);

    // 1. What every request must have.
    let (mut request, progress) = split_body(request, &mut stream);
    stream.progress = progress;
    if let Some(pressed) = connection.pressed()
        && overload::refuses(&connection, hcm, pressed, &mut request)
    {
        stream.capture_request(&request);
        return Ok(respond::overloaded(stream));
    }
    stream.upgrade = Upgrade::asked(&connection, &mut request);
    let mut authority = match connection.normalise(hcm, &mut request) {
        Ok(authority) => authority,
        Err(refusal) => {
            stream.capture_request(&request);
            if refusal.details == details::HTTP2_UNEXPECTED_UNDERSCORE {
                // As in Envoy, which resets the stream.
                stream.abort(refusal.details);
                return Err(Aborted);
            }
            return Ok(refused(stream, refusal));
        }
    };

    if !hcm.path.is_idle() {
        match hcm.path.apply(&mut request) {
            Normalised::Continue => {}
            Normalised::Redirect if !stream.grpc => {
                stream.capture_request(&request);
                return Ok(respond::to_normalised(stream, path_and_query(&request)));
            }
            Normalised::Redirect | Normalised::Reject => {
                stream.capture_request(&request);
                let (status, details) = (StatusCode::BAD_REQUEST, details::PATH_NORMALIZATION_FAILED);
                return Ok(refused(stream, Refusal { status, details, protocol_error: false }));
            }
        }
    }

    // 2. Headers of ours.
    let origin = connection.mutate_headers(hcm, &mut request);
    let scheme = origin.scheme;
    stream.info.remote_address = origin.address;
    stream.asks_router = origin.asks_router;
    stream.capture_request(&request);
    if hcm.always_set_request_id_in_response {
        stream.request_id = request.headers().get(X_REQUEST_ID).cloned();
    }

    // Once, again when a virtual host has come, and for each redirect of the upstream that is followed here.
    let mut has_begun = false;
    loop {
        // 3. Which route: pinned too.
        if let Chosen::RequiresTls = choose_route(hcm, &mut stream, &request, authority.as_str(), scheme) {
            hcm.stats.rq_total.inc();
            hcm.stats.rq_direct_response.inc();
            let location = format!("https://{}{}", authority.as_str(), path_and_query(&request));
            let location = HeaderValue::try_from(location).ok();
            return Ok(redirected(stream, StatusCode::MOVED_PERMANENTLY, location));
        }

        if hcm.log_on_new_request && !has_begun {
            has_begun = true;
            stream.note_cluster();
            stream.log_so_far(AccessLogType::DownstreamStart);
        }

        // 4. Filters.
        if !hcm.filters.is_empty() {
            match run_filters(hcm, &mut stream, &mut request).await {
                Ok(Filtered::Done) => {}
                Ok(Filtered::Reply(reply)) => return Ok(respond::filtered(stream, *reply)),
                // From the start, as in Envoy.
                Ok(Filtered::ChooseAgain) => continue,
                Err(failure) => {
                    stream.note_cluster();
                    return Ok(failed(stream, failure.into()));
                }
            }
        }
        hcm.stats.rq_total.inc();
        let Some(route) = stream.route.clone() else {
            hcm.stats.no_route.inc();
            stream.info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
            return Ok(local(stream, StatusCode::NOT_FOUND, Bytes::new(), details::ROUTE_NOT_FOUND));
        };

        // 5. What the route does.
        let action = match &route.action {
            Action::Route(action)
                if stream.upgrade.as_mut().is_some_and(|u| !u.is_allowed(hcm, action, &request)) =>
            {
                stream.info.upstream_cluster = stream.cluster(action);
                let (status, details) = (StatusCode::FORBIDDEN, details::UPGRADE_FAILED);
                return Ok(refused(stream, Refusal { status, details, protocol_error: false }));
            }
            Action::Route(action) => action,
            Action::Redirect(to) => {
                hcm.stats.rq_direct_response.inc();
                let location = location(to, &stream, &route, &request, authority.as_str(), scheme);
                return Ok(redirected(stream, to.status, location));
            }
            Action::DirectResponse(direct) => {
                hcm.stats.rq_direct_response.inc();
                return Ok(respond::direct(stream, direct));
            }
        };
        let deadlines = router::deadlines(&mut stream, action, request.headers_mut());
        stream.limit(deadlines);
        if stream.upgrade.as_ref().is_some_and(|upgrade| upgrade.ends_here()) {
            // On the heap, so that requests do not carry its state.
            return Ok(Box::pin(open_tunnel(stream, action)).await);
        }
        let outcome = forward_in_time(&mut stream, &route, action, request, authority).await;
        if let Ok(response) = &outcome
            && stream.sent.is_some()
            && let Some(next) = internal_redirect::follow(&mut stream, response, scheme)
        {
            (stream, request, authority) = next.begin(stream);
            has_begun = false;
            continue;
        }
        return match outcome {
            Ok(response) if stream.is_switching() => Ok(switch(stream, response.map(|_| ()))),
            Ok(response)
                if stream.filter_state.as_ref().is_some_and(|state| state.wants_whole(&response)) =>
            {
                // On the heap, so that requests without such a filter do not carry its state.
                Ok(Box::pin(respond_with_whole(stream, response)).await)
            }
            Ok(response) => Ok(respond(stream, response)),
            Err(StreamError { kind: Failure::Downstream, .. }) => Err(Aborted),
            Err(error) => Ok(failed(stream, error)),
        };
    }
}

/// Where a redirect of the route leads.
fn location(
    to: &Redirect,
    stream: &ActiveStream,
    route: &Route,
    request: &Request<RequestBody>,
    authority: &str,
    scheme: &'static str,
) -> Option<HeaderValue> {
    let path = path_and_query(request);
    let line = RequestLine { method: request.method().as_str(), path, authority, scheme };
    let values = Values { line: Some(line), request: Some(request.headers()), ..Values::from(&stream.info) };
    redirect::location(to, &route.matcher.path, scheme, authority, path, values)
}

/// Opens a tunnel that ends here, and says so.
async fn open_tunnel(mut stream: Box<ActiveStream>, action: &RouteAction) -> Response<ResponseBody> {
    let opened = match stream.watch.take() {
        None => router::open_tunnel(&mut stream, action).await,
        Some(mut watch) => {
            let opened = watch.run(router::open_tunnel(&mut stream, action)).await;
            stream.watch = Some(watch);
            opened.unwrap_or_else(|failure| Err(failure.into()))
        }
    };
    match opened {
        Ok(()) => switch(stream, Response::new(())),
        Err(error) => failed(stream, error),
    }
}

/// Waits for the end of the upstream's response.
async fn respond_with_whole(
    mut stream: Box<ActiveStream>,
    response: Response<UpstreamBody>,
) -> Response<ResponseBody> {
    let (parts, mut body) = response.into_parts();
    let body = match stream.watch.take() {
        None => filters::whole_body(&mut body).await,
        Some(mut watch) => {
            let body = watch.run(filters::whole_body(&mut body)).await;
            stream.watch = Some(watch);
            body.unwrap_or_else(Err)
        }
    };
    match body {
        Ok(body) => respond::respond_whole(stream, Response::from_parts(parts, body)),
        Err(failure) => failed(stream, failure.into()),
    }
}

fn split_body(
    request: Request<Incoming>,
    stream: &mut ActiveStream,
) -> (Request<RequestBody>, Option<Rc<super::body::RequestProgress>>) {
    let (parts, mut incoming) = request.into_parts();
    if stream.hcm.proxy_100_continue {
        stream.interim = incoming.leave_to_upstream().map(Box::new);
    }
    let with_trailers = parts.version == http::Version::HTTP_2 || stream.hcm.http1.enable_trailers;
    let (body, progress) = RequestBody::new(incoming, parts.version, with_trailers, stream.info.start);
    (Request::from_parts(parts, body), progress)
}

fn path_and_query(request: &Request<RequestBody>) -> &str {
    request.uri().path_and_query().map_or("", |p| p.as_str())
}

/// What came of the filters.
enum Filtered {
    Done,
    Reply(Box<FilterReply>),
    /// There may be a route now.
    ChooseAgain,
}

/// Runs the filter chain to its end, or until a filter replies.
///
/// # Errors
/// A filter waited for longer than the connection manager allows.
async fn run_filters(
    hcm: &HttpConnectionManager,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) -> Result<Filtered, Failure> {
    let mut progress = hcm.filters.on_request(0, stream, request);
    loop {
        match progress {
            Progress::Done => return Ok(Filtered::Done),
            Progress::Reply(reply) => return Ok(Filtered::Reply(reply)),
            Progress::Wait(wait, next) => {
                let deadlines = Deadlines {
                    request: hcm.limits.request_timeout,
                    response: None,
                    idle: hcm.limits.stream_idle_timeout,
                    max_duration: hcm.limits.max_stream_duration,
                };
                let mut watch = DeadlineWatch::new(stream, deadlines, stream.info.start);
                // On the heap, so that requests that wait for nothing do not carry its state.
                let waited = Box::pin(watch.run(wait.done(stream, request))).await?;
                stream.forwarded = Instant::now();
                match waited {
                    Waited::GoesOn => {}
                    Waited::Reply(reply) => return Ok(Filtered::Reply(reply)),
                    Waited::ChooseAgain => return Ok(Filtered::ChooseAgain),
                }
                progress = hcm.filters.on_request(next, stream, request);
            }
        }
    }
}

enum Chosen {
    /// A route, or none.
    Route,
    RequiresTls,
}

/// Chooses the route that the stream takes.
fn choose_route(
    hcm: &HttpConnectionManager,
    stream: &mut ActiveStream,
    request: &Request<RequestBody>,
    authority: &str,
    scheme: &str,
) -> Chosen {
    // Only a `connect_matcher` takes CONNECT: an empty prefix or a regex must not.
    let path = Some(request.uri().path()).filter(|_| request.method() != Method::CONNECT);
    let peer = stream.connection.peer_certificate();
    let request_view = RequestView { peer, ..view(request, authority, scheme) };
    let chosen = with_routes(hcm, |routes| {
        match find_route(routes, path, &request_view) {
            Found::RequiresTls => return Chosen::RequiresTls,
            Found::NoHost => stream.lack_host(routes, authority),
            Found::NoRoute => {}
            Found::Route(route) => {
                stream.take(route, &request_view);
                stream.keep_head_for_route(request);
            }
        }
        Chosen::Route
    });
    chosen.unwrap_or(Chosen::Route)
}

/// Does this with the routes that are there now.
pub(super) fn with_routes<T>(
    hcm: &HttpConnectionManager,
    work: impl FnOnce(&RouteConfiguration) -> T,
) -> Option<T> {
    match &hcm.routes {
        RouteSource::Inline(routes) => Some(work(routes)),
        RouteSource::Rds(live) => live.peek().as_deref().map(work),
    }
}

/// What there is for a request.
pub(super) enum Found<'r> {
    Route(&'r Arc<Route>),
    RequiresTls,
    NoRoute,
    NoHost,
}

/// Finds the route of a request; `path` is without query, and CONNECT has none.
pub(super) fn find_route<'r>(
    routes: &'r RouteConfiguration,
    path: Option<&str>,
    request: &RequestView<'_>,
) -> Found<'r> {
    let Some(virtual_host) = routes.virtual_host_of(request) else { return Found::NoHost };
    let is_internal = || request.headers.contains_key(INTERNAL);
    let requires_tls = match virtual_host.require_tls {
        RequireTls::None => false,
        RequireTls::ExternalOnly => !is_internal(),
        RequireTls::All => true,
    };
    if requires_tls && request.scheme != "https" {
        return Found::RequiresTls;
    }
    let route = match path {
        Some(path) => virtual_host.route(&routes.matched_path(path), request),
        None => virtual_host.connect_route(request),
    };
    route.map_or(Found::NoRoute, Found::Route)
}

/// The request as matchers see it, without what its client has shown.
pub(crate) fn view<'r>(
    request: &'r Request<RequestBody>,
    authority: &'r str,
    scheme: &'r str,
) -> RequestView<'r> {
    RequestView {
        method: request.method().as_str(),
        path: path_and_query(request),
        authority,
        scheme,
        headers: request.headers(),
        random_ppm: fastrand::u32(..1_000_000),
        peer: PeerCertificate::default(),
    }
}

/// Forwards while the deadlines allow it.
async fn forward_in_time(
    stream: &mut ActiveStream,
    route: &Route,
    action: &RouteAction,
    request: Request<RequestBody>,
    authority: Authority,
) -> Result<Response<UpstreamBody>, StreamError> {
    let Some(mut watch) = stream.watch.take() else {
        return router::forward(stream, route, action, request, authority).await;
    };
    let outcome = watch.run(router::forward(stream, route, action, request, authority)).await;
    if let Some(at) = stream.upstream_until {
        watch.end_upstream_at(at);
    }
    stream.watch = Some(watch);
    outcome.unwrap_or_else(|failure| Err(failure.into()))
}
