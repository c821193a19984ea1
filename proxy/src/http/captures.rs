//! What a stream keeps for its access logs, and the lines that are written before its end. Nothing is kept that no log prints.

use std::time::Instant;

use http::header::{DATE, HOST};
use http::{HeaderMap, Request};

use super::active_stream::ActiveStream;
use super::headers::GRPC_STATUS;
use super::pool::UpstreamConnection;
use crate::formatter::CapturePlan;
use crate::route::RequestView;
use crate::stream_info::{AccessLogType, CapturedRequest};

impl ActiveStream {
    /// Keeps what logs will print of the request.
    pub(crate) fn capture_request<B>(&mut self, request: &Request<B>) {
        let (logs, scheme) = (&self.hcm.access_logs, self.connection.scheme);
        if !logs.wants_request() {
            return;
        }
        let headers = request.headers();
        let path = request.uri().path_and_query();
        let authority = headers.get(HOST).cloned();
        let matched = match logs.matchers.is_empty() {
            true => 0,
            false => logs.matched(&RequestView {
                method: request.method().as_str(),
                path: path.map_or("", |p| p.as_str()),
                authority: authority.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
                scheme,
                headers,
                random_ppm: 0,
                peer: Default::default(),
            }),
        };
        if let Some(details) = &mut self.info.log_details {
            let line = request.method().as_str().len() + path.map_or(0, |p| p.as_str().len());
            // `host` is `:authority` to Envoy.
            let pseudo = ":method:path:scheme:authority".len() - "host".len() + scheme.len();
            details.request_header_bytes = (line + pseudo) as u64 + header_bytes(headers);
        }
        self.info.request = Some(CapturedRequest {
            method: request.method().clone(),
            path: path.cloned(),
            authority,
            scheme,
            headers: logs.captures.request.iter().map(|name| headers.get(name).cloned()).collect(),
            matched,
        });
    }

    /// Filters or the route have changed the request, of which something was kept before.
    pub(crate) fn recapture_request<B>(&mut self, request: &Request<B>) {
        let hcm = &self.hcm;
        let changed = !hcm.filters.is_empty()
            || hcm.access_logs.captures.details
            || self.asks_router
            || self.route.as_ref().is_some_and(|route| route.changes_request());
        if changed && self.info.request.is_some() {
            self.capture_request(request);
        }
    }

    /// Keeps what logs will print of the response.
    pub(super) fn capture_response(&mut self, headers: &HeaderMap) {
        let logs = &self.hcm.access_logs;
        if logs.logs.is_empty() {
            return;
        }
        let CapturePlan { response, .. } = &logs.captures;
        self.info.response_headers = response.iter().map(|name| headers.get(name).cloned()).collect();
        if let Some(details) = &mut self.info.log_details {
            details.response_header_bytes = header_bytes(headers) + ":status200".len() as u64;
            if !headers.contains_key(DATE) {
                // The engine adds it.
                details.response_header_bytes += "dateThu, 01 Jan 1970 00:00:00 GMT".len() as u64;
            }
            details.downstream_tx_begin = Some(Instant::now());
        }
    }

    /// Keeps what logs will print of the response's trailers.
    pub(super) fn capture_trailers(&mut self, trailers: &HeaderMap) {
        self.note_grpc_status(trailers);
        let Some(details) = &mut self.info.log_details else { return };
        let names = &self.hcm.access_logs.captures.trailers;
        details.trailers = names.iter().map(|name| trailers.get(name).cloned()).collect();
        details.trailer_bytes = header_bytes(trailers);
    }

    /// What a gRPC call came to, where these headers or trailers say it.
    pub(super) fn note_grpc_status(&mut self, headers: &HeaderMap) {
        const LAST: u8 = 16;
        const UNKNOWN: u8 = 2;
        if self.grpc
            && let Some(status) = headers.get(GRPC_STATUS)
        {
            let number = status.to_str().ok().and_then(|status| status.parse().ok());
            self.info.grpc_status = Some(number.filter(|number| *number <= LAST).unwrap_or(UNKNOWN));
        }
    }

    /// The upstream's body begins.
    pub(super) fn note_body(&mut self) {
        if let Some(details) = &mut self.info.log_details {
            details.upstream_rx_body_begin.get_or_insert_with(Instant::now);
        }
    }

    /// The request goes out on this connection now.
    pub(super) fn note_connection(&mut self, connection: &UpstreamConnection) {
        let Some(details) = &mut self.info.log_details else { return };
        let now = Instant::now();
        details.connect = Some(connection.times);
        details.connections_attempted.push(connection.id);
        // A request that moves to another connection of the host is no other attempt.
        if details.hosts_attempted.len() < self.info.attempt_count as usize {
            details.hosts_attempted.extend(self.info.upstream_host.clone());
        }
        details.upstream_tx_begin = Some(now);
        details.pool_ready.get_or_insert(now - self.forwarded);
    }

    /// Writes the lines of this kind, with what is known now.
    pub(super) fn log(&mut self, log_type: AccessLogType) {
        if let (Some(details), Some(route)) = (&mut self.info.log_details, &self.route) {
            details.route_metadata.clone_from(&route.metadata);
            details.virtual_host_metadata.clone_from(&route.virtual_host_metadata);
        }
        self.hcm.access_logs.log(&self.info, log_type, &self.connection.worker.logs);
    }

    /// The same for a stream that goes on.
    pub(super) fn log_so_far(&mut self, log_type: AccessLogType) {
        self.info.duration = self.info.start.elapsed();
        self.log(log_type);
    }
}

/// Names and values.
fn header_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}
