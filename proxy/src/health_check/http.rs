//! `HttpHealthCheck`: a request, and a response with a status that is expected.

use std::ops::Range;

use http::header::{CONNECTION, HOST};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::connection::{HttpConnection, RequestBody, whole};
use super::decide::Failure;
use super::probe::{Context, Outcome};
use super::{HttpCheck, Version};
use crate::cluster::HealthFlag;

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const FAILS_AT_ONCE: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// The connection of the check before, while it lasts.
#[derive(Debug, Default)]
pub(super) struct HttpProbe(Option<HttpConnection>);

impl HttpProbe {
    pub(super) fn close(&mut self) {
        self.0 = None;
    }

    pub(super) async fn check(&mut self, context: &Context, check: &HttpCheck) -> Outcome {
        let Some(request) = request(context, check) else { return Outcome::NO_ANSWER };
        if self.0.as_ref().is_none_or(HttpConnection::is_closed) {
            self.0 = HttpConnection::open(context, check.version).await;
        }
        let Some(connection) = &mut self.0 else { return Outcome::NO_ANSWER };
        let answer = async {
            let (head, body) = connection.send(request).await.ok()?.into_parts();
            Some((head, read(body, check).await?))
        };
        let answer = answer.await;
        if !context.check().reuses_connection || answer.as_ref().is_none_or(|(head, _)| closes(head)) {
            self.close();
        }
        match answer {
            Some((head, body)) => judge(context, check, &head, &body),
            None => Outcome::NO_ANSWER,
        }
    }
}

/// `None`: the name that the host is asked by cannot be one.
fn request(context: &Context, check: &HttpCheck) -> Option<Request<RequestBody>> {
    let name = context.name(&check.host);
    let mut request = Request::new(whole(check.send.bytes()));
    match check.version {
        Version::Http1 => {
            *request.uri_mut() = Uri::from(check.path.clone());
            request.headers_mut().insert(HOST, HeaderValue::from_str(name).ok()?);
        }
        Version::Http2 => *request.uri_mut() = context.uri(name, &check.path)?,
    }
    request.method_mut().clone_from(&check.method);
    context.complete(request.headers_mut(), &check.headers, (&check.method, &check.path, name));
    Some(request)
}

/// Reads the response to its end, and keeps what is looked at of it; `None`: it has no end.
async fn read(mut body: Incoming, check: &HttpCheck) -> Option<Vec<u8>> {
    let limit = match (check.receive.is_empty(), check.response_buffer_bytes) {
        (true, _) => 0,
        (false, 0) => usize::MAX,
        (false, limit) => limit,
    };
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            kept.extend_from_slice(&data[..data.len().min(limit - kept.len())]);
        }
    }
    Some(kept)
}

fn closes(head: &Parts) -> bool {
    let values = head.headers.get_all(CONNECTION);
    values.iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

fn judge(context: &Context, check: &HttpCheck, head: &Parts, body: &[u8]) -> Outcome {
    let status = head.status.as_u16();
    let failed = |retriable| Outcome::Failed(Failure::Active { status, retriable });
    let is_in = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status));
    let is_expected = is_in(&check.expected);
    let is_received = check.receive.is_in(body);
    if !(is_received && is_expected) {
        if head.headers.contains_key(FAILS_AT_ONCE) {
            context.host.active_health().set(HealthFlag::Excluded, true);
        }
        return failed(is_received && is_in(&check.retriable));
    }
    if let Some(matcher) = &check.service_name {
        context.cluster.stats.health_check.counted().verify_cluster.inc();
        if !matcher.matches(checked_cluster(&head.headers)) {
            return failed(false);
        }
    }
    Outcome::Passed { degraded: head.headers.contains_key(DEGRADED) }
}

fn checked_cluster(headers: &HeaderMap) -> &str {
    headers.get(CHECKED_CLUSTER).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
