//! One command operator, `%NAME(parameters):length%`, compiled.

use http::Version;

use super::append::{
    AddressPart, Appended, address, joined, milliseconds, number, socket_address, text, underscored,
};
use super::closing::Closing;
use super::coalesce::Coalesce;
use super::duration::{CommonDuration, upstream_request_end};
use super::grpc_status::GrpcStatus;
use super::header::{Header, Headers};
use super::metadata::{MetadataValue, Owner};
use super::target::{Path, Query, QueryParameter, ServerName};
use super::time::{Clock, TimeFormat};
use super::tls::Tls;
use super::wire::Wire;
use super::{CapturePlan, Values};
use crate::net::Address;
use crate::stream_info::{StreamInfo, new_uuid};

/// One compiled operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    EmitTime(TimeFormat),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    ResponseFlags,
    ResponseFlagsLong,
    BytesReceived,
    BytesSent,
    RequestHeaderBytes,
    ResponseHeaderBytes,
    TrailerBytes,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    PoolReadyDuration,
    CommonDuration(CommonDuration),
    /// `REQ`, `RESP`, `TRAILER`.
    Headers(Headers),
    Path(Path),
    QueryParameter(QueryParameter),
    Query(Query),
    GrpcStatus(GrpcStatus),
    Metadata(MetadataValue),
    UpstreamHost,
    UpstreamHostName(AddressPart),
    HostsAttempted(AddressPart),
    HostNamesAttempted(AddressPart),
    ConnectionsAttempted,
    /// By its `alt_stat_name`.
    UpstreamCluster,
    /// By its name.
    UpstreamClusterRaw,
    UpstreamLocalAddress(AddressPart),
    UpstreamRemoteAddress(AddressPart),
    UpstreamConnectionId,
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    DownstreamLocalAddress(AddressPart),
    DownstreamDirectLocalAddress(AddressPart),
    DownstreamRemoteAddress(AddressPart),
    DownstreamDirectRemoteAddress(AddressPart),
    RequestedServerName(ServerName),
    RouteName,
    VirtualCluster,
    FilterChainName,
    Tls(Tls),
    Wire(Wire),
    Closing(Closing),
    ConnectionId,
    Ja3,
    Ja4,
    HandshakeDuration,
    /// The request's id, else one of the connection.
    StreamId(Header),
    UniqueId,
    AccessLogType,
    LocalReplyBody,
    Coalesce(Box<Coalesce>),
    /// A number that nothing here ever changes.
    Number(u64),
    /// Known when the format is compiled: `HOSTNAME`, `ENVIRONMENT`, what no filter here sets.
    Fixed(Option<Box<str>>),
}

impl Operator {
    /// Compiles `NAME`, what stands in its brackets, and its length.
    ///
    /// # Errors
    /// Envoy's words where Envoy refuses it too.
    pub(super) fn compile(
        name: &str,
        parameters: Option<&str>,
        length: Option<usize>,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        let parameters = parameters.unwrap_or_default();
        if let Some(operator) = Self::compile_with_length(name, parameters, length, plan) {
            return operator;
        }
        let (operator, takes_parameters) = match Self::compile_with_parameters(name, parameters, plan) {
            Some(operator) => (operator?, true),
            None => (Self::compile_plain(name, plan)?, false),
        };
        match (takes_parameters, length) {
            (false, length) if !parameters.is_empty() || length.is_some() => {
                Err(format!("{name} does not take any parameters or length"))
            }
            (true, Some(_)) => Err(format!("{name} does not allow length to be specified.")),
            _ => Ok(operator),
        }
    }

    /// Those that may be cut.
    fn compile_with_length(
        name: &str,
        parameters: &str,
        length: Option<usize>,
        plan: &mut CapturePlan,
    ) -> Option<Result<Self, String>> {
        let required = |operator: Result<Self, String>| match parameters {
            "" => Err(format!("{name} requires parameters")),
            _ => operator,
        };
        Some(match name {
            "REQ" | "REQUEST_HEADER" => {
                Headers::compile(name, parameters, length, |h| Header::of_request(h, plan))
                    .map(Operator::Headers)
            }
            "RESP" | "RESPONSE_HEADER" => {
                Headers::compile(name, parameters, length, |h| Header::of_response(h, plan))
                    .map(Operator::Headers)
            }
            "TRAILER" | "RESPONSE_TRAILER" => {
                Headers::compile(name, parameters, length, |h| Header::of_trailers(h, plan))
                    .map(Operator::Headers)
            }
            "ENVIRONMENT" => required(Ok(Operator::Fixed(environment(parameters, length)))),
            "PATH" => Path::compile(parameters, length, plan).map(Operator::Path),
            "QUERY_PARAM" => QueryParameter::compile(parameters, length, plan).map(Operator::QueryParameter),
            "QUERY_PARAMS" => Query::compile(parameters, length, plan).map(Operator::Query),
            "DYNAMIC_METADATA" => required(
                MetadataValue::compile(Owner::Dynamic, parameters, length, plan).map(Operator::Metadata),
            ),
            "METADATA" => MetadataValue::compile_typed(parameters, length, plan).map(Operator::Metadata),
            "COALESCE" => Coalesce::compile(parameters, length, plan).map(Box::new).map(Operator::Coalesce),
            _ => return None,
        })
    }

    /// Those that take something in brackets, but no length.
    fn compile_with_parameters(
        name: &str,
        parameters: &str,
        plan: &mut CapturePlan,
    ) -> Option<Result<Self, String>> {
        let network = || AddressPart::without_port(parameters);
        Some(match name {
            "START_TIME" => TimeFormat::compile_or_default(parameters).map(Operator::StartTime),
            "EMIT_TIME" => TimeFormat::compile_or_default(parameters).map(Operator::EmitTime),
            "COMMON_DURATION" => CommonDuration::compile(parameters, plan).map(Operator::CommonDuration),
            "GRPC_STATUS" => GrpcStatus::compile(parameters, plan).map(Operator::GrpcStatus),
            "CLUSTER_METADATA" | "UPSTREAM_METADATA" if parameters.is_empty() => {
                Err(format!("{name} requires parameters"))
            }
            "UPSTREAM_METADATA" => {
                MetadataValue::compile(Owner::Host, parameters, None, plan).map(Operator::Metadata)
            }
            "CLUSTER_METADATA" => {
                MetadataValue::compile(Owner::Cluster, parameters, None, plan).map(Operator::Metadata)
            }
            "REQUESTED_SERVER_NAME" => {
                ServerName::compile(parameters, plan).map(Operator::RequestedServerName)
            }
            // `ALLOW_WHITESPACES` makes no difference: no details have any, and Envoy takes any other text too.
            "RESPONSE_CODE_DETAILS" => Ok(Operator::ResponseCodeDetails),
            "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => network().map(Operator::UpstreamLocalAddress),
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => network().map(Operator::UpstreamRemoteAddress),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => network().map(Operator::DownstreamLocalAddress),
            "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
                network().map(Operator::DownstreamDirectLocalAddress)
            }
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => network().map(Operator::DownstreamRemoteAddress),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                network().map(Operator::DownstreamDirectRemoteAddress)
            }
            _ => match Tls::compile(name, parameters)? {
                Ok(tls) if !tls.takes_parameters() => return None,
                tls => tls.map(Operator::Tls),
            },
        })
    }

    fn compile_plain(name: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        use AddressPart::{Port, Whole, WithoutPort};
        let operator = match name {
            "PROTOCOL" => Operator::Protocol,
            "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
            "RESPONSE_CODE" => Operator::ResponseCode,
            "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
            "RESPONSE_FLAGS" => Operator::ResponseFlags,
            "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
            "BYTES_RECEIVED" => Operator::BytesReceived,
            "BYTES_SENT" => Operator::BytesSent,
            // They count with QUIC only.
            "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" => Operator::Number(0),
            "DURATION" => Operator::Duration,
            "REQUEST_DURATION" => Operator::RequestDuration,
            "RESPONSE_DURATION" => Operator::ResponseDuration,
            "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
            "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcStatus::compile("NUMBER", plan)?),
            "UPSTREAM_HOST" => Operator::UpstreamHost,
            "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName(Whole),
            "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamHostName(WithoutPort),
            "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
            "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamClusterRaw,
            "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress(Whole),
            "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocalAddress(Port),
            "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress(Whole),
            "UPSTREAM_REMOTE_PORT" => Operator::UpstreamRemoteAddress(Port),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
            "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress(Whole),
            "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalAddress(Port),
            "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Operator::DownstreamDirectLocalAddress(Whole),
            "DOWNSTREAM_DIRECT_LOCAL_PORT" => Operator::DownstreamDirectLocalAddress(Port),
            "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress(Whole),
            "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemoteAddress(Port),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemoteAddress(Whole),
            "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamDirectRemoteAddress(Port),
            "ROUTE_NAME" => Operator::RouteName,
            "FILTER_CHAIN_NAME" => Operator::FilterChainName,
            "CONNECTION_ID" => Operator::ConnectionId,
            "TLS_JA3_FINGERPRINT" => Operator::Ja3,
            "TLS_JA4_FINGERPRINT" => Operator::Ja4,
            "DOWNSTREAM_HANDSHAKE_DURATION" => Operator::HandshakeDuration,
            "UNIQUE_ID" => Operator::UniqueId,
            "ACCESS_LOG_TYPE" => Operator::AccessLogType,
            "LOCAL_REPLY_BODY" => Operator::LocalReplyBody,
            "HOSTNAME" => Operator::Fixed(hostname().map(Into::into)),
            // No filter here sets flags, nothing is traced, and only QUIC tells of round trips.
            "CUSTOM_FLAGS" => Operator::Fixed(Some("".into())),
            "TRACE_ID" | "SPAN_ID" | "ROUNDTRIP_DURATION" => Operator::Fixed(None),
            _ => return Self::compile_detail(name, plan),
        };
        Ok(operator)
    }

    /// Those whose values are kept for access logs only.
    fn compile_detail(name: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        use AddressPart::{Whole, WithoutPort};
        let operator = match name {
            "REQUEST_HEADERS_BYTES" => Operator::RequestHeaderBytes,
            "RESPONSE_HEADERS_BYTES" => Operator::ResponseHeaderBytes,
            "RESPONSE_TRAILERS_BYTES" => Operator::TrailerBytes,
            "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
            "UPSTREAM_CONNECTION_POOL_READY_DURATION" => Operator::PoolReadyDuration,
            "UPSTREAM_HOSTS_ATTEMPTED" => Operator::HostsAttempted(Whole),
            "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => Operator::HostsAttempted(WithoutPort),
            "UPSTREAM_HOST_NAMES_ATTEMPTED" => Operator::HostNamesAttempted(Whole),
            "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => Operator::HostNamesAttempted(WithoutPort),
            "VIRTUAL_CLUSTER_NAME" => Operator::VirtualCluster,
            "UPSTREAM_CONNECTION_ID" => Operator::UpstreamConnectionId,
            "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => Operator::ConnectionsAttempted,
            "STREAM_ID" => Operator::StreamId(Header::of_request("x-request-id", plan)?),
            _ => {
                if let Some(wire) = Wire::compile(name, plan) {
                    return wire.map(Operator::Wire);
                }
                if let Some(closing) = Closing::compile(name, plan) {
                    return closing.map(Operator::Closing);
                }
                return match Tls::compile(name, "") {
                    Some(tls) => tls.map(Operator::Tls),
                    None => Err(format!("Not supported field in StreamInfo: {name}")),
                };
            }
        };
        plan.want_details(name)?;
        Ok(operator)
    }

    /// Appends the value that `values` has.
    pub(super) fn append(&self, values: Values<'_>, clock: &mut Clock, out: &mut Vec<u8>) -> Appended {
        let info = values.info;
        let connection = &*info.connection;
        let details = info.log_details.as_deref();
        match self {
            Operator::StartTime(format) => {
                format.append(info.start_time, clock, out);
                Appended::Text
            }
            Operator::EmitTime(format) => {
                format.append(std::time::SystemTime::now(), clock, out);
                Appended::Text
            }
            Operator::Protocol => text(info.protocol.map(version), out),
            Operator::UpstreamProtocol => text(info.upstream_protocol.map(version), out),
            Operator::ResponseCode => number(info.response_code.into(), out),
            Operator::ResponseCodeDetails => response_code_details(info, out),
            // Nothing here ends a connection with such details.
            Operator::ConnectionTerminationDetails => text(None, out),
            // Text also when there is none: `"-"`, not `null`, in JSON.
            Operator::ResponseFlags | Operator::ResponseFlagsLong if info.flags.is_empty() => {
                out.push(b'-');
                Appended::Text
            }
            Operator::ResponseFlags => joined(info.flags.short_codes(), out),
            Operator::ResponseFlagsLong => joined(info.flags.long_names(), out),
            Operator::BytesReceived => number(info.bytes_received, out),
            Operator::BytesSent => number(info.bytes_sent, out),
            Operator::RequestHeaderBytes => number(details.map_or(0, |d| d.request_header_bytes), out),
            Operator::ResponseHeaderBytes => number(details.map_or(0, |d| d.response_header_bytes), out),
            Operator::TrailerBytes => number(details.map_or(0, |d| d.trailer_bytes), out),
            Operator::Duration => milliseconds(Some(info.duration), out),
            Operator::RequestDuration => milliseconds(info.request_complete, out),
            Operator::RequestTxDuration => {
                milliseconds(upstream_request_end(info).map(|end| end - info.start), out)
            }
            Operator::ResponseDuration => milliseconds(info.first_upstream_byte, out),
            Operator::ResponseTxDuration => {
                milliseconds(info.first_upstream_byte.map(|first| info.duration.saturating_sub(first)), out)
            }
            Operator::PoolReadyDuration => milliseconds(details.and_then(|d| d.pool_ready), out),
            Operator::CommonDuration(duration) => duration.append(values, out),
            Operator::Headers(headers) => headers.append(values, out),
            Operator::Path(path) => path.append(values, out),
            Operator::QueryParameter(parameter) => parameter.append(values, out),
            Operator::Query(query) => query.append(values, out),
            Operator::GrpcStatus(status) => status.append(values, out),
            Operator::Metadata(value) => value.append(values, out),
            Operator::UpstreamHost => {
                address(info.upstream_host.as_ref().map(|h| &h.address), AddressPart::Whole, out)
            }
            Operator::UpstreamHostName(part) => match &info.upstream_host {
                Some(host) => host_name(&host.hostname, &host.address, *part, out),
                None => Appended::Empty,
            },
            Operator::HostsAttempted(part) => {
                listed(details.map(|d| &*d.hosts_attempted), out, |host, out| {
                    address(Some(&host.address), *part, out)
                })
            }
            Operator::HostNamesAttempted(part) => {
                listed(details.map(|d| &*d.hosts_attempted), out, |host, out| {
                    host_name(&host.hostname, &host.address, *part, out)
                })
            }
            Operator::ConnectionsAttempted => {
                listed(details.map(|d| &*d.connections_attempted), out, |id, out| number(*id, out))
            }
            Operator::UpstreamCluster => text(info.upstream_cluster.as_ref().map(|c| c.stats.name()), out),
            Operator::UpstreamClusterRaw => text(info.upstream_cluster.as_ref().map(|c| &*c.name), out),
            Operator::UpstreamLocalAddress(part) => match info.upstream_local_address {
                Some(local) => socket_address(local, *part, out),
                None => Appended::Empty,
            },
            // A host that was never reached is not a remote address.
            Operator::UpstreamRemoteAddress(part) => match info.upstream_local_address {
                Some(_) => address(info.upstream_host.as_ref().map(|h| &h.address), *part, out),
                None => Appended::Empty,
            },
            Operator::UpstreamConnectionId => {
                number(details.and_then(|d| d.connections_attempted.last().copied()).unwrap_or(0), out)
            }
            Operator::UpstreamRequestAttemptCount => number(info.attempt_count.into(), out),
            Operator::UpstreamTransportFailureReason => match &info.upstream_transport_failure {
                Some(reason) => underscored(reason, out),
                None => Appended::Empty,
            },
            Operator::DownstreamLocalAddress(part) => address(Some(&connection.local_address), *part, out),
            Operator::DownstreamDirectLocalAddress(part) => {
                address(Some(&connection.direct_local_address), *part, out)
            }
            Operator::DownstreamRemoteAddress(part) if info.remote_address.is_some() => {
                match info.remote_address {
                    Some(remote) => socket_address(remote, *part, out),
                    None => Appended::Empty,
                }
            }
            Operator::DownstreamRemoteAddress(part) | Operator::DownstreamDirectRemoteAddress(part) => {
                address(Some(&connection.peer_address), *part, out)
            }
            Operator::RequestedServerName(name) => name.append(values, out),
            Operator::RouteName => text(info.route_name.as_deref(), out),
            Operator::VirtualCluster => text(details.and_then(|d| d.virtual_cluster.as_deref()), out),
            Operator::FilterChainName => text(Some(&connection.filter_chain), out),
            Operator::Tls(tls) => tls.append(values, clock, out),
            Operator::Wire(wire) => wire.append(values, out),
            Operator::Closing(closing) => closing.append(values, out),
            Operator::ConnectionId => number(connection.connection_id, out),
            Operator::Ja3 => text(connection.fingerprints.as_ref().and_then(|f| f.ja3.as_deref()), out),
            Operator::Ja4 => text(connection.fingerprints.as_ref().and_then(|f| f.ja4.as_deref()), out),
            Operator::HandshakeDuration => {
                milliseconds(connection.secured.map(|secured| secured - connection.opened), out)
            }
            Operator::StreamId(header) => {
                let own = || Some(details?.stream_id.as_ref()?.as_bytes());
                joined(header.value(values).or_else(own), out)
            }
            Operator::UniqueId => joined([new_uuid()], out),
            Operator::AccessLogType => text(Some(values.log_type.name()), out),
            Operator::LocalReplyBody => {
                out.extend_from_slice(values.local_reply_body.unwrap_or_default());
                Appended::Text
            }
            Operator::Coalesce(coalesce) => coalesce.append(values, clock, out),
            Operator::Number(value) => number(*value, out),
            Operator::Fixed(None) => Appended::Empty,
            Operator::Fixed(Some(value)) => {
                out.extend_from_slice(value.as_bytes());
                Appended::Text
            }
        }
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// Its DNS name, else its address.
fn host_name(name: &str, of: &Address, part: AddressPart, out: &mut Vec<u8>) -> Appended {
    match (name, part) {
        ("", part) => address(Some(of), part, out),
        (name, AddressPart::WithoutPort) => text(Some(host_without_port(name)), out),
        (name, _) => text(Some(name), out),
    }
}

/// `a:80` → `a`; an IPv6 address in brackets keeps them.
fn host_without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => name,
    }
}

/// Each value appended, with commas between them.
fn listed<T>(
    values: Option<&[T]>,
    out: &mut Vec<u8>,
    append: impl Fn(&T, &mut Vec<u8>) -> Appended,
) -> Appended {
    let start = out.len();
    for value in values.into_iter().flatten() {
        if out.len() > start {
            out.push(b',');
        }
        append(value, out);
    }
    if out.len() > start { Appended::Text } else { Appended::Empty }
}

/// Envoy adds the reason of a transport failure to the details: `...{remote_connection_failure|reason}`.
pub(super) fn response_code_details(info: &StreamInfo, out: &mut Vec<u8>) -> Appended {
    let details = info.response_code_details;
    match (&info.upstream_transport_failure, details.strip_suffix('}')) {
        (Some(reason), Some(open))
            if !reason.is_empty() && details.starts_with("upstream_reset_before_response_started{") =>
        {
            out.extend_from_slice(open.as_bytes());
            out.push(b'|');
            underscored(reason, out);
            out.push(b'}');
            Appended::Text
        }
        _ => text(Some(details), out),
    }
}

/// The variable's value. Envoy prints `-` for one that is not set, also in JSON.
fn environment(name: &str, length: Option<usize>) -> Option<Box<str>> {
    let value = std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    let length = length.unwrap_or(usize::MAX).min(value.len());
    let end = (0..=length).rev().find(|i| value.is_char_boundary(*i)).unwrap_or_default();
    Some(value[..end].into())
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}
