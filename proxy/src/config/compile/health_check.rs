//! `HealthCheck`, and `Endpoint.HealthCheckConfig`.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ::http::Method;
use ::http::uri::{Authority, PathAndQuery};
use outrigger_xds_api::wire::core::v3::{self as wire, health_check as parts};
use outrigger_xds_api::wire::endpoint::v3::endpoint::HealthCheckConfig;
use outrigger_xds_api::wire::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use outrigger_xds_api::wire::r#type::v3::{CodecClientType, Int64Range};

use super::cx::{CompileCx, Compiled, unsupported};
use super::header_mutation::{compile_addition, compile_header_mutations};
use super::route_match::compile_string_matcher;
use super::values::{self, boolean, duration, uint32};
use crate::access_log::Sink;
use crate::cluster::CheckTarget;
use crate::formatter::CapturePlan;
use crate::health_check::{
    EventLog, GrpcCheck, HealthCheck, HttpCheck, Intervals, Kind, Payload, TcpCheck, Thresholds, Version,
};
use crate::net::Address;
use crate::route::HeaderMutations;

/// Envoy's default of `no_traffic_interval`.
const NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Envoy's default of `expected_statuses`.
const ONLY_OK: Range<u16> = 200..201;
/// Envoy's default of `response_buffer_size`.
const RESPONSE_BUFFER_BYTES: u64 = 1024;

/// What a cluster says beside its `health_checks`.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfCluster<'a> {
    /// `name`: what hosts are asked by, unless something else is said.
    pub(super) name: &'a str,
    /// Its hosts speak HTTP/2.
    pub(super) is_http2: bool,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`.
    pub(super) ignores_new_hosts: bool,
    /// `ignore_health_on_host_removal`.
    pub(super) ignores_health_on_removal: bool,
    /// `readmission` of our own metadata is `check`: hosts are checked that are out.
    pub(super) only_ejected: bool,
}

/// Compiles `health_checks`.
pub(super) fn compile_health_checks(
    cx: &mut CompileCx<'_>,
    values: &[wire::HealthCheck],
    of_cluster: OfCluster<'_>,
) -> Compiled<Option<HealthCheck>> {
    match values {
        [] => Ok(None),
        [value] => cx.item("health_checks", 0, |cx| compile_health_check(cx, value, of_cluster)).map(Some),
        _ => Err(cx.refuse("health_checks", "Multiple health checks not supported")),
    }
}

fn compile_health_check(
    cx: &mut CompileCx<'_>,
    value: &wire::HealthCheck,
    of_cluster: OfCluster<'_>,
) -> Compiled<HealthCheck> {
    let wire::HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = value;
    unsupported!(cx; alt_port, event_service, transport_socket_match_criteria);
    // Required fields and empty durations are found by Envoy's validation rules.
    let healthy = duration(cx, "interval", interval).unwrap_or_default();
    let unhealthy = duration(cx, "unhealthy_interval", unhealthy_interval).unwrap_or(healthy);
    let no_traffic = duration(cx, "no_traffic_interval", no_traffic_interval).unwrap_or(NO_TRAFFIC);
    let intervals = Intervals {
        healthy,
        unhealthy,
        healthy_edge: duration(cx, "healthy_edge_interval", healthy_edge_interval).unwrap_or(healthy),
        unhealthy_edge: duration(cx, "unhealthy_edge_interval", unhealthy_edge_interval).unwrap_or(unhealthy),
        no_traffic,
        no_traffic_healthy: duration(cx, "no_traffic_healthy_interval", no_traffic_healthy_interval)
            .unwrap_or(no_traffic),
        initial_jitter: duration(cx, "initial_jitter", initial_jitter).unwrap_or_default(),
        jitter: duration(cx, "interval_jitter", interval_jitter).unwrap_or_default(),
        jitter_percent: *interval_jitter_percent,
    };
    let kind = match health_checker {
        Some(parts::HealthChecker::HttpHealthCheck(check)) => {
            cx.field("http_health_check", |cx| compile_http(cx, check, of_cluster)).map(Kind::Http)
        }
        Some(parts::HealthChecker::GrpcHealthCheck(check)) => {
            cx.field("grpc_health_check", |cx| compile_grpc(cx, check, of_cluster)).map(Kind::Grpc)
        }
        Some(parts::HealthChecker::TcpHealthCheck(check)) => {
            cx.field("tcp_health_check", |cx| compile_tcp(cx, check)).map(Kind::Tcp)
        }
        Some(parts::HealthChecker::CustomHealthCheck(_)) => {
            Err(cx.refuse("custom_health_check", "not supported"))
        }
        None => {
            Err(cx.refuse("", "one of http_health_check, tcp_health_check or grpc_health_check is required"))
        }
    };
    let logs = compile_logs(cx, event_log_path, event_logger);
    let protocols = tls_options.iter().flat_map(|options| &options.alpn_protocols);
    Ok(HealthCheck {
        timeout: duration(cx, "timeout", timeout).unwrap_or_default(),
        intervals,
        thresholds: Thresholds {
            healthy: uint32(healthy_threshold, 0),
            unhealthy: uint32(unhealthy_threshold, 0),
        },
        reuses_connection: boolean(reuse_connection, true),
        alpn: protocols.map(|protocol| protocol.as_bytes().to_vec()).collect(),
        kind: kind?,
        logs: logs?,
        logs_each_failure: *always_log_health_check_failures,
        logs_each_success: *always_log_health_check_success,
        only_ejected: of_cluster.only_ejected,
        ignores_new_hosts: of_cluster.ignores_new_hosts,
        keeps_healthy_hosts: !of_cluster.ignores_health_on_removal,
    })
}

fn compile_http(
    cx: &mut CompileCx<'_>,
    value: &parts::HttpHealthCheck,
    of_cluster: OfCluster<'_>,
) -> Compiled<HttpCheck> {
    let parts::HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = value;
    let version = match values::enumeration(cx, "codec_client_type", *codec_client_type)? {
        CodecClientType::Http1 => Version::Http1,
        CodecClientType::Http2 => Version::Http2,
        CodecClientType::Http3 => return Err(cx.refuse("codec_client_type", "HTTP3 is not supported")),
    };
    if version == Version::Http2 {
        check_authority(cx, "host", host, of_cluster.name);
    } else {
        let _ = values::header_value(cx, "host", host);
    }
    let path_and_query = PathAndQuery::try_from(path.as_str());
    let path = match path_and_query {
        Ok(compiled) if path.starts_with('/') => Ok(compiled),
        _ => Err(cx.refuse("path", "not a path")),
    };
    let method = compile_method(cx, *method);
    let send = match send {
        Some(payload) => cx.field("send", |cx| compile_payload(cx, payload)),
        None => Ok(Vec::new()),
    };
    if let (Ok(method), Ok(send)) = (&method, &send)
        && !send.is_empty()
        && matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE)
    {
        cx.refuse("send", format!("HTTP health check cannot specify a request payload with method '{method}'. Only methods that support a request body (POST, PUT, PATCH, OPTIONS) can be used with payload."));
    }
    let receive = cx.each("receive", receive, |payload, cx| compile_payload(cx, payload)).map(Payload::new);
    let buffer = response_buffer_size.as_ref().map_or(RESPONSE_BUFFER_BYTES, |size| size.value);
    if let Ok(receive) = &receive
        && buffer != 0
        && receive.len() as u64 > buffer
    {
        let length = receive.len();
        cx.refuse("receive", format!("The expected response length '{length}' is over than http health response buffer size '{buffer}'"));
    }
    let mut plan = CapturePlan::live();
    let headers =
        compile_header_mutations(cx, "request", request_headers_to_add, request_headers_to_remove, &mut plan);
    let expected = compile_statuses(cx, "expected", expected_statuses);
    let retriable = compile_statuses(cx, "retriable", retriable_statuses);
    let service_name = match service_name_matcher {
        Some(matcher) => cx.field("service_name_matcher", |cx| compile_string_matcher(cx, matcher)).map(Some),
        None => Ok(None),
    };
    let expected = expected?;
    Ok(HttpCheck {
        host: host.as_str().into(),
        path: path?,
        method: method?,
        send: Payload::new([send?]),
        receive: receive?,
        response_buffer_bytes: usize::try_from(buffer).unwrap_or(usize::MAX),
        headers: headers?,
        expected: if expected.is_empty() { vec![ONLY_OK] } else { expected },
        retriable: retriable?,
        version,
        service_name: service_name?,
    })
}

fn compile_method(cx: &mut CompileCx<'_>, value: i32) -> Compiled<Method> {
    use wire::RequestMethod as Wire;
    Ok(match values::enumeration(cx, "method", value)? {
        Wire::MethodUnspecified | Wire::Get => Method::GET,
        Wire::Head => Method::HEAD,
        Wire::Post => Method::POST,
        Wire::Put => Method::PUT,
        Wire::Delete => Method::DELETE,
        Wire::Options => Method::OPTIONS,
        Wire::Trace => Method::TRACE,
        Wire::Patch => Method::PATCH,
        Wire::Connect => return Err(cx.refuse("method", "CONNECT is no health check")),
    })
}

fn compile_statuses(cx: &mut CompileCx<'_>, which: &str, ranges: &[Int64Range]) -> Compiled<Vec<Range<u16>>> {
    cx.each(&format!("{which}_statuses"), ranges, |&Int64Range { start, end }, cx| {
        let status = |value: i64, limits: std::ops::RangeInclusive<i64>| {
            u16::try_from(value).ok().filter(|_| limits.contains(&value))
        };
        match (status(start, 100..=599), status(end, 101..=600)) {
            (Some(start), Some(end)) if start < end => Ok(start..end),
            _ if start >= end => Err(cx.refuse("", format!("Invalid http {which} status range: expecting start < end, but found start={start} and end={end}"))),
            (None, _) => Err(cx.refuse("start", format!("Invalid http {which} status range: expecting start >= 100, but found start={start}"))),
            _ => Err(cx.refuse("end", format!("Invalid http {which} status range: expecting end <= 600, but found end={end}"))),
        }
    })
}

fn compile_grpc(
    cx: &mut CompileCx<'_>,
    value: &parts::GrpcHealthCheck,
    of_cluster: OfCluster<'_>,
) -> Compiled<GrpcCheck> {
    let parts::GrpcHealthCheck { service_name, authority, initial_metadata } = value;
    if !of_cluster.is_http2 {
        let reason = format!("{} cluster must support HTTP/2 for gRPC healthchecking", of_cluster.name);
        cx.refuse("", reason);
    }
    check_authority(cx, "authority", authority, of_cluster.name);
    let mut plan = CapturePlan::live();
    let add =
        cx.each("initial_metadata", initial_metadata, |option, cx| compile_addition(option, &mut plan, cx))?;
    Ok(GrpcCheck {
        service: service_name.as_str().into(),
        authority: authority.as_str().into(),
        metadata: HeaderMutations { remove: Box::default(), add: add.into() },
    })
}

/// HTTP/2 says by what name a host is asked in `:authority`.
fn check_authority(cx: &mut CompileCx<'_>, field: &str, value: &str, cluster: &str) {
    if !value.is_empty() {
        if value.parse::<Authority>().is_err() {
            cx.refuse(field, "not a valid :authority");
        }
    } else if cluster.parse::<Authority>().is_err() {
        cx.refuse(
            field,
            format!("needed: the cluster's name '{cluster}', which is the default, is no valid :authority"),
        );
    }
}

fn compile_tcp(cx: &mut CompileCx<'_>, value: &parts::TcpHealthCheck) -> Compiled<TcpCheck> {
    let parts::TcpHealthCheck { send, receive, proxy_protocol_config } = value;
    unsupported!(cx; proxy_protocol_config);
    let send = match send {
        Some(payload) => cx.field("send", |cx| compile_payload(cx, payload)),
        None => Ok(Vec::new()),
    };
    let receive = cx.each("receive", receive, |payload, cx| compile_payload(cx, payload))?;
    Ok(TcpCheck { send: Payload::new([send?]), receive: Payload::new(receive) })
}

fn compile_payload(cx: &mut CompileCx<'_>, value: &parts::Payload) -> Compiled<Vec<u8>> {
    use parts::payload::Payload as Wire;
    match &value.payload {
        Some(Wire::Text(hex)) => {
            decode_hex(hex).ok_or_else(|| cx.refuse("text", format!("invalid hex string '{hex}'")))
        }
        Some(Wire::Binary(bytes)) => Ok(bytes.clone()),
        None => Err(cx.refuse("", "one of text or binary is required")),
    }
}

/// `None`: not an even number of hexadecimal digits, or none.
fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
    (!pairs.is_empty()).then(|| pairs.iter().map(byte).collect()).flatten()
}

fn compile_logs(
    cx: &mut CompileCx<'_>,
    path: &str,
    loggers: &[wire::TypedExtensionConfig],
) -> Compiled<Vec<EventLog>> {
    let of_path = (!path.is_empty()).then(|| open_log(cx, path));
    let sinks = cx.each("event_logger", loggers, |logger, cx| {
        let wire::TypedExtensionConfig { name: _, typed_config } = logger;
        let Some(any) = typed_config else {
            return Err(cx.refuse("typed_config", "value is required"));
        };
        cx.field("typed_config", |cx| {
            let known = "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink";
            if values::type_name(any) != known {
                return Err(cx.refuse("", format!("{} is not supported", values::type_name(any))));
            }
            let HealthCheckEventFileSink { event_log_path } = values::unpack(cx, any)?;
            open_log(cx, &event_log_path)
        })
    })?;
    of_path.into_iter().chain(sinks.into_iter().map(Ok)).collect()
}

fn open_log(cx: &mut CompileCx<'_>, path: &str) -> Compiled<EventLog> {
    let file = cx.inputs.log_files.open(Sink::path(path));
    let file = file.map_err(|error| cx.refuse("event_log_path", error))?;
    Ok(EventLog::new(move |lines| file.write(lines)))
}

/// Compiles `health_check_config` of an endpoint; `None`: the host is checked as the cluster says.
pub(super) fn compile_check_target(
    cx: &mut CompileCx<'_>,
    value: &Option<HealthCheckConfig>,
) -> Compiled<Option<Arc<CheckTarget>>> {
    let Some(value) = value else { return Ok(None) };
    cx.field("health_check_config", |cx| {
        let HealthCheckConfig { port_value, hostname, address, disable_active_health_check } = value;
        let address = match address {
            Some(_) => Some(values::address(cx, "address", address)?),
            None => None,
        };
        let port = match u16::try_from(*port_value) {
            Ok(0) => None,
            Ok(_) if matches!(address, Some(Address::Pipe(_))) => {
                return Err(
                    cx.refuse("port_value", "Invalid host configuration: non-zero port for non-IP address")
                );
            }
            Ok(port) => Some(port),
            Err(_) => return Err(cx.refuse("port_value", "value must be less than or equal to 65535")),
        };
        if !hostname.is_empty() {
            values::header_value(cx, "hostname", hostname)?;
        }
        let hostname = (!hostname.is_empty()).then(|| hostname.as_str().into());
        let target = CheckTarget { address, port, hostname, disabled: *disable_active_health_check };
        Ok((target != CheckTarget::default()).then(|| Arc::new(target)))
    })
}
