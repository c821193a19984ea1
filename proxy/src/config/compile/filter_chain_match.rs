//! `FilterChainMatch`.

use ipnet::IpNet;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::listener::v3 as wire;

use super::cx::{CompileCx, Compiled, unsupported};
use super::values;
use crate::listener::{FilterChainMatch, SourceType};

/// Compiles the criteria of a chain, at the context's present path.
pub(super) fn compile_match(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::FilterChainMatch>,
) -> Compiled<FilterChainMatch> {
    use wire::filter_chain_match::ConnectionSourceType;
    let Some(value) = value else { return Ok(FilterChainMatch::default()) };
    let wire::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = value;
    unsupported!(cx; address_suffix, suffix_len);
    let destination_port = match destination_port {
        Some(port) => Some(port_number(cx, "destination_port", port.value)?),
        None => None,
    };
    let source_ports = source_ports
        .iter()
        .enumerate()
        .map(|(i, port)| port_number(cx, &format!("source_ports[{i}]"), *port))
        .collect::<Compiled<Vec<u16>>>();
    let server_names = cx.each("server_names", server_names, |name, cx| {
        // Envoy: a wildcard only as the whole first label.
        if name.is_empty() || name.strip_prefix("*.").unwrap_or(name).contains('*') {
            return Err(
                cx.refuse("", format!("partial wildcards are not supported in \"server_names\": '{name}'"))
            );
        }
        Ok(name.as_str().into())
    });
    let prefix_ranges = cx.each("prefix_ranges", prefix_ranges, compile_cidr);
    let direct = cx.each("direct_source_prefix_ranges", direct_source_prefix_ranges, compile_cidr);
    let source = cx.each("source_prefix_ranges", source_prefix_ranges, compile_cidr);
    Ok(FilterChainMatch {
        destination_port,
        prefix_ranges: prefix_ranges?,
        server_names: server_names?,
        transport_protocol: transport_protocol.as_str().into(),
        application_protocols: application_protocols.iter().map(|p| p.as_str().into()).collect(),
        direct_source_prefix_ranges: direct?,
        source_type: match values::enumeration(cx, "source_type", *source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefix_ranges: source?,
        source_ports: source_ports?,
    })
}

fn port_number(cx: &mut CompileCx<'_>, name: &str, port: u32) -> Compiled<u16> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| cx.refuse(name, "value must be inside range [1, 65535]"))
}

/// `CidrRange`: an unset length means 0, as in Envoy.
pub(crate) fn compile_cidr(value: &core::CidrRange, cx: &mut CompileCx<'_>) -> Compiled<IpNet> {
    let core::CidrRange { address_prefix, prefix_len } = value;
    let ip = address_prefix
        .parse()
        .map_err(|_| cx.refuse("address_prefix", format!("malformed IP address: {address_prefix}")))?;
    let len = values::uint32(prefix_len, 0);
    u8::try_from(len)
        .ok()
        .and_then(|len| IpNet::new(ip, len).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| cx.refuse("prefix_len", format!("{len} is too long for {address_prefix}")))
}
