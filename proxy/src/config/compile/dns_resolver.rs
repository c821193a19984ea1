//! Which DNS servers are asked, and how: `typed_dns_resolver_config` and the older fields that it replaces, of a cluster and of the
//! bootstrap.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use outrigger_xds_api::wire::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;
use prost::Name;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::values;
use crate::net::ResolverSettings;

/// The fields, of which the first that is set counts; `None`: none is, and the default of the process counts.
pub(crate) fn compile_dns_resolver(
    cx: &mut CompileCx<'_>,
    typed: &Option<core::TypedExtensionConfig>,
    resolution: &Option<core::DnsResolutionConfig>,
    servers: &[core::Address],
    use_tcp: bool,
) -> Compiled<Option<ResolverSettings>> {
    if let Some(typed) = typed {
        return cx.field("typed_dns_resolver_config", |cx| compile_typed_dns_resolver(cx, typed)).map(Some);
    }
    if let Some(core::DnsResolutionConfig { resolvers, dns_resolver_options }) = resolution {
        let settings = cx.field("dns_resolution_config", |cx| {
            let servers = compile_servers(cx, "resolvers", resolvers)?;
            Ok(ResolverSettings { servers, ..options(dns_resolver_options) })
        });
        return settings.map(Some);
    }
    let servers = compile_servers(cx, "dns_resolvers", servers)?;
    let is_set = use_tcp || !servers.is_empty();
    Ok(is_set.then(|| ResolverSettings { servers, use_tcp, ..ResolverSettings::default() }))
}

/// A `typed_dns_resolver_config`, at the context's present path.
pub(super) fn compile_typed_dns_resolver(
    cx: &mut CompileCx<'_>,
    value: &core::TypedExtensionConfig,
) -> Compiled<ResolverSettings> {
    let core::TypedExtensionConfig { name, typed_config } = value;
    let Some(any) = typed_config else { return Err(cx.refuse("typed_config", "value is required")) };
    cx.field("typed_config", |cx| match values::type_name(any) {
        kind if kind == CaresDnsResolverConfig::full_name() => {
            let config = values::unpack(cx, any)?;
            compile_cares(cx, &config)
        }
        kind if kind == GetAddrInfoDnsResolverConfig::full_name() => {
            let GetAddrInfoDnsResolverConfig { num_retries, num_resolver_threads } = values::unpack(cx, any)?;
            // The system's files are read, not its library called: they say how often a server is asked.
            ignored!(cx; num_retries, num_resolver_threads);
            Ok(ResolverSettings::default())
        }
        _ => Err(cx.refuse("", format!("the DNS resolver '{name}' is not supported"))),
    })
}

fn compile_cares(cx: &mut CompileCx<'_>, value: &CaresDnsResolverConfig) -> Compiled<ResolverSettings> {
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration,
        reinit_channel_on_timeout,
        qcache_max_ttl,
    } = value;
    unsupported!(cx; filter_unroutable_families);
    // Each look-up has its own sockets, and nothing is cached.
    ignored!(cx; udp_max_queries, rotate_nameservers, edns0_max_payload_size, max_udp_channel_duration,
        reinit_channel_on_timeout, qcache_max_ttl);
    Ok(ResolverSettings {
        servers: compile_servers(cx, "resolvers", resolvers)?,
        as_fallback: *use_resolvers_as_fallback,
        query_timeout: query_timeout_seconds.as_ref().map(|seconds| Duration::from_secs(seconds.value)),
        query_tries: query_tries.as_ref().map(|tries| tries.value),
        ..options(dns_resolver_options)
    })
}

fn options(value: &Option<core::DnsResolverOptions>) -> ResolverSettings {
    let core::DnsResolverOptions { use_tcp_for_dns_lookups, no_default_search_domain } =
        value.unwrap_or_default();
    ResolverSettings {
        use_tcp: use_tcp_for_dns_lookups,
        no_search: no_default_search_domain,
        ..ResolverSettings::default()
    }
}

fn compile_servers(
    cx: &mut CompileCx<'_>,
    name: &str,
    servers: &[core::Address],
) -> Compiled<Vec<SocketAddr>> {
    cx.each(name, servers, |server, cx| match &server.address {
        Some(core::address::Address::SocketAddress(at)) => {
            // DNS is asked over UDP, whatever the message says: TCP is its default.
            let at =
                core::SocketAddress { protocol: core::socket_address::Protocol::Tcp as i32, ..at.clone() };
            cx.field("socket_address", |cx| values::socket_address(cx, &at))
        }
        _ => Err(cx.refuse("", "a DNS server must have an IP address")),
    })
}
