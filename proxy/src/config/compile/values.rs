//! Values that occur everywhere: wrapped numbers, durations, addresses, enums, packed messages, data sources.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use outrigger_xds_api::resource;
use outrigger_xds_api::wire::core::v3 as wire;
use outrigger_xds_api::wire::protobuf;
use prost::{Message, Name};
use rustls_pki_types::DnsName;

use super::cx::{CompileCx, Compiled, unsupported};
use crate::net::Address;

/// A duration that may be unset. Negative ones are refused.
pub(crate) fn duration(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<protobuf::Duration>,
) -> Option<Duration> {
    let protobuf::Duration { seconds, nanos } = value.as_ref()?;
    match (u64::try_from(*seconds), u32::try_from(*nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Some(Duration::new(seconds, nanos)),
        _ => {
            cx.refuse(name, format!("invalid duration: {seconds}s {nanos}ns, must not be negative"));
            None
        }
    }
}

/// A timeout: unset = `default`, zero = off.
pub(crate) fn timeout(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<protobuf::Duration>,
    default: Option<Duration>,
) -> Option<Duration> {
    match value {
        None => default,
        some => duration(cx, name, some).filter(|d| !d.is_zero()),
    }
}

/// A wrapped number, or `default`.
pub(crate) fn uint32(value: &Option<protobuf::UInt32Value>, default: u32) -> u32 {
    value.as_ref().map_or(default, |v| v.value)
}

/// Envoy's default `per_connection_buffer_limit_bytes`.
const BUFFER_LIMIT_BYTES: u32 = 1 << 20;

/// `per_connection_buffer_limit_bytes`: 0 is no limit, as in Envoy, and `u32::MAX` here.
pub(crate) fn buffer_limit(value: &Option<protobuf::UInt32Value>) -> u32 {
    match uint32(value, BUFFER_LIMIT_BYTES) {
        0 => u32::MAX,
        limit => limit,
    }
}

/// A wrapped boolean, or `default`.
pub(crate) fn boolean(value: &Option<protobuf::BoolValue>, default: bool) -> bool {
    value.as_ref().map_or(default, |v| v.value)
}

/// Refuses the wrapped boolean when it is true: the feature does not exist here.
pub(crate) fn unsupported_if_true(cx: &mut CompileCx<'_>, name: &str, value: &Option<protobuf::BoolValue>) {
    if boolean(value, false) {
        cx.refuse(name, "not supported");
    }
}

/// A known value of an enum.
pub(crate) fn enumeration<E: TryFrom<i32>>(cx: &mut CompileCx<'_>, name: &str, value: i32) -> Compiled<E> {
    E::try_from(value).map_err(|_| cx.refuse(name, format!("unknown enum value {value}")))
}

/// A header value made of configuration text.
pub(crate) fn header_value(cx: &mut CompileCx<'_>, name: &str, value: &str) -> Compiled<HeaderValue> {
    HeaderValue::from_str(value).map_err(|_| cx.refuse(name, "not a valid header value"))
}

/// The message in an `Any`, at the context's present path.
pub(crate) fn unpack<M: Message + Name + Default>(
    cx: &mut CompileCx<'_>,
    any: &protobuf::Any,
) -> Compiled<M> {
    resource::unpack(any).map_err(|e| cx.refuse("", e.to_string()))
}

/// A protobuf message name from a type URL.
pub(crate) fn type_name(any: &protobuf::Any) -> &str {
    resource::message_name(&any.type_url)
}

/// `envoy.config.core.v3.Address`, for listening or connecting.
pub(crate) fn address(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<wire::Address>,
) -> Compiled<Address> {
    use wire::address::Address as Kind;
    let Some(wire::Address { address: Some(kind) }) = value else {
        return Err(cx.refuse(name, "an address is required"));
    };
    cx.field(name, |cx| match kind {
        Kind::SocketAddress(socket) => {
            cx.field("socket_address", |cx| socket_address(cx, socket)).map(Address::Ip)
        }
        Kind::Pipe(pipe) => cx.field("pipe", |cx| {
            let wire::Pipe { path, mode } = pipe;
            unsupported!(cx; mode);
            if path.is_empty() {
                return Err(cx.refuse("path", "value length must be at least 1 characters"));
            }
            // sun_path holds 108 bytes, the last one is NUL.
            if path.len() > 107 {
                return Err(
                    cx.refuse("path", format!("path '{path}' exceeds the maximum length of 107 bytes"))
                );
            }
            Ok(Address::Pipe(Arc::new(PathBuf::from(path))))
        }),
        Kind::EnvoyInternalAddress(_) => Err(cx.refuse("envoy_internal_address", "not supported")),
    })
}

/// `envoy.config.core.v3.SocketAddress`: an IP address and a port number.
pub(crate) fn socket_address(cx: &mut CompileCx<'_>, value: &wire::SocketAddress) -> Compiled<SocketAddr> {
    let (address, port) = host_and_port(cx, value)?;
    let ip = address.parse::<IpAddr>().map_err(|_| {
        cx.refuse("address", format!("malformed IP address: {address} (host names are not resolved)"))
    })?;
    Ok(SocketAddr::new(ip, port))
}

/// `envoy.config.core.v3.Address` of a server that is known by a DNS name, or by its address all the same.
pub(crate) fn named_address(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &Option<wire::Address>,
) -> Compiled<(Arc<str>, u16)> {
    let Some(wire::Address { address: Some(wire::address::Address::SocketAddress(socket)) }) = value else {
        return Err(cx.refuse(name, "a socket address is required"));
    };
    let in_socket_address = |cx: &mut CompileCx<'_>| {
        let (address, port) = host_and_port(cx, socket)?;
        if address.parse::<IpAddr>().is_err() && DnsName::try_from(address).is_err() {
            return Err(cx.refuse("address", format!("'{address}' is neither a DNS name nor an IP address")));
        }
        Ok((address.into(), port))
    };
    cx.field(name, |cx| cx.field("socket_address", in_socket_address))
}

fn host_and_port<'a>(cx: &mut CompileCx<'_>, value: &'a wire::SocketAddress) -> Compiled<(&'a str, u16)> {
    use wire::socket_address::PortSpecifier;
    let wire::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = value;
    unsupported!(cx; resolver_name, ipv4_compat, network_namespace_filepath);
    if *protocol != wire::socket_address::Protocol::Tcp as i32 {
        return Err(cx.refuse("protocol", "only TCP is supported"));
    }
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| cx.refuse("port_value", format!("{port} is not a port: at most 65535")))?,
        Some(PortSpecifier::NamedPort(_)) => return Err(cx.refuse("named_port", "not supported")),
        None => return Err(cx.refuse("port_value", "a port is required")),
    };
    Ok((address, port))
}

/// The bytes of a `DataSource`. The context's path is the data source's. Errors never quote the content.
pub(crate) fn data(cx: &mut CompileCx<'_>, source: &wire::DataSource) -> Compiled<Vec<u8>> {
    use wire::data_source::Specifier;
    let wire::DataSource { watched_directory, specifier } = source;
    unsupported!(cx; watched_directory);
    match specifier {
        Some(Specifier::Filename(path)) => {
            cx.read_file(path).map_err(|e| cx.refuse("filename", format!("cannot read '{path}': {e}")))
        }
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::EnvironmentVariable(name)) => {
            std::env::var(name).map(String::into_bytes).map_err(|_| {
                cx.refuse("environment_variable", format!("environment variable '{name}' does not exist"))
            })
        }
        None => Err(cx.refuse("", "a file name, inline data or an environment variable is required")),
    }
}

/// Seconds-and-count keepalive settings: time before the first probe, time between probes, number of probes.
pub(crate) fn tcp_keepalive(value: &wire::TcpKeepalive) -> (Duration, Duration, u32) {
    let wire::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = value;
    // What is unset is the system's default; Linux: 7200 s, 75 s, 9 probes.
    (
        Duration::from_secs(u32_or(keepalive_time, 7200)),
        Duration::from_secs(u32_or(keepalive_interval, 75)),
        uint32(keepalive_probes, 9),
    )
}

fn u32_or(value: &Option<protobuf::UInt32Value>, default: u32) -> u64 {
    u64::from(uint32(value, default))
}

/// A hash of a message's content. Messages with map fields of two or more entries may hash differently although equal: the
/// price is one needless recompilation.
pub(crate) fn content_hash(parts: &[&[u8]]) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// A `Percent`, of which the fraction does not count.
pub(crate) fn percent(cx: &mut CompileCx<'_>, name: &str, value: f64) -> Compiled<u32> {
    match (0.0..=100.0).contains(&value) {
        true => Ok(value as u32),
        false => Err(cx.refuse(name, "value must be inside range [0, 100]")),
    }
}
