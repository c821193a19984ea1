//! Envoy's bootstrap → what the process needs: who it is, its static resources, where the dynamic ones come from.
//!
//! The same path for a file (`-c FILE`) and for a sidecar, whose bootstrap `sidecar` writes as messages. Runs once, on main.

mod document;
mod overload;
#[cfg(test)]
mod overload_tests;
mod runtime;
pub mod sidecar;
mod sidecar_overload;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use outrigger_xds_api::session::ClientFeatures;
use outrigger_xds_api::wire::bootstrap::v3 as wire;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::core::v3::api_config_source::ApiType;
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::{ResourceType, resource};
use rustc_hash::FxHashSet;

pub use document::{Document, Located};

use crate::access_log::Sink;
use crate::cluster::outlier::EventLog;
use crate::config::compile::cx::{CompileCx, Compiled, ignored, unsupported};
use crate::config::compile::values;
use crate::config::compile::{
    Fetch, Invalid, compile_api_source, compile_bind_config, compile_config_source, compile_dns_resolver,
};
use crate::config::sources::{GrpcSource, Variant};
use crate::net::Address;
use crate::overload::OverloadSettings;

/// A compiled bootstrap.
#[derive(Debug)]
pub struct Bootstrap {
    /// `node`, for the control plane.
    pub node: core::Node,
    /// `admin.address`.
    pub admin: Option<Address>,
    /// `static_resources`, in the order in which they are applied, each with its path.
    pub resources: Vec<StaticResource>,
    /// `dynamic_resources.ads_config`.
    pub ads: Option<GrpcSource>,
    /// `dynamic_resources.cds_config` and `lds_config`, in the order in which they are asked.
    pub(crate) roots: Vec<(ResourceType, Fetch)>,
    /// `cluster_manager`.
    pub cluster_manager: ClusterManager,
    /// `overload_manager`.
    pub overload: OverloadSettings,
}

/// What holds for all clusters.
#[derive(Debug, Default)]
pub struct ClusterManager {
    /// `upstream_bind_config.source_address`.
    pub source_address: Option<IpAddr>,
    /// `outlier_detection.event_log_path`, open.
    pub ejection_log: Option<EventLog>,
    /// `local_cluster_name`: the cluster of all proxies like this one.
    pub local_cluster: Option<Arc<str>>,
}

/// One resource of `static_resources`, encoded.
#[derive(Debug)]
pub struct StaticResource {
    /// Where it stands, `static_resources.clusters[0]`.
    pub path: String,
    /// What it is.
    pub resource_type: ResourceType,
    /// Its content.
    pub resource: Any,
}

/// What the command line says about the node; it wins over the bootstrap.
#[derive(Debug, Clone, Default)]
pub struct NodeFlags {
    /// `--service-node`.
    pub id: Option<String>,
    /// `--service-cluster`.
    pub cluster: Option<String>,
    /// `--service-zone`.
    pub zone: Option<String>,
}

/// Compiles the bootstrap. The messages of its static resources are compiled later, one by one.
///
/// # Errors
/// Everything that is wrong with it.
pub fn compile_bootstrap(
    value: wire::Bootstrap,
    flags: &NodeFlags,
    mut cx: CompileCx<'_>,
) -> Result<Bootstrap, Invalid> {
    let compiled = compile(value, flags, &mut cx);
    cx.finish("bootstrap", "", compiled).map(|(bootstrap, _)| bootstrap)
}

#[allow(deprecated)]
fn compile(value: wire::Bootstrap, flags: &NodeFlags, cx: &mut CompileCx<'_>) -> Compiled<Bootstrap> {
    let wire::Bootstrap {
        node,
        node_context_params,
        static_resources,
        dynamic_resources,
        cluster_manager,
        hds_config,
        flags_path,
        stats_sinks,
        deferred_stat_options,
        stats_config,
        stats_flush_interval,
        watchdog,
        watchdogs,
        tracing,
        layered_runtime,
        admin,
        overload_manager,
        enable_dispatcher_stats,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction,
    } = value;
    unsupported!(cx; node_context_params, hds_config, header_prefix, bootstrap_extensions,
        config_sources, default_config_source, default_socket_interface, certificate_provider_instances,
        default_regex_engine, xds_delegate_extension, xds_config_tracker_extension, listener_manager);
    // Reports to elsewhere, names and intervals of statistics, watchdogs, spans, the log's own format, and tuning of Envoy's
    // insides.
    ignored!(cx; flags_path, stats_sinks, deferred_stat_options, stats_config, stats_flush_interval, watchdog,
        watchdogs, tracing, enable_dispatcher_stats, stats_server_version_override, fatal_actions, inline_headers, perf_tracing_file_path,
        application_log_config, grpc_async_client_manager_config, memory_allocator_manager,
        enable_worker_cpu_affinity, stats_flush, stats_eviction);
    let max_connections = match &layered_runtime {
        Some(layers) => cx.field("layered_runtime", |cx| runtime::check(cx, layers)),
        None => None,
    };
    let overload = match &overload_manager {
        Some(manager) => cx.field("overload_manager", |cx| overload::compile(cx, manager, max_connections)),
        None => Ok(OverloadSettings { max_connections, ..OverloadSettings::default() }),
    };
    let resolver = compile_dns_resolver(
        cx,
        &typed_dns_resolver_config,
        &dns_resolution_config,
        &[],
        use_tcp_for_dns_lookups,
    );
    cx.inputs.resolvers.default = resolver?.unwrap_or_default();
    cx.inputs.static_clusters = static_clusters(static_resources.as_ref());
    let dynamic =
        cx.field("dynamic_resources", |cx| compile_dynamic(cx, dynamic_resources.unwrap_or_default()));
    let cluster_manager =
        cx.field("cluster_manager", |cx| compile_cluster_manager(cx, cluster_manager.unwrap_or_default()));
    let admin = match admin {
        Some(admin) => cx.field("admin", |cx| compile_admin(cx, &admin)),
        None => Ok(None),
    };
    let node = compile_node(cx, node.unwrap_or_default(), flags);
    let dynamic = dynamic?;
    if dynamic.ads.is_some() || !dynamic.roots.is_empty() {
        for (name, value) in [("id", &node.id), ("cluster", &node.cluster)] {
            if value.is_empty() {
                cx.refuse(
                    &format!("node.{name}"),
                    format!(
                        "node '{name}' is required with xDS: set it in the bootstrap or by --service-{}",
                        if name == "id" { "node" } else { "cluster" }
                    ),
                );
            }
        }
    }
    Ok(Bootstrap {
        node,
        admin: admin?,
        resources: static_resource_list(static_resources.unwrap_or_default()),
        ads: dynamic.ads,
        roots: dynamic.roots,
        cluster_manager: cluster_manager?,
        overload: overload?,
    })
}

/// The clusters that need no other cluster.
fn static_clusters(value: Option<&wire::bootstrap::StaticResources>) -> FxHashSet<Arc<str>> {
    let clusters = value.into_iter().flat_map(|resources| &resources.clusters);
    clusters.filter(|cluster| cluster.eds_cluster_config.is_none()).map(|c| c.name.as_str().into()).collect()
}

/// Secrets first: clusters and listeners name them; then clusters: listeners name them.
fn static_resource_list(value: wire::bootstrap::StaticResources) -> Vec<StaticResource> {
    let wire::bootstrap::StaticResources { listeners, clusters, secrets } = value;
    let one = |list: &str, i: usize, resource_type, resource| StaticResource {
        path: format!("static_resources.{list}[{i}]"),
        resource_type,
        resource,
    };
    let secrets = secrets.iter().enumerate();
    let clusters = clusters.iter().enumerate();
    let listeners = listeners.iter().enumerate();
    secrets
        .map(|(i, s)| one("secrets", i, ResourceType::Secret, resource::pack(s)))
        .chain(clusters.map(|(i, c)| one("clusters", i, ResourceType::Cluster, resource::pack(c))))
        .chain(listeners.map(|(i, l)| one("listeners", i, ResourceType::Listener, resource::pack(l))))
        .collect()
}

/// What a control plane may rely on: times to live, and resources with a name and version of their own in either variant.
const FEATURES: [&str; 2] = [ClientFeatures::RESOURCE_TTL, ClientFeatures::RESOURCE_IN_SOTW];

#[allow(deprecated)]
fn compile_node(cx: &mut CompileCx<'_>, node: core::Node, flags: &NodeFlags) -> core::Node {
    let core::Node {
        id,
        cluster,
        metadata,
        dynamic_parameters,
        locality,
        user_agent_name: _,
        extensions,
        client_features,
        listening_addresses,
        user_agent_version_type: _,
    } = node;
    cx.field("node", |cx| {
        unsupported!(cx; dynamic_parameters);
        ignored!(cx; listening_addresses);
    });
    let mut locality = locality;
    if let Some(zone) = &flags.zone {
        locality.get_or_insert_default().zone = zone.clone();
    }
    core::Node {
        id: flags.id.clone().unwrap_or(id),
        cluster: flags.cluster.clone().unwrap_or(cluster),
        metadata,
        locality,
        user_agent_name: "outrigger-proxy".to_owned(),
        user_agent_version_type: Some(core::node::UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        extensions,
        client_features: client_features.into_iter().chain(FEATURES.map(str::to_owned)).collect(),
        ..core::Node::default()
    }
}

/// `dynamic_resources`.
#[derive(Debug)]
struct Dynamic {
    ads: Option<GrpcSource>,
    roots: Vec<(ResourceType, Fetch)>,
}

fn compile_dynamic(cx: &mut CompileCx<'_>, value: wire::bootstrap::DynamicResources) -> Compiled<Dynamic> {
    let wire::bootstrap::DynamicResources {
        lds_config,
        lds_resources_locator,
        cds_config,
        cds_resources_locator,
        ads_config,
    } = value;
    unsupported!(cx; lds_resources_locator, cds_resources_locator);
    let variants = [(ApiType::Grpc, Variant::StateOfTheWorld), (ApiType::DeltaGrpc, Variant::Delta)];
    let ads = match &ads_config {
        Some(ads) => Some(cx.field("ads_config", |cx| compile_api_source(cx, ads, &variants))?),
        None => None,
    };
    cx.inputs.ads = ads.as_ref().map(|ads| ads.variant);
    cx.inputs.has_cds = cds_config.is_some();
    let sources = [
        (ResourceType::Cluster, "cds_config", &cds_config),
        (ResourceType::Listener, "lds_config", &lds_config),
    ];
    let roots = sources
        .into_iter()
        .filter(|(_, _, config)| config.is_some())
        .map(|(resource_type, name, config)| Ok((resource_type, compile_config_source(cx, name, config)?)))
        .collect::<Vec<Compiled<_>>>();
    Ok(Dynamic { ads, roots: roots.into_iter().collect::<Compiled<_>>()? })
}

fn compile_cluster_manager(cx: &mut CompileCx<'_>, value: wire::ClusterManager) -> Compiled<ClusterManager> {
    let wire::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation,
    } = value;
    // Load reports go elsewhere; clusters are cheap to create.
    unsupported!(cx; load_stats_config);
    ignored!(cx; enable_deferred_cluster_creation);
    let source_address = match &upstream_bind_config {
        Some(bind) => cx.field("upstream_bind_config", |cx| compile_bind_config(cx, bind)),
        None => Ok(None),
    };
    let ejection_log = match &outlier_detection {
        Some(value) => cx.field("outlier_detection", |cx| compile_ejection_log(cx, value)),
        None => Ok(None),
    };
    let local_cluster = (!local_cluster_name.is_empty()).then(|| local_cluster_name.into());
    Ok(ClusterManager { source_address: source_address?, ejection_log: ejection_log?, local_cluster })
}

fn compile_ejection_log(
    cx: &mut CompileCx<'_>,
    value: &wire::cluster_manager::OutlierDetection,
) -> Compiled<Option<EventLog>> {
    let wire::cluster_manager::OutlierDetection { event_log_path, event_service } = value;
    unsupported!(cx; event_service);
    if event_log_path.is_empty() {
        return Ok(None);
    }
    let file = cx.inputs.log_files.open(Sink::path(event_log_path));
    let file = file.map_err(|error| cx.refuse("event_log_path", error))?;
    Ok(Some(EventLog::new(move |lines| file.write(lines))))
}

#[allow(deprecated)]
fn compile_admin(cx: &mut CompileCx<'_>, value: &wire::Admin) -> Compiled<Option<Address>> {
    let wire::Admin {
        access_log,
        access_log_path,
        profile_path,
        address,
        socket_options,
        ignore_global_conn_limit,
        allow_paths,
    } = value;
    unsupported!(cx; socket_options, allow_paths);
    ignored!(cx; access_log, access_log_path, profile_path, ignore_global_conn_limit);
    if address.is_none() {
        return Ok(None);
    }
    values::address(cx, "address", address).map(Some)
}
