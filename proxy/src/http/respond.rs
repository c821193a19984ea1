//! The way back: what goes downstream, whether the upstream or the proxy itself has made it.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, SERVER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;

use super::active_stream::ActiveStream;
use super::body::ResponseBody;
use super::codec::{Refusal, Version};
use super::downstream::DownstreamConnection;
use super::error::{Failure, StreamError};
use super::filters::{Content, FilterReply, ResponseHead};
use super::headers::{
    self, ATTEMPT_COUNT, GRPC_STATUS, LOCAL_OVERLOADED, UPSTREAM_SERVICE_TIME, X_REQUEST_ID,
};
use super::local_reply::LocalReply;
use super::router::UpstreamBody;
use super::{HttpConnectionManager, ServerHeader, local_reply, origin, repeated, upgrade};
use crate::cluster::outlier::Outcome;
use crate::route::DirectResponse;
use crate::stream_info::{
    AccessLogType, ResponseFlags, StreamInfo, close_reasons, details, http_status_of_grpc,
};

/// The upstream's response goes downstream.
pub(super) fn respond(
    mut stream: Box<ActiveStream>,
    response: Response<UpstreamBody>,
) -> Response<ResponseBody> {
    let (parts, body) = response.into_parts();
    let head = from_upstream(&mut stream, parts);
    let content = if body.is_end_stream() { Content::Nothing } else { Content::Streamed };
    send_downstream(stream, head, content, |stream| ResponseBody::upstream(body, stream))
}

/// The same for a response that filters wanted whole.
pub(super) fn respond_whole(
    mut stream: Box<ActiveStream>,
    response: Response<Bytes>,
) -> Response<ResponseBody> {
    let (parts, body) = response.into_parts();
    let head = from_upstream(&mut stream, parts);
    send_downstream(stream, head, Content::Whole(body.clone()), |stream| ResponseBody::whole(body, stream))
}

fn from_upstream(stream: &mut ActiveStream, mut parts: http::response::Parts) -> Response<()> {
    let answered = answer(stream, parts.status, &parts.headers);
    stream.upstream_outcome(parts.status.as_u16(), answered);
    stream.info.response_code_details = details::VIA_UPSTREAM;
    stream.info.response_code = parts.status.as_u16();
    if let Some(keep_alive) = headers::remove_hop_by_hop(&mut parts.headers)
        && let (Some(host), Ok(keep_alive)) = (&stream.info.upstream_host, keep_alive.to_str())
    {
        host.idle_limit.told(keep_alive);
    }
    repeated::join_in_response(&mut parts.headers);
    add_own(stream, &mut parts.headers);
    Response::from_parts(parts, ())
}

/// What outlier detection hears of a response: to a gRPC client a gRPC status counts for more than the 200 that carries it.
pub(super) fn answer(stream: &ActiveStream, status: StatusCode, headers: &HeaderMap) -> Outcome {
    let value = if stream.grpc { headers.get(GRPC_STATUS) } else { None };
    let grpc = value.and_then(|value| value.to_str().ok()?.parse().ok());
    let code = grpc.map_or(status.as_u16(), http_status_of_grpc);
    let errors = stream.info.upstream_cluster.as_ref().and_then(|cluster| cluster.connection.errors.as_ref());
    // As in Envoy an error that is no 5xx stands for 500, and a 5xx that is no error for 200.
    Outcome::Answered(match errors.map(|errors| errors.matches(status, headers)) {
        Some(true) if code < 500 => 500,
        Some(false) if code >= 500 => 200,
        _ => code,
    })
}

/// The upstream agrees to another protocol: so does the head of this response, and the stream goes on as bytes.
pub(super) fn switch(mut stream: Box<ActiveStream>, response: Response<()>) -> Response<ResponseBody> {
    let answered = answer(&stream, response.status(), response.headers());
    stream.upstream_outcome(response.status().as_u16(), answered);
    stream.info.response_code_details = details::VIA_UPSTREAM;
    let version = stream.connection.version;
    let (mut parts, ()) = response.into_parts();
    let kept = stream.upgrade.as_ref().map(|upgrade| upgrade.clean_head(&mut parts.headers));
    add_own(&stream, &mut parts.headers);
    let mut response =
        send_downstream(stream, Response::from_parts(parts, ()), Content::Nothing, upgrade::hand_over);
    if let Some(kept) = kept {
        upgrade::finish_head(&mut response, version, kept);
    }
    response
}

/// What the route adds to an upstream's response.
fn add_own(stream: &ActiveStream, headers: &mut HeaderMap) {
    // As in Envoy there is no such time while the request is still on its way.
    if !stream.hcm.suppress_envoy_headers
        && stream.upgrade.is_none()
        && let Some(sent) = stream.request_sent_after()
    {
        let answered = stream.info.first_upstream_byte.unwrap_or_default();
        let service_ms = answered.saturating_sub(sent).as_millis() as u64;
        headers.insert(UPSTREAM_SERVICE_TIME, HeaderValue::from(service_ms));
    }
    stream.change_response_headers(headers);
}

/// A failed attempt becomes a local reply.
pub(super) fn failed(mut stream: Box<ActiveStream>, error: StreamError) -> Response<ResponseBody> {
    let stats = stream.hcm.stats.clone();
    match error.kind {
        Failure::NoCluster(_) => stats.no_cluster.inc(),
        Failure::NoHealthyHost | Failure::Overflow => {
            if let Some(cluster) = &stream.info.upstream_cluster {
                let status = error.kind.status().as_u16();
                cluster.stats.response(status);
                stream.counted.each(|requests| requests.response(status));
            }
        }
        Failure::Timeout => {
            if let Some(cluster) = &stream.info.upstream_cluster {
                cluster.stats.upstream_rq_timeout.inc();
                stream.counted.each(|requests| requests.timeout.inc());
            }
        }
        kind => kind.count_late(&stats),
    }
    stream.info.flags.insert(error.kind.flag());
    let status = stream.status_of(error.kind);
    if error.kind.blames_upstream() {
        stream.upstream_outcome(status.as_u16(), Outcome::Failed(status.as_u16()));
    }
    let reply = local_reply::for_error(&error, status);
    stream.info.response_code_details = error.kind.details();
    // The rest of the request would be taken for the next one.
    let is_cut =
        matches!(error.kind, Failure::DownstreamProtocol | Failure::GrpcWebLength | Failure::GrpcWebData);
    let is_late = status == StatusCode::REQUEST_TIMEOUT;
    let closes = (is_cut || is_late) && stream.connection.version == Version::Http1;
    let mut response = send_local(stream, reply, true);
    if closes {
        if is_late {
            // As Envoy does: it gives the request up.
            stats.downstream_rq_rx_reset.inc();
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

pub(super) fn local(
    mut stream: Box<ActiveStream>,
    status: StatusCode,
    body: Bytes,
    why: &'static str,
) -> Response<ResponseBody> {
    stream.info.response_code_details = why;
    send_local(stream, local_reply::reply(status, body), true)
}

/// The overload manager refuses the request; as in Envoy no filter sees it.
pub(super) fn overloaded(mut stream: Box<ActiveStream>) -> Response<ResponseBody> {
    stream.hcm.stats.downstream_rq_overload_close.inc();
    stream.info.response_code_details = details::OVERLOAD;
    stream.skips_filters = true;
    let body = Bytes::from_static(b"envoy overloaded");
    let mut reply = local_reply::reply(StatusCode::SERVICE_UNAVAILABLE, body);
    if stream.hcm.append_local_overload {
        reply.response.headers_mut().insert(LOCAL_OVERLOADED, HeaderValue::from_static("true"));
    }
    send_local(stream, reply, false)
}

/// A request that must not go on is answered, and its connection ends.
pub(super) fn refused(mut stream: Box<ActiveStream>, refusal: Refusal) -> Response<ResponseBody> {
    if refusal.protocol_error {
        stream.hcm.stats.downstream_cx_protocol_error.inc();
        stream.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        if stream.connection.version == Version::Http1 {
            stream.hcm.stats.downstream_rq_rx_reset.inc();
            stream.connection.handle.record.has_protocol_error.set(true);
            // To the log it never was a request.
            stream.info.request = None;
            stream.info.protocol = Some(http::Version::HTTP_11);
        }
    }
    // A target that is no path is only not found, as in Envoy.
    if refusal.status != StatusCode::NOT_FOUND {
        stream.connection.handle.drain();
    }
    let words = refusal.status.canonical_reason().filter(|_| refusal.protocol_error).unwrap_or_default();
    local(stream, refusal.status, Bytes::from_static(words.as_bytes()), refusal.details)
}

pub(super) fn redirected(
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

/// The client is to come again with this path.
pub(super) fn to_normalised(stream: Box<ActiveStream>, path: &str) -> Response<ResponseBody> {
    let location = HeaderValue::from_str(path).ok();
    let why = details::PATH_NORMALIZATION_FAILED;
    let mut response = local(stream, StatusCode::TEMPORARY_REDIRECT, Bytes::new(), why);
    response.headers_mut().extend(location.map(|location| (LOCATION, location)));
    response
}

/// `direct_response`.
pub(super) fn direct(mut stream: Box<ActiveStream>, direct: &DirectResponse) -> Response<ResponseBody> {
    stream.info.response_code_details = details::DIRECT_RESPONSE;
    let mut reply = local_reply::reply(direct.status, direct.body.clone());
    reply.response.headers_mut().extend(direct.headers.clone());
    send_local(stream, reply, true)
}

/// A filter has answered.
pub(super) fn filtered(mut stream: Box<ActiveStream>, filter: FilterReply) -> Response<ResponseBody> {
    let FilterReply { status, grpc_status, body, headers, takes_route_headers, flag, details } = filter;
    stream.note_cluster();
    stream.info.flags.insert(flag);
    stream.info.response_code_details = details;
    let mut reply = LocalReply { grpc_status, ..local_reply::reply(status, body) };
    reply.response.headers_mut().extend(headers);
    // What is too large is not read to its end.
    let closes = status == StatusCode::PAYLOAD_TOO_LARGE && stream.connection.version == Version::Http1;
    let mut response = send_local(stream, reply, takes_route_headers);
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn send_local(
    mut stream: Box<ActiveStream>,
    reply: LocalReply,
    takes_route_headers: bool,
) -> Response<ResponseBody> {
    let (mut parts, mut body) = reply.response.into_parts();
    stream.info.response_code = parts.status.as_u16();
    if takes_route_headers {
        // Its own content type is none of the route's business, as in Envoy, but for a route that sets one.
        let content_type = parts.headers.remove(CONTENT_TYPE);
        stream.change_response_headers(&mut parts.headers);
        if let Some(content_type) = content_type {
            parts.headers.entry(CONTENT_TYPE).or_insert(content_type);
        }
    }
    if let Some(replies) = &stream.hcm.local_replies {
        replies.rewrite(&mut stream.info, &mut parts, &mut body);
    }
    if stream.grpc {
        local_reply::as_grpc(&mut parts, &body, reply.grpc_status);
    }
    // HTTP/2 would send what HEAD must not have; its length stays in the headers.
    let body = if stream.head || stream.grpc { Bytes::new() } else { body };
    let content = if body.is_empty() { Content::Nothing } else { Content::Whole(body.clone()) };
    let response = Response::from_parts(parts, ());
    send_downstream(stream, response, content, |stream| ResponseBody::local(body, stream))
}

/// The one way out: what every response gets, and what logs keep of it.
fn send_downstream(
    mut stream: Box<ActiveStream>,
    mut response: Response<()>,
    content: Content,
    body: impl FnOnce(Box<ActiveStream>) -> ResponseBody,
) -> Response<ResponseBody> {
    let (connection, hcm) = (&stream.connection, &stream.hcm);
    *response.version_mut() = connection.version.into();
    stream.info.response_code = response.status().as_u16();
    stream.response_started = true;
    let status = response.status();
    let headers = response.headers_mut();
    let stages = match hcm.filters.is_empty() || stream.skips_filters {
        true => Vec::new(),
        false => hcm.filters.on_response(&stream, ResponseHead { status, headers, content }),
    };
    match hcm.server_header {
        ServerHeader::Overwrite => {
            headers.insert(SERVER, hcm.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| hcm.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if stream.route.as_ref().is_some_and(|route| route.attempt_count_in_response) {
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(stream.info.attempt_count.max(1)));
    }
    if let Some(id) = stream.request_id.take() {
        headers.insert(X_REQUEST_ID, id);
    }
    if let Some(via) = &hcm.via {
        origin::append_via(headers, via);
    }
    if let Some(proxy_status) = &hcm.proxy_status {
        proxy_status.tell(&stream.info, &mut response);
        stream.info.response_code = response.status().as_u16();
    }
    let headers = response.headers_mut();
    if connection.worker.shared.health_check_failed.load(Ordering::Relaxed) {
        connection.handle.drain();
    }
    if connection.is_last_response() {
        hcm.stats.downstream_cx_drain_close.inc();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if connection.version == Version::Http1
        && (stream.upgrade.as_ref().is_some_and(|upgrade| !upgrade.is_accepted()) || stream.is_early())
    {
        // What the client may have sent already, or sends still, is no request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    stream.note_grpc_status(headers);
    stream.capture_response(headers);
    if stream.hcm.log_on_tunnel && stream.is_switching() {
        stream.log_so_far(AccessLogType::DownstreamTunnelSuccessfullyEstablished);
    }
    let response = response.map(|()| body(stream));
    match stages.is_empty() {
        true => response,
        false => response.map(|body| body.through(stages)),
    }
}

/// The head of a request did not come in time: what the client is told, if it can be. Counted and logged like the answer to a request.
pub(super) fn late_head(connection: &Rc<DownstreamConnection>, failure: Failure) -> Response<Bytes> {
    failure.count_late(&connection.live.get().stats);
    connection.handle.record.version.set(Some(connection.version.into()));
    let status = StatusCode::REQUEST_TIMEOUT;
    let reply = local_reply::for_error(&failure.into(), status);
    without_request(connection, status, failure.flag(), failure.details(), reply)
}

/// The head of an HTTP/1 request cannot be read: what the client is told. Counted and logged like the answer to a request.
pub(super) fn bad_head(connection: &Rc<DownstreamConnection>, refusal: Refusal) -> Response<Bytes> {
    connection.stats.downstream_cx_protocol_error.inc();
    connection.handle.record.has_protocol_error.set(true);
    connection.handle.record.closes(close_reasons::CODEC_ERROR);
    let words = refusal.status.canonical_reason().unwrap_or_default();
    let reply = local_reply::reply(refusal.status, Bytes::from_static(words.as_bytes()));
    let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
    without_request(connection, refusal.status, flag, refusal.details, reply)
}

/// The answer to a request that never became one.
fn without_request(
    connection: &Rc<DownstreamConnection>,
    status: StatusCode,
    flag: ResponseFlags,
    why: &'static str,
    reply: LocalReply,
) -> Response<Bytes> {
    let hcm = connection.live.get();
    count_without_request(connection, &hcm);
    let mut info = StreamInfo::new(connection.info.clone(), Some(connection.version.into()));
    info.response_code = status.as_u16();
    info.flags.insert(flag);
    info.response_code_details = why;
    let (mut parts, mut body) = reply.response.into_parts();
    if let Some(replies) = &hcm.local_replies {
        replies.rewrite(&mut info, &mut parts, &mut body);
    }
    if hcm.server_header != ServerHeader::PassThrough {
        parts.headers.insert(SERVER, hcm.server_name.clone());
    }
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(via) = &hcm.via {
        origin::append_via(&mut parts.headers, via);
    }
    info.bytes_sent = body.len() as u64;
    hcm.stats.response(info.response_code);
    hcm.access_logs.log(&info, AccessLogType::DownstreamEnd, &connection.worker.logs);
    Response::from_parts(parts, body)
}

fn count_without_request(connection: &DownstreamConnection, hcm: &HttpConnectionManager) {
    hcm.stats.downstream_rq_total.inc();
    match connection.version {
        Version::Http1 => hcm.stats.downstream_rq_http1_total.inc(),
        Version::Http2 => hcm.stats.downstream_rq_http2_total.inc(),
    }
    // As in Envoy, which gives the request up.
    hcm.stats.downstream_rq_rx_reset.inc();
}

/// The client left in the middle of a head: logged like any other request, with what is known.
pub(super) fn log_incomplete(connection: &Rc<DownstreamConnection>) {
    let mut info = StreamInfo::new(connection.info.clone(), Some(http::Version::HTTP_11));
    info.response_code_details = details::DOWNSTREAM_REMOTE_DISCONNECT;
    info.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
    let hcm = connection.live.get();
    count_without_request(connection, &hcm);
    hcm.access_logs.log(&info, AccessLogType::DownstreamEnd, &connection.worker.logs);
}
