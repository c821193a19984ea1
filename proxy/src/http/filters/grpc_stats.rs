//! `envoy.filters.http.grpc_stats`: calls, their messages and outcomes, by cluster and method.
//!
//! The protocol Connect, which Envoy counts as well, is not told from other HTTP.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body as _, Frame};
use rustc_hash::FxHashMap;

use super::body::{FilteredRequest, RequestStage, ResponseStage};
use super::{Content, Decision, Kept, ResponseHead};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::headers::GRPC_STATUS;
use crate::route::is_grpc;
use crate::stats::{ClusterStats, GrpcMethod, GrpcStats};

/// `envoy.extensions.filters.http.grpc_stats.v3.FilterConfig`, compiled.
#[derive(Debug)]
pub struct GrpcCounting {
    /// Which methods have series of their own.
    pub methods: CountedMethods,
    /// `enable_upstream_stats`: how long the upstream took.
    pub upstream_stats: bool,
}

/// `per_method_stat_specifier`.
#[derive(Debug)]
pub enum CountedMethods {
    /// `individual_method_stats_allowlist`, by service and by method; all others share a series. Empty: `stats_for_all_methods: false`.
    Listed(FxHashMap<Box<str>, FxHashMap<Box<str>, GrpcMethod>>),
    /// `stats_for_all_methods`, up to a limit.
    All {
        /// `replace_dots_in_grpc_service_name`.
        replace_dots: bool,
    },
}

/// What the stream keeps for the response.
#[derive(Debug, Clone)]
pub(super) struct CountedCall {
    stats: Arc<GrpcStats<false>>,
    upstream_stats: bool,
}

pub(super) fn on_request(
    own: &GrpcCounting,
    at: usize,
    stream: &mut ActiveStream,
    request: &mut Request<RequestBody>,
) -> Decision {
    if !is_grpc(request.headers()) {
        return Decision::Continue;
    }
    let found = stream.route_cluster().and_then(|cluster| own.series(&cluster.stats, request.uri().path()));
    let Some(stats) = found else { return Decision::Continue };
    if !request.body().is_end_stream() {
        let count = RequestCount { stats: stats.clone(), messages: Messages::in_body(false) };
        FilteredRequest::wrap(request.body_mut(), RequestStage::Count(count));
    }
    let call = CountedCall { stats, upstream_stats: own.upstream_stats };
    stream.filter_state.get_or_insert_default().keep(at, Kept::CountedCall(call));
    Decision::Continue
}

pub(super) fn on_response(
    kept: Option<&Kept>,
    stream: &ActiveStream,
    head: &ResponseHead<'_>,
) -> Option<ResponseStage> {
    let Some(Kept::CountedCall(call)) = kept else { return None };
    call.outcome(head.headers);
    if matches!(head.content, Content::Nothing) {
        call.ended(stream);
        return None;
    }
    let is_grpc = head.status == StatusCode::OK && is_grpc(head.headers);
    Some(ResponseStage::Count(ResponseCount {
        call: call.clone(),
        messages: is_grpc.then(|| Messages::in_body(true)),
    }))
}

impl GrpcCounting {
    /// The series that such a request counts in; `None` when its path names no method.
    fn series(&self, cluster: &ClusterStats, path: &str) -> Option<Arc<GrpcStats<false>>> {
        let (service, method) = service_and_method(path)?;
        let label = cluster.label();
        Some(match &self.methods {
            CountedMethods::Listed(services) => {
                match services.get(service).and_then(|methods| methods.get(method)) {
                    Some(method) => cluster.grpc.of(label, method),
                    None => cluster.grpc.all(label),
                }
            }
            CountedMethods::All { replace_dots: true } if service.contains('.') => {
                // The one case in which a request makes text.
                cluster.grpc.named(label, &service.replace('.', "_"), method)
            }
            CountedMethods::All { .. } => cluster.grpc.named(label, service, method),
        })
    }
}

impl CountedCall {
    fn outcome(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get(GRPC_STATUS) {
            self.stats.charge(status.as_bytes());
        }
    }

    /// The response is here to its end: how long that took since the request's.
    fn ended(&self, stream: &ActiveStream) {
        if !self.upstream_stats || stream.info.upstream_host.is_none() {
            return;
        }
        let sent = match &stream.progress {
            Some(progress) => progress.complete.get(),
            None => Some(stream.forwarded),
        };
        if let Some(sent) = sent {
            self.stats.took(Instant::now().saturating_duration_since(sent));
        }
    }
}

/// Service and method of a path that has exactly these two parts.
pub(super) fn service_and_method(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(method), None) => Some((service, method)),
        _ => None,
    }
}

/// Counts the messages of a request.
#[derive(Debug)]
pub(super) struct RequestCount {
    stats: Arc<GrpcStats<false>>,
    messages: Messages,
}

impl RequestCount {
    pub(super) fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.stats.request_messages.inc_by(self.messages.begin_in(data));
        }
    }
}

/// Counts the messages of a response, and its outcome.
#[derive(Debug)]
pub(crate) struct ResponseCount {
    call: CountedCall,
    /// Of a response that is gRPC.
    messages: Option<Messages>,
}

impl ResponseCount {
    pub(super) fn see(&mut self, frame: &Frame<Bytes>, stream: &ActiveStream) {
        if let (Some(data), Some(messages)) = (frame.data_ref(), &mut self.messages) {
            self.call.stats.response_messages.inc_by(messages.begin_in(data));
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.call.outcome(trailers);
            self.call.ended(stream);
        }
    }
}

/// Finds the length-prefixed messages of a gRPC body: one byte of flags, four of length, then the message.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Bytes of the present prefix that came.
    prefix: u8,
    length: u32,
    /// Bytes of the present message that are still to come.
    left: u32,
    of_response: bool,
    /// The message that says how a response of Connect ended was seen; it is none, and none follow.
    over: bool,
}

/// The flag of that message.
const CONNECT_END: u8 = 0b10;

/// Bytes before a message.
pub(super) const PREFIX_BYTES: u8 = 5;

impl Messages {
    /// None has begun yet, in the body of a request or of a response.
    pub(super) fn in_body(of_response: bool) -> Self {
        Self { of_response, ..Self::default() }
    }

    /// The number of messages that begin in these bytes.
    pub(super) fn begin_in(&mut self, data: &Bytes) -> u64 {
        let mut data = data.as_ref();
        let mut begun = 0;
        while !data.is_empty() && !self.over {
            if self.left > 0 {
                let skipped = data.len().min(self.left as usize);
                data.advance(skipped);
                self.left -= skipped as u32;
                continue;
            }
            let byte = data.get_u8();
            match self.prefix {
                0 if self.of_response && byte & CONNECT_END != 0 => self.over = true,
                0 => begun += 1,
                _ => self.length = self.length << 8 | u32::from(byte),
            }
            self.prefix += 1;
            if self.prefix == PREFIX_BYTES {
                *self = Self { prefix: 0, length: 0, left: self.length, ..*self };
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let body = b"\0\0\0\0\x02hi\x01\0\0\0\0\0\0\0\x01\0".as_slice();
        let body = [body, &[b'x'; 256]].concat();
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let counted: u64 =
                body.chunks(size).map(|part| messages.begin_in(&Bytes::copy_from_slice(part))).sum();
            assert_eq!(counted, 3, "in parts of {size}");
        }
        assert_eq!(Messages::default().begin_in(&Bytes::from_static(b"\0\0\0\0\0\0")), 2);
    }

    #[test]
    fn a_path_names_a_method_or_none() {
        assert_eq!(service_and_method("/pkg.Service/Method"), Some(("pkg.Service", "Method")));
        assert_eq!(service_and_method("//s//m/"), Some(("s", "m")));
        assert_eq!(service_and_method("/s"), None);
        assert_eq!(service_and_method("/a/s/m"), None);
    }
}
