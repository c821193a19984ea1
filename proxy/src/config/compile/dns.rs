//! `STRICT_DNS` and `LOGICAL_DNS` clusters, and the extension `envoy.cluster.dns` that says the same.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3 as wire;
use outrigger_xds_api::wire::extensions::clusters::common::dns::v3::DnsLookupFamily;
use outrigger_xds_api::wire::extensions::clusters::dns::v3::{DnsCluster, dns_cluster::RefreshRate};
use prost::Name;

use super::cluster::{CompiledCluster, Discovery};
use super::cx::{CompileCx, Compiled};
use super::dns_resolver::compile_dns_resolver;
use super::endpoint::compile_dns_endpoints;
use super::values;
use crate::config::dns::{DnsDiscovery, DnsSettings, Refresh};
use crate::net::{LookupFamily, Resolver, ResolverSettings};
use crate::stats::ClusterStats;

/// Envoy's default of `dns_refresh_rate`.
const REFRESH_RATE: Duration = Duration::from_secs(5);
/// How many times its base the interval between failures grows to.
const MAX_FAILURE_FACTOR: u32 = 10;

/// How the names of a cluster are looked up, and what becomes of the answers.
#[derive(Debug)]
pub(super) struct Lookup {
    is_logical: bool,
    family: LookupFamily,
    resolver: Arc<Resolver>,
    refresh: Refresh,
}

/// The fields of a cluster of type `STRICT_DNS` or `LOGICAL_DNS`.
pub(super) fn compile_dns_fields(
    cx: &mut CompileCx<'_>,
    value: &wire::Cluster,
    is_logical: bool,
) -> Compiled<Lookup> {
    use wire::cluster::DnsLookupFamily as Wire;
    let family = match values::enumeration(cx, "dns_lookup_family", value.dns_lookup_family)? {
        Wire::Auto => DnsLookupFamily::Auto,
        Wire::V4Only => DnsLookupFamily::V4Only,
        Wire::V6Only => DnsLookupFamily::V6Only,
        Wire::V4Preferred => DnsLookupFamily::V4Preferred,
        Wire::All => DnsLookupFamily::All,
    };
    let failure = value.dns_failure_refresh_rate.as_ref();
    let message = DnsCluster {
        dns_refresh_rate: value.dns_refresh_rate,
        dns_failure_refresh_rate: failure
            .map(|rate| RefreshRate { base_interval: rate.base_interval, max_interval: rate.max_interval }),
        respect_dns_ttl: value.respect_dns_ttl,
        dns_jitter: value.dns_jitter,
        dns_lookup_family: family as i32,
        all_addresses_in_single_endpoint: is_logical,
        ..DnsCluster::default()
    };
    let resolver = compile_dns_resolver(
        cx,
        &value.typed_dns_resolver_config,
        &value.dns_resolution_config,
        &value.dns_resolvers,
        value.use_tcp_for_dns_lookups,
    );
    compile_lookup(cx, &message, resolver)
}

/// A `cluster_type`, at the context's present path: the extension that says the same in its own message.
pub(super) fn compile_cluster_type(
    cx: &mut CompileCx<'_>,
    value: &wire::cluster::CustomClusterType,
) -> Compiled<Lookup> {
    let wire::cluster::CustomClusterType { name, typed_config } = value;
    match typed_config {
        Some(any) if values::type_name(any) == DnsCluster::full_name() => cx.field("typed_config", |cx| {
            let message: DnsCluster = values::unpack(cx, any)?;
            let resolver = compile_dns_resolver(cx, &message.typed_dns_resolver_config, &None, &[], false);
            compile_lookup(cx, &message, resolver)
        }),
        _ => Err(cx.refuse("name", format!("the cluster type '{name}' is not supported"))),
    }
}

/// Where such a cluster has its hosts from.
pub(super) fn compile_dns_discovery(
    cx: &mut CompileCx<'_>,
    value: &wire::Cluster,
    lookup: Lookup,
    stats: &Arc<ClusterStats>,
    previous: Option<&CompiledCluster>,
) -> Compiled<Discovery> {
    let Lookup { is_logical, family, resolver, refresh } = lookup;
    let assignment = value.load_assignment.clone().unwrap_or_default();
    let (mut endpoints, overprovisioning_percent) =
        cx.field("load_assignment", |cx| compile_dns_endpoints(&assignment, cx))?;
    if is_logical {
        if assignment.endpoints.len() != 1 || endpoints.len() != 1 {
            let reason =
                "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint";
            return Err(cx.refuse("load_assignment", reason));
        }
        endpoints.iter_mut().for_each(|endpoint| endpoint.host.priority = 0);
    }
    let settings = DnsSettings {
        endpoints,
        overprovisioning_percent,
        is_logical,
        family,
        resolver,
        refresh,
        waits: values::boolean(&value.wait_for_warm_on_init, true),
    };
    let previous = match previous.map(|previous| &previous.discovery) {
        Some(Discovery::Dns(previous)) => Some(previous),
        _ => None,
    };
    Ok(Discovery::Dns(DnsDiscovery::new(settings, stats.clone(), previous)))
}

fn compile_lookup(
    cx: &mut CompileCx<'_>,
    value: &DnsCluster,
    resolver: Compiled<Option<ResolverSettings>>,
) -> Compiled<Lookup> {
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config: _,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = value;
    let family = match values::enumeration(cx, "dns_lookup_family", *dns_lookup_family)? {
        DnsLookupFamily::Unspecified | DnsLookupFamily::Auto => LookupFamily::Auto,
        DnsLookupFamily::V4Only => LookupFamily::V4Only,
        DnsLookupFamily::V6Only => LookupFamily::V6Only,
        DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
        DnsLookupFamily::All => LookupFamily::All,
    };
    let failure = match dns_failure_refresh_rate {
        Some(rate) => cx.field("dns_failure_refresh_rate", |cx| compile_failure_rate(cx, rate))?,
        None => None,
    };
    let mut duration = |name, value| values::duration(cx, name, value);
    let refresh = Refresh {
        rate: duration("dns_refresh_rate", dns_refresh_rate).unwrap_or(REFRESH_RATE),
        respects_ttl: *respect_dns_ttl,
        min_ttl: duration("dns_min_refresh_rate", dns_min_refresh_rate).unwrap_or_default(),
        jitter: duration("dns_jitter", dns_jitter).unwrap_or_default(),
        failure,
    };
    let resolver = cx.inputs.resolvers.get(resolver?);
    Ok(Lookup { is_logical: *all_addresses_in_single_endpoint, family, resolver, refresh })
}

/// The first and the longest interval. That there is a first one is a validation rule.
fn compile_failure_rate(
    cx: &mut CompileCx<'_>,
    value: &RefreshRate,
) -> Compiled<Option<(Duration, Duration)>> {
    let RefreshRate { base_interval, max_interval } = value;
    let Some(base) = values::duration(cx, "base_interval", base_interval) else { return Ok(None) };
    let max = values::duration(cx, "max_interval", max_interval).unwrap_or(base * MAX_FAILURE_FACTOR);
    if max < base {
        return Err(cx.refuse("max_interval", "must be greater than or equal to the base_interval"));
    }
    Ok(Some((base, max)))
}
