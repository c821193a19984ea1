//! `proxy_status_config`: the header `Proxy-Status` (RFC 9209) of a response says why the request failed. It is made of the stream's
//! flags when the response goes downstream, on the worker, where a connection manager asks for it.

use http::{HeaderName, HeaderValue, StatusCode};

use super::repeated;
use crate::formatter;
use crate::stream_info::{ResponseFlags, StreamInfo};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// `HttpConnectionManager.ProxyStatusConfig`.
#[derive(Debug)]
pub struct ProxyStatus {
    /// `literal_proxy_name`, the node's id with `use_node_id`, else `server_name`.
    pub name: Box<str>,
    /// `details` is there, without `remove_details`.
    pub details: bool,
    /// It has `%RESPONSE_FLAGS%`, without `remove_response_flags`.
    pub flags: bool,
    /// `set_recommended_response_code`: the status is the one that the RFC recommends.
    pub recommended_status: bool,
}

/// A type of error of RFC 9209 section 2.3, and its status.
type ProxyError = (&'static str, Option<StatusCode>);

const DESTINATION_UNAVAILABLE: ProxyError =
    ("destination_unavailable", Some(StatusCode::SERVICE_UNAVAILABLE));
const RESPONSE_TIMEOUT: ProxyError = ("http_response_timeout", Some(StatusCode::GATEWAY_TIMEOUT));
const CONNECTION_TIMEOUT: ProxyError = ("connection_timeout", Some(StatusCode::GATEWAY_TIMEOUT));
const CONNECTION_TERMINATED: ProxyError = ("connection_terminated", Some(StatusCode::BAD_GATEWAY));
const CONNECTION_REFUSED: ProxyError = ("connection_refused", Some(StatusCode::BAD_GATEWAY));
const LIMIT_REACHED: ProxyError = ("connection_limit_reached", Some(StatusCode::SERVICE_UNAVAILABLE));
const DESTINATION_NOT_FOUND: ProxyError = ("destination_not_found", Some(StatusCode::INTERNAL_SERVER_ERROR));
const REQUEST_ERROR: ProxyError = ("http_request_error", None);
const CONFIGURATION_ERROR: ProxyError =
    ("proxy_configuration_error", Some(StatusCode::INTERNAL_SERVER_ERROR));
const PROTOCOL_ERROR: ProxyError = ("http_protocol_error", Some(StatusCode::BAD_GATEWAY));

/// What flags stand for. The first one counts, whatever came first.
const ERRORS: [(ResponseFlags, ProxyError); 16] = [
    (ResponseFlags::FAILED_LOCAL_HEALTH_CHECK, DESTINATION_UNAVAILABLE),
    (ResponseFlags::NO_HEALTHY_UPSTREAM, DESTINATION_UNAVAILABLE),
    (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, RESPONSE_TIMEOUT),
    (ResponseFlags::LOCAL_RESET, CONNECTION_TIMEOUT),
    (ResponseFlags::UPSTREAM_REMOTE_RESET, CONNECTION_TERMINATED),
    (ResponseFlags::UPSTREAM_CONNECTION_FAILURE, CONNECTION_REFUSED),
    (ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, CONNECTION_TERMINATED),
    (ResponseFlags::UPSTREAM_OVERFLOW, LIMIT_REACHED),
    (ResponseFlags::NO_ROUTE_FOUND, DESTINATION_NOT_FOUND),
    (ResponseFlags::RATE_LIMITED, LIMIT_REACHED),
    (ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED, DESTINATION_UNAVAILABLE),
    (ResponseFlags::STREAM_IDLE_TIMEOUT, RESPONSE_TIMEOUT),
    (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, REQUEST_ERROR),
    (ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED, RESPONSE_TIMEOUT),
    (ResponseFlags::NO_FILTER_CONFIG_FOUND, CONFIGURATION_ERROR),
    (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, PROTOCOL_ERROR),
];

/// Envoy looks for it last of all.
const NO_CLUSTER: (ResponseFlags, ProxyError) = (ResponseFlags::NO_CLUSTER_FOUND, DESTINATION_UNAVAILABLE);

impl ProxyStatus {
    /// Says behind what proxies before this one have said why the stream failed, if it did.
    pub(crate) fn tell(&self, info: &StreamInfo, response: &mut http::Response<()>) {
        if info.flags.is_empty() {
            return;
        }
        let known = ERRORS.iter().chain([&NO_CLUSTER]).find(|(flag, _)| info.flags.contains(*flag));
        let Some((_, (error, recommended))) = known else { return };
        if let Ok(value) = HeaderValue::from_maybe_shared(self.value(info, error)) {
            repeated::append_value(response.headers_mut(), &PROXY_STATUS, b", ", value);
        }
        if let Some(status) = recommended
            && self.recommended_status
        {
            *response.status_mut() = *status;
        }
    }

    fn value(&self, info: &StreamInfo, error: &str) -> bytes::Bytes {
        let mut value = format!("{}; error={error}", self.name).into_bytes();
        if self.details && !info.response_code_details.is_empty() {
            let mut details = Vec::new();
            formatter::append_response_code_details(info, &mut details);
            if self.flags {
                details.extend_from_slice(format!("; {}", info.flags).as_bytes());
            }
            value.extend_from_slice(b"; details=\"");
            for byte in details {
                if byte == b'"' {
                    value.push(b'\\');
                }
                value.push(byte);
            }
            value.push(b'"');
        }
        value.into()
    }
}
