//! One command operator, `%NAME(parameters):length%`, compiled.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Version};

use super::time::{Clock, TimeFormat};
use super::{CapturePlan, Values};
use crate::net::Address;
use crate::stream_info::StreamInfo;

/// What an operator appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// Nothing: the value is not known.
    Empty,
    /// A number, in decimal digits.
    Number,
    /// Text.
    Text,
}

/// A header that is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Header {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    /// Index in the capture plan.
    Request(usize),
    /// Index in the capture plan.
    Response(usize),
    /// Of the request that is there.
    LiveRequest(HeaderName),
    /// Of the response that is there.
    LiveResponse(HeaderName),
}

/// A part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressPart {
    Whole,
    WithoutPort,
    Port,
}

/// One compiled operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    ResponseFlags,
    ResponseFlagsLong,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    /// `REQ(main?alternative):length` and `RESP(...)`.
    Headers {
        main: Header,
        alternative: Option<Header>,
        length: usize,
    },
    UpstreamHost,
    UpstreamHostName,
    /// By its `alt_stat_name`.
    UpstreamCluster,
    /// By its name.
    UpstreamClusterRaw,
    UpstreamLocalAddress(AddressPart),
    UpstreamRemoteAddress(AddressPart),
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamTlsVersion,
    UpstreamTlsCipher,
    UpstreamPeerUriSan,
    UpstreamLocalUriSan,
    DownstreamLocalAddress(AddressPart),
    DownstreamRemoteAddress(AddressPart),
    DownstreamDirectRemoteAddress(AddressPart),
    RequestedServerName,
    RouteName,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    ConnectionId,
    AccessLogType,
    /// Known when the format is compiled: `HOSTNAME`, `ENVIRONMENT`.
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
        use AddressPart::{Port, Whole, WithoutPort};
        let parameters = parameters.unwrap_or_default();
        match name {
            "START_TIME" => {
                return match (parameters, length) {
                    (_, Some(_)) => Err("START_TIME does not take length".into()),
                    ("", None) => Ok(Operator::StartTime(TimeFormat::default())),
                    (format, None) => TimeFormat::compile(format).map(Operator::StartTime),
                };
            }
            "REQ" | "REQUEST_HEADER" => {
                return headers(name, parameters, length, |h| request_header(h, plan));
            }
            "RESP" | "RESPONSE_HEADER" => {
                return headers(name, parameters, length, |h| response_header(h, plan));
            }
            "ENVIRONMENT" => {
                if parameters.is_empty() {
                    return Err("ENVIRONMENT requires parameters".into());
                }
                let value = std::env::var(parameters).ok().map(|value| clip(&value, length).into());
                return Ok(Operator::Fixed(value));
            }
            _ => {}
        }
        let operator = match name {
            "PROTOCOL" => Operator::Protocol,
            "RESPONSE_CODE" => Operator::ResponseCode,
            "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
            "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
            "RESPONSE_FLAGS" => Operator::ResponseFlags,
            "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
            "BYTES_RECEIVED" => Operator::BytesReceived,
            "BYTES_SENT" => Operator::BytesSent,
            "DURATION" => Operator::Duration,
            "REQUEST_DURATION" => Operator::RequestDuration,
            "RESPONSE_DURATION" => Operator::ResponseDuration,
            "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
            "UPSTREAM_HOST" => Operator::UpstreamHost,
            "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName,
            "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
            "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamClusterRaw,
            "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress(Whole),
            "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamLocalAddress(WithoutPort),
            "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocalAddress(Port),
            "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress(Whole),
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamRemoteAddress(WithoutPort),
            "UPSTREAM_REMOTE_PORT" => Operator::UpstreamRemoteAddress(Port),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
            "UPSTREAM_TLS_VERSION" => Operator::UpstreamTlsVersion,
            "UPSTREAM_TLS_CIPHER" => Operator::UpstreamTlsCipher,
            "UPSTREAM_PEER_URI_SAN" => Operator::UpstreamPeerUriSan,
            "UPSTREAM_LOCAL_URI_SAN" => Operator::UpstreamLocalUriSan,
            "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress(Whole),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamLocalAddress(WithoutPort),
            "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalAddress(Port),
            "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress(Whole),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemoteAddress(WithoutPort),
            "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemoteAddress(Port),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemoteAddress(Whole),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                Operator::DownstreamDirectRemoteAddress(WithoutPort)
            }
            "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamDirectRemoteAddress(Port),
            "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
            "ROUTE_NAME" => Operator::RouteName,
            "DOWNSTREAM_PEER_URI_SAN" => Operator::DownstreamPeerUriSan,
            "DOWNSTREAM_LOCAL_URI_SAN" => Operator::DownstreamLocalUriSan,
            "DOWNSTREAM_TLS_VERSION" => Operator::DownstreamTlsVersion,
            "DOWNSTREAM_TLS_CIPHER" => Operator::DownstreamTlsCipher,
            "CONNECTION_ID" => Operator::ConnectionId,
            "ACCESS_LOG_TYPE" => Operator::AccessLogType,
            "HOSTNAME" => Operator::Fixed(hostname().map(Into::into)),
            _ => return Err(format!("Not supported field in StreamInfo: {name}")),
        };
        if !parameters.is_empty() || length.is_some() {
            return Err(format!("{name} does not take any parameters or length"));
        }
        Ok(operator)
    }

    /// Appends the value that `values` has.
    pub(super) fn append(&self, values: Values<'_>, clock: &mut Clock, out: &mut Vec<u8>) -> Appended {
        let info = values.info;
        let connection = &*info.connection;
        let tls = connection.tls.as_ref();
        match self {
            Operator::StartTime(format) => {
                format.append(info.start_time, clock, out);
                Appended::Text
            }
            Operator::Protocol => text(info.protocol.map(version), out),
            Operator::ResponseCode => number(info.response_code.into(), out),
            Operator::ResponseCodeDetails => response_code_details(info, out),
            Operator::ConnectionTerminationDetails => text(info.connection_termination_details, out),
            // Text also when there is none: `"-"`, not `null`, in JSON.
            Operator::ResponseFlags | Operator::ResponseFlagsLong if info.flags.is_empty() => {
                out.push(b'-');
                Appended::Text
            }
            Operator::ResponseFlags => joined(info.flags.short_codes(), out),
            Operator::ResponseFlagsLong => joined(info.flags.long_names(), out),
            Operator::BytesReceived => number(info.bytes_received, out),
            Operator::BytesSent => number(info.bytes_sent, out),
            Operator::Duration => milliseconds(Some(info.duration), out),
            Operator::RequestDuration => milliseconds(info.request_complete, out),
            Operator::ResponseDuration => milliseconds(info.first_upstream_byte, out),
            Operator::ResponseTxDuration => {
                milliseconds(info.first_upstream_byte.map(|first| info.duration.saturating_sub(first)), out)
            }
            Operator::Headers { main, alternative, length } => {
                let value = header(main, values).or_else(|| header(alternative.as_ref()?, values));
                match value {
                    Some(value) => {
                        out.extend_from_slice(&value[..value.len().min(*length)]);
                        Appended::Text
                    }
                    // A header is text, this one too.
                    None if *main == Header::Status && info.response_code != 0 => {
                        number(info.response_code.into(), out);
                        Appended::Text
                    }
                    None => Appended::Empty,
                }
            }
            Operator::UpstreamHost => {
                address(info.upstream_host.as_ref().map(|h| &h.address), AddressPart::Whole, out)
            }
            Operator::UpstreamHostName => match &info.upstream_host {
                Some(host) if !host.hostname.is_empty() => text(Some(&host.hostname), out),
                host => address(host.as_ref().map(|h| &h.address), AddressPart::Whole, out),
            },
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
            Operator::UpstreamRequestAttemptCount => number(info.attempt_count.into(), out),
            Operator::UpstreamTransportFailureReason => match &info.upstream_transport_failure {
                Some(reason) => underscored(reason, out),
                None => Appended::Empty,
            },
            Operator::UpstreamTlsVersion => text(info.upstream_tls.as_ref().map(|t| t.version), out),
            Operator::UpstreamTlsCipher => text(info.upstream_tls.as_ref().map(|t| t.cipher), out),
            Operator::UpstreamPeerUriSan => {
                text(shared(info.upstream_tls.as_ref().map(|t| &t.peer_principal)), out)
            }
            Operator::UpstreamLocalUriSan => {
                text(shared(info.upstream_tls.as_ref().map(|t| &t.local_principal)), out)
            }
            Operator::DownstreamLocalAddress(part) => address(Some(&connection.local_address), *part, out),
            Operator::DownstreamRemoteAddress(part) | Operator::DownstreamDirectRemoteAddress(part) => {
                address(Some(&connection.peer_address), *part, out)
            }
            Operator::RequestedServerName => text(connection.requested_server_name.as_deref(), out),
            Operator::RouteName => text(info.route_name.as_deref(), out),
            Operator::DownstreamPeerUriSan => text(shared(tls.map(|t| &t.peer_principal)), out),
            Operator::DownstreamLocalUriSan => text(shared(tls.map(|t| &t.local_principal)), out),
            Operator::DownstreamTlsVersion => text(tls.map(|t| t.version), out),
            Operator::DownstreamTlsCipher => text(tls.map(|t| t.cipher), out),
            Operator::ConnectionId => number(connection.connection_id, out),
            Operator::AccessLogType => {
                text(Some(if info.protocol.is_some() { "DownstreamEnd" } else { "TcpConnectionEnd" }), out)
            }
            Operator::Fixed(value) => text(value.as_deref(), out),
        }
    }
}

fn clip(text: &str, length: Option<usize>) -> &str {
    match length {
        Some(length) if length < text.len() => {
            let end = (0..=length).rev().find(|i| text.is_char_boundary(*i)).unwrap_or_default();
            &text[..end]
        }
        _ => text,
    }
}

/// Compiles `main?alternative`.
fn headers(
    name: &str,
    parameters: &str,
    length: Option<usize>,
    mut compile: impl FnMut(&str) -> Result<Header, String>,
) -> Result<Operator, String> {
    if parameters.is_empty() {
        return Err(format!("{name} requires parameters"));
    }
    if parameters.contains(['\n', '\r', '\0']) {
        return Err("Invalid header configuration. Format string contains newline.".into());
    }
    let mut names = parameters.split('?');
    let main = compile(names.next().unwrap_or_default())?;
    let alternative = names.next().filter(|name| !name.is_empty()).map(compile).transpose()?;
    if names.next().is_some() {
        return Err(format!("More than 1 alternative header specified in token: {parameters}"));
    }
    Ok(Operator::Headers { main, alternative, length: length.unwrap_or(usize::MAX) })
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("not a header name: '{name}'"))
}

fn request_header(name: &str, plan: &mut CapturePlan) -> Result<Header, String> {
    let pseudo = match name.to_ascii_lowercase().as_str() {
        ":method" => Header::Method,
        ":path" => Header::Path,
        ":authority" | "host" => Header::Authority,
        ":scheme" => Header::Scheme,
        _ => return Ok(plan.request_header(header_name(name)?)),
    };
    plan.names_request = true;
    Ok(pseudo)
}

fn response_header(name: &str, plan: &mut CapturePlan) -> Result<Header, String> {
    if name.eq_ignore_ascii_case(":status") {
        return Ok(Header::Status);
    }
    Ok(plan.response_header(header_name(name)?))
}

fn header<'a>(header: &Header, values: Values<'a>) -> Option<&'a [u8]> {
    fn captured(values: &[Option<HeaderValue>], at: usize) -> Option<&[u8]> {
        Some(values.get(at)?.as_ref()?.as_bytes())
    }
    match (header, &values.line) {
        (Header::Status, _) => None,
        (Header::Response(at), _) => captured(&values.info.response_headers, *at),
        (Header::LiveResponse(name), _) => Some(values.response?.get(name)?.as_bytes()),
        (Header::LiveRequest(name), _) => Some(values.request?.get(name)?.as_bytes()),
        (Header::Request(at), _) => captured(&values.info.request.as_ref()?.headers, *at),
        (Header::Method, Some(line)) => Some(line.method.as_bytes()),
        (Header::Path, Some(line)) => Some(line.path.as_bytes()),
        (Header::Authority, Some(line)) => Some(line.authority.as_bytes()),
        (Header::Scheme, Some(line)) => Some(line.scheme.as_bytes()),
        (pseudo, None) => {
            let request = values.info.request.as_ref()?;
            match pseudo {
                Header::Method => Some(request.method.as_str().as_bytes()),
                Header::Path => Some(request.path.as_ref()?.as_str().as_bytes()),
                Header::Authority => Some(request.authority.as_ref()?.as_bytes()),
                _ => Some(request.scheme.as_bytes()).filter(|scheme| !scheme.is_empty()),
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

fn text(value: Option<&str>, out: &mut Vec<u8>) -> Appended {
    match value {
        Some(value) if !value.is_empty() => {
            out.extend_from_slice(value.as_bytes());
            Appended::Text
        }
        _ => Appended::Empty,
    }
}

fn shared(value: Option<&Option<Arc<str>>>) -> Option<&str> {
    value?.as_deref()
}

fn number(value: u64, out: &mut Vec<u8>) -> Appended {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    Appended::Number
}

fn milliseconds(value: Option<Duration>, out: &mut Vec<u8>) -> Appended {
    match value {
        Some(value) => number(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), out),
        None => Appended::Empty,
    }
}

fn joined(names: impl Iterator<Item = &'static str>, out: &mut Vec<u8>) -> Appended {
    let start = out.len();
    for name in names {
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
    }
    Appended::Text
}

/// Free text without white space, so that fields of a line stay apart.
fn underscored(value: &str, out: &mut Vec<u8>) -> Appended {
    out.extend(value.bytes().map(|b| if b.is_ascii_whitespace() { b'_' } else { b }));
    if value.is_empty() { Appended::Empty } else { Appended::Text }
}

/// Envoy adds the reason of a transport failure to the details: `...{remote_connection_failure|reason}`.
fn response_code_details(info: &StreamInfo, out: &mut Vec<u8>) -> Appended {
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

fn address(address: Option<&Address>, part: AddressPart, out: &mut Vec<u8>) -> Appended {
    match (address, part) {
        (None, _) | (Some(Address::Pipe(_)), AddressPart::Port) => Appended::Empty,
        (Some(Address::Ip(address)), part) => socket_address(*address, part, out),
        (Some(Address::Pipe(path)), _) => {
            out.extend_from_slice(path.as_os_str().as_encoded_bytes());
            Appended::Text
        }
    }
}

fn socket_address(address: SocketAddr, part: AddressPart, out: &mut Vec<u8>) -> Appended {
    if part == AddressPart::Port {
        return number(address.port().into(), out);
    }
    match address.ip() {
        // By hand: `Display` of an address costs as much as the rest of a line.
        IpAddr::V4(ip) => {
            for (i, octet) in ip.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(ip) if part == AddressPart::WithoutPort => drop(write!(out, "{ip}")),
        IpAddr::V6(ip) => drop(write!(out, "[{ip}]")),
    }
    if part == AddressPart::Whole {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
    }
    Appended::Text
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}
