//! One downstream HTTP connection, and the request pipeline: read `serve_request` top to bottom.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, LOCATION, SERVER};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::active_stream::{ActiveStream, Deadlines};
use super::body::{Aborted, RequestBody, ResponseBody};
use super::codec::{self, Incoming, Refusal, ServeError, Version};
use super::downstream::{CountedConnection, DownstreamConnection};
use super::error::{Failure, StreamError};
use super::headers::{self, UPSTREAM_SERVICE_TIME, X_REQUEST_ID};
use super::mesh_metrics::MeshSeries;
use super::upgrade::{self, Upgrade};
use super::{HttpConnectionManager, RouteSource, ServerHeader, local_reply, redirect, router};
use crate::net::Stream;
use crate::route::{Action, RequestView, RequireTls, Route, RouteConfiguration};
use crate::stream_info::{ConnectionInfo, ResponseFlags, StreamInfo, details};
use crate::worker::{ConnectionHandle, ConnectionLimits, Worker};

/// Serves a connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    hcm: Arc<HttpConnectionManager>,
    mut stream: Stream,
    info: Arc<ConnectionInfo>,
    handle: Rc<ConnectionHandle>,
) {
    let opened = Instant::now();
    handle.limit(ConnectionLimits {
        idle_timeout: hcm.limits.idle_timeout,
        max_duration: hcm.limits.max_connection_duration,
        // A stream cannot see its own timeout while the engine does not ask it for more, as the client takes nothing.
        stall_timeout: hcm.limits.stream_idle_timeout,
        stats: hcm.stats.clone(),
    });
    let detected = tokio::select! {
        detected = codec::detect(hcm.codec, info.tls.as_ref(), &mut stream) => detected,
        () = handle.closing() => return,
    };
    let Ok((version, read_ahead)) = detected else { return };
    let _counted = CountedConnection::new(&hcm, version, info.tls.is_some(), &handle, opened);
    let connection = Rc::new(DownstreamConnection {
        scheme: if info.tls.is_some() { "https" } else { "http" },
        worker,
        hcm: hcm.clone(),
        info,
        handle: handle.clone(),
        version,
        mesh: MeshSeries::default(),
        authority: RefCell::new(None),
        requests: Cell::new(0),
        exchange: RefCell::new(None),
        framing: Rc::default(),
    });
    let requests = |request| serve_request(connection.clone(), request);
    let ended = match version {
        Version::Http1 => {
            codec::serve_http1(stream, read_ahead, &hcm, &handle, &connection.framing, requests).await
        }
        Version::Http2 => {
            codec::serve_http2(stream, read_ahead, &hcm, &handle, requests).await.map(|()| None)
        }
    };
    match ended {
        Ok(None) => {}
        Ok(Some(downstream)) => {
            let exchange = connection.exchange.take();
            if let Some(exchange) = exchange {
                tokio::select! {
                    () = exchange.run(downstream) => {}
                    () = handle.killed() => {}
                }
            }
        }
        Err(ServeError::Protocol { status }) => {
            hcm.stats.downstream_cx_protocol_error.inc();
            let framing = &connection.framing;
            let why = match framing.refused() {
                Some(refusal) => refusal.details,
                None if status != 431 => details::HTTP1_CODEC_ERROR,
                None if framing.head_bytes() > hcm.limits.max_request_headers_bytes as usize => {
                    details::HEADERS_TOO_LARGE
                }
                None => details::TOO_MANY_HEADERS,
            };
            log_without_request(&connection, status, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, why);
        }
        Err(ServeError::Incomplete) => {
            let (flag, why) =
                (ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, details::DOWNSTREAM_REMOTE_DISCONNECT);
            log_without_request(&connection, 0, flag, why);
        }
        Err(ServeError::HeaderTimeout) => hcm.stats.downstream_rq_header_timeout.inc(),
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
    let mut stream = ActiveStream::begin(&connection, &request);
    let hcm = &connection.hcm;
    connection.count_request();

    // 1. What every request must have.
    let (mut request, progress) = split_body(request, &stream);
    stream.progress = progress;
    stream.upgrade = Upgrade::asked(&connection, &mut request);
    let authority = match connection.normalise(&mut request) {
        Ok(authority) => authority,
        Err(refusal) => {
            stream.capture_request(&request);
            return Ok(refused(stream, refusal));
        }
    };

    // 2. Headers of ours.
    let scheme = connection.mutate_headers(&mut request);
    stream.capture_request(&request);
    if hcm.always_set_request_id_in_response {
        stream.request_id = request.headers().get(X_REQUEST_ID).cloned();
    }

    // 3. Which route: pinned, whatever configuration does meanwhile.
    let routes = match &hcm.routes {
        RouteSource::Inline(routes) => Some(routes.clone()),
        RouteSource::Rds(live) => live.get(),
    };
    let path_and_query = request.uri().path_and_query().map_or("", |p| p.as_str());
    let found =
        routes.as_deref().and_then(|r| find_route(r, &request, path_and_query, authority.as_str(), scheme));
    let route = match found {
        Some(Found::Route(route)) => route,
        Some(Found::RequiresTls) => {
            let location = format!("https://{}{path_and_query}", authority.as_str());
            let location = HeaderValue::try_from(location).ok();
            return Ok(redirected(stream, StatusCode::MOVED_PERMANENTLY, location));
        }
        None => {
            hcm.stats.no_route.inc();
            if request.method() == Method::CONNECT {
                connection.handle.drain();
            }
            stream.info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
            return Ok(local(stream, StatusCode::NOT_FOUND, Bytes::new(), details::ROUTE_NOT_FOUND));
        }
    };
    stream.info.route_name.clone_from(&route.name);

    // 4. What it does.
    let action = match &route.action {
        Action::Route(action)
            if stream.upgrade.as_mut().is_some_and(|u| !u.is_allowed(hcm, action, &request)) =>
        {
            stream.info.upstream_cluster = action.clusters.pick(fastrand::u64(..)).get();
            let (status, details) = (StatusCode::FORBIDDEN, details::UPGRADE_FAILED);
            return Ok(refused(stream, Refusal { status, details, protocol_error: false }));
        }
        Action::Route(action) => action,
        Action::Redirect(to) => {
            hcm.stats.rq_redirect.inc();
            let location =
                redirect::location(to, &route.matcher.path, scheme, authority.as_str(), path_and_query);
            return Ok(redirected(stream, to.status, location));
        }
        Action::DirectResponse(direct) => {
            hcm.stats.rq_direct_response.inc();
            let mut response = local(stream, direct.status, direct.body.clone(), details::DIRECT_RESPONSE);
            response.headers_mut().extend(direct.headers.clone());
            return Ok(response);
        }
    };
    hcm.stats.rq_total.inc();
    stream.limit(Deadlines {
        request: hcm.limits.request_timeout,
        response: action.timeout,
        idle: action
            .idle_timeout
            .map_or(hcm.limits.stream_idle_timeout, |t| Some(t).filter(|t| !t.is_zero())),
        max_duration: hcm.limits.max_stream_duration,
    });
    match forward_in_time(&mut stream, action, request, &authority).await {
        Ok(response) if stream.is_switching() => Ok(switch(stream, response)),
        Ok(response) => Ok(respond(stream, response)),
        Err(StreamError { kind: Failure::Downstream, .. }) => Err(Aborted),
        Err(error) => Ok(failed(stream, error)),
    }
}

fn split_body(
    request: Request<Incoming>,
    stream: &ActiveStream,
) -> (Request<RequestBody>, Option<Rc<super::body::RequestProgress>>) {
    let (parts, incoming) = request.into_parts();
    let (body, progress) = RequestBody::new(incoming, stream.info.start);
    (Request::from_parts(parts, body), progress)
}

enum Found {
    Route(Arc<Route>),
    RequiresTls,
}

fn find_route(
    routes: &RouteConfiguration,
    request: &Request<RequestBody>,
    path_and_query: &str,
    authority: &str,
    scheme: &str,
) -> Option<Found> {
    // Only a `connect_matcher` takes CONNECT, and there is none: an empty prefix or a regex must not.
    if request.method() == Method::CONNECT {
        return None;
    }
    let virtual_host = routes.virtual_host(authority)?;
    if virtual_host.require_tls != RequireTls::None && scheme != "https" {
        return Some(Found::RequiresTls);
    }
    let view = RequestView {
        method: request.method().as_str(),
        path: path_and_query,
        authority,
        scheme,
        headers: request.headers(),
        random_ppm: fastrand::u32(..1_000_000),
    };
    virtual_host.route(request.uri().path(), &view).cloned().map(Found::Route)
}

/// Forwards while the deadlines allow it.
async fn forward_in_time(
    stream: &mut ActiveStream,
    action: &crate::route::RouteAction,
    request: Request<RequestBody>,
    authority: &Authority,
) -> Result<Response<Incoming>, StreamError> {
    let mut watch = stream.watch.take();
    let outcome = {
        let mut forward = pin!(router::forward(stream, action, request, authority));
        std::future::poll_fn(|cx| match forward.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => match watch.as_mut().and_then(|w| w.poll(cx)) {
                Some(failure) => Poll::Ready(Err(failure.into())),
                None => Poll::Pending,
            },
        })
        .await
    };
    stream.watch = watch;
    outcome
}

/// The upstream's response goes downstream.
fn respond(mut stream: Box<ActiveStream>, response: Response<Incoming>) -> Response<ResponseBody> {
    let status = response.status();
    stream.upstream_outcome(status.as_u16());
    stream.info.response_code_details = details::VIA_UPSTREAM;
    let (mut parts, incoming) = response.into_parts();
    headers::remove_hop_by_hop(&mut parts.headers);
    add_service_time(&stream, &mut parts.headers);
    let response = Response::from_parts(parts, ());
    send_downstream(stream, response, |stream| ResponseBody::upstream(incoming, stream))
}

/// The upstream agrees to another protocol: so does the head of this response, and the stream goes on as bytes.
fn switch(mut stream: Box<ActiveStream>, response: Response<Incoming>) -> Response<ResponseBody> {
    stream.upstream_outcome(response.status().as_u16());
    stream.info.response_code_details = details::VIA_UPSTREAM;
    let version = stream.connection.version;
    let (mut parts, _) = response.into_parts();
    let kept = stream.upgrade.as_ref().map(|upgrade| upgrade.clean_head(&mut parts.headers));
    add_service_time(&stream, &mut parts.headers);
    let mut response = send_downstream(stream, Response::from_parts(parts, ()), upgrade::hand_over);
    if let Some(kept) = kept {
        upgrade::finish_head(&mut response, version, kept);
    }
    response
}

fn add_service_time(stream: &ActiveStream, headers: &mut HeaderMap) {
    if !stream.connection.hcm.suppress_envoy_headers {
        let service_ms = stream.info.first_upstream_byte.map_or(0, |t| t.as_millis() as u64);
        headers.insert(UPSTREAM_SERVICE_TIME, HeaderValue::from(service_ms));
    }
}

/// A failed attempt becomes a local reply.
fn failed(mut stream: Box<ActiveStream>, error: StreamError) -> Response<ResponseBody> {
    let stats = stream.connection.hcm.stats.clone();
    match error.kind {
        Failure::NoCluster(_) => stats.no_cluster.inc(),
        Failure::StreamIdle => stats.downstream_rq_idle_timeout.inc(),
        Failure::MaxDuration => stats.downstream_rq_max_duration_reached.inc(),
        Failure::RequestTimeout => stats.downstream_rq_timeout.inc(),
        Failure::Timeout => {
            if let Some(cluster) = &stream.info.upstream_cluster {
                cluster.stats.upstream_rq_timeout.inc();
            }
        }
        _ => {}
    }
    stream.info.flags.insert(error.kind.flag());
    if error.kind.blames_upstream() {
        stream.upstream_outcome(error.kind.status().as_u16());
    }
    let reply = local_reply::for_error(&error, stream.grpc);
    stream.info.response_code_details = error.kind.details();
    // The rest of the request would be taken for the next one.
    let closes = error.kind == Failure::RequestTimeout && stream.connection.version == Version::Http1;
    let mut response = send_local(stream, reply);
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn local(
    mut stream: Box<ActiveStream>,
    status: StatusCode,
    body: Bytes,
    why: &'static str,
) -> Response<ResponseBody> {
    stream.info.response_code_details = why;
    let reply = local_reply::reply(status, body, stream.grpc);
    send_local(stream, reply)
}

/// A request that must not go on is answered, and its connection ends.
fn refused(mut stream: Box<ActiveStream>, refusal: Refusal) -> Response<ResponseBody> {
    if refusal.protocol_error {
        stream.connection.hcm.stats.downstream_cx_protocol_error.inc();
        stream.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        // To the log it never was a request.
        stream.info.request = None;
        stream.info.protocol = Some(http::Version::HTTP_11);
    }
    stream.connection.handle.drain();
    let words = refusal.status.canonical_reason().filter(|_| refusal.protocol_error).unwrap_or_default();
    local(stream, refusal.status, Bytes::from_static(words.as_bytes()), refusal.details)
}

fn redirected(
    stream: Box<ActiveStream>,
    status: StatusCode,
    to: Option<HeaderValue>,
) -> Response<ResponseBody> {
    let mut response = local(stream, status, Bytes::new(), details::DIRECT_RESPONSE);
    if let Some(location) = to {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn send_local(stream: Box<ActiveStream>, reply: Response<Bytes>) -> Response<ResponseBody> {
    let (parts, body) = reply.into_parts();
    // HTTP/2 would send it; its length stays in the headers.
    let body = if stream.head { Bytes::new() } else { body };
    send_downstream(stream, Response::from_parts(parts, ()), |stream| ResponseBody::local(body, stream))
}

/// The one way out: what every response gets, and what logs keep of it.
fn send_downstream(
    mut stream: Box<ActiveStream>,
    mut response: Response<()>,
    body: impl FnOnce(Box<ActiveStream>) -> ResponseBody,
) -> Response<ResponseBody> {
    let connection = stream.connection.clone();
    let hcm = &connection.hcm;
    *response.version_mut() = match connection.version {
        Version::Http1 => http::Version::HTTP_11,
        Version::Http2 => http::Version::HTTP_2,
    };
    stream.info.response_code = response.status().as_u16();
    stream.response_started = true;
    let headers = response.headers_mut();
    match hcm.server_header {
        ServerHeader::Overwrite => {
            headers.insert(SERVER, hcm.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| hcm.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if let Some(id) = stream.request_id.take() {
        headers.insert(X_REQUEST_ID, id);
    }
    if connection.is_last_response() {
        hcm.stats.downstream_cx_drain_close.inc();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !hcm.access_logs.is_empty() {
        stream.info.response_headers =
            hcm.captures.response.iter().map(|name| headers.get(name).cloned()).collect();
    }
    response.map(|()| body(stream))
}

/// A request that never became one is logged like any other, with what is known.
fn log_without_request(
    connection: &Rc<DownstreamConnection>,
    status: u16,
    flag: ResponseFlags,
    why: &'static str,
) {
    let mut info = StreamInfo::new(connection.info.clone(), Some(http::Version::HTTP_11));
    info.response_code = status;
    info.response_code_details = why;
    info.flags.insert(flag);
    for log in &connection.hcm.access_logs {
        log.log(&info, &connection.worker.logs);
    }
}
