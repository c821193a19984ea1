//! `envoy.config.core.v3.ConfigSource`: where a dynamic resource comes from.

use std::time::Duration;

use outrigger_xds_api::wire::core::v3 as wire;
use outrigger_xds_api::wire::core::v3::api_config_source::ApiType;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::values;
use crate::config::sources::{FileSource, FileTrigger, GrpcSource, SourceId, SourceSpec, Variant};

/// How long a first answer is waited for by default (`initial_fetch_timeout`).
pub(crate) const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// The cluster name under which resources ask for the workload's own secrets.
pub(crate) const SDS_CLUSTER: &str = "sds-grpc";

/// `initial_fetch_timeout: 0s`.
const FOREVER: Duration = Duration::MAX;

/// Where a dynamic resource comes from, and how long its first version is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) source: SourceId,
    /// `initial_fetch_timeout`; [`Duration::MAX`] for ever.
    pub(crate) timeout: Duration,
}

/// Compiles the config source in the field `name`.
pub(crate) fn compile_config_source(
    cx: &mut CompileCx<'_>,
    name: &str,
    source: &Option<wire::ConfigSource>,
) -> Compiled<Fetch> {
    use wire::config_source::ConfigSourceSpecifier;
    let Some(source) = source else {
        return Err(cx.refuse(name, "a config source is required"));
    };
    cx.field(name, |cx| {
        let wire::ConfigSource {
            authorities,
            initial_fetch_timeout,
            resource_api_version,
            config_source_specifier,
        } = source;
        unsupported!(cx; authorities);
        resource_version(cx, "resource_api_version", *resource_api_version);
        let timeout = values::duration(cx, "initial_fetch_timeout", initial_fetch_timeout);
        let timeout = match timeout.unwrap_or(INITIAL_FETCH_TIMEOUT) {
            Duration::ZERO => FOREVER,
            timeout => timeout,
        };
        let source = match config_source_specifier {
            Some(ConfigSourceSpecifier::Ads(wire::AggregatedConfigSource {})) => {
                if cx.inputs.ads.is_none() {
                    return Err(cx.refuse("ads", "the bootstrap has no dynamic_resources.ads_config"));
                }
                SourceId::ADS
            }
            // xDS federation's "where this came from".
            Some(ConfigSourceSpecifier::Self_(wire::SelfConfigSource { transport_api_version })) => {
                resource_version(cx, "self.transport_api_version", *transport_api_version);
                if cx.is_static || cx.inputs.ads.is_none() {
                    return Err(cx.refuse("self", "only a resource that came over ADS can use it"));
                }
                SourceId::ADS
            }
            Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
                let grpc = cx.field("api_config_source", |cx| compile_grpc_source(cx, api))?;
                cx.inputs.sources.id(SourceSpec::Grpc(grpc))
            }
            Some(ConfigSourceSpecifier::Path(path)) => {
                let file = wire::PathConfigSource { path: path.clone(), ..Default::default() };
                compile_file_source(cx, &file)?
            }
            Some(ConfigSourceSpecifier::PathConfigSource(file)) => {
                cx.field("path_config_source", |cx| compile_file_source(cx, file))?
            }
            None => {
                return Err(
                    cx.refuse("", "one of ads, api_config_source, path_config_source or self is required")
                );
            }
        };
        Ok(Fetch { source, timeout })
    })
}

/// Whether the source can be asked for one more name at any time, and says when it does not have it.
pub(crate) fn is_incremental(cx: &CompileCx<'_>, fetch: Fetch) -> bool {
    let variant = match cx.inputs.sources.spec(fetch.source) {
        SourceSpec::Ads => cx.inputs.ads,
        SourceSpec::Grpc(grpc) => Some(grpc.variant),
        SourceSpec::Static | SourceSpec::File(_) => None,
    };
    variant == Some(Variant::Delta)
}

/// Whether this asks for the workload's own secrets, which are served in process.
pub(crate) fn is_identity(cx: &CompileCx<'_>, fetch: Fetch) -> bool {
    let spec = cx.inputs.sources.spec(fetch.source);
    cx.inputs.has_identity && matches!(spec, SourceSpec::Grpc(grpc) if *grpc.cluster == *SDS_CLUSTER)
}

fn compile_file_source(cx: &mut CompileCx<'_>, file: &wire::PathConfigSource) -> Compiled<SourceId> {
    let wire::PathConfigSource { path, watched_directory, poll_interval } = file;
    if path.is_empty() {
        return Err(cx.refuse("path", "value length must be at least 1 characters"));
    }
    if matches!(cx.read_file(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        let reason = format!("paths must refer to an existing path in the system: '{path}' does not exist");
        return Err(cx.refuse("path", reason));
    }
    let interval = values::duration(cx, "poll_interval", poll_interval);
    let trigger = match (watched_directory, interval) {
        (None, None) => FileTrigger::Moved,
        (None, Some(interval)) if interval.is_zero() => {
            return Err(cx.refuse("poll_interval", "value must be greater than 0s"));
        }
        (None, Some(interval)) => FileTrigger::Every(interval),
        (Some(_), Some(_)) => {
            return Err(cx.refuse("poll_interval", "poll_interval and watched_directory cannot both be set"));
        }
        (Some(wire::WatchedDirectory { path, watch_modify }), None) if !path.is_empty() => {
            FileTrigger::Directory { path: path.as_str().into(), on_write: *watch_modify }
        }
        (Some(_), None) => {
            return Err(cx.refuse("watched_directory.path", "value length must be at least 1 characters"));
        }
    };
    Ok(cx.inputs.sources.id(SourceSpec::File(FileSource { path: path.as_str().into(), trigger })))
}

/// A stream for each resource type. The cluster must be static, as in Envoy: it is needed before there is any other.
fn compile_grpc_source(cx: &mut CompileCx<'_>, api: &wire::ApiConfigSource) -> Compiled<GrpcSource> {
    let variants = [(ApiType::Grpc, Variant::StateOfTheWorld), (ApiType::DeltaGrpc, Variant::Delta)];
    let grpc = compile_api_source(cx, api, &variants)?;
    let is_identity = cx.inputs.has_identity && *grpc.cluster == *SDS_CLUSTER;
    if !is_identity && !cx.inputs.static_clusters.contains(&grpc.cluster) {
        let reason = format!(
            "must have a statically defined non-EDS cluster: '{}' does not exist, was added via api, or is an EDS cluster",
            grpc.cluster
        );
        return Err(cx.refuse("grpc_services[0].envoy_grpc.cluster_name", reason));
    }
    Ok(grpc)
}

/// An `ApiConfigSource` over gRPC, of one of these types.
pub(crate) fn compile_api_source(
    cx: &mut CompileCx<'_>,
    api: &wire::ApiConfigSource,
    variants: &[(ApiType, Variant)],
) -> Compiled<GrpcSource> {
    let wire::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = api;
    unsupported!(cx; cluster_names, config_validators);
    // Polling is for REST; a slow control plane is no reason to ask it less than it needs to be asked.
    ignored!(cx; refresh_delay, request_timeout, rate_limit_settings);
    resource_version(cx, "transport_api_version", *transport_api_version);
    let variant = variants.iter().find(|(accepted, _)| *accepted as i32 == *api_type);
    if variant.is_none() {
        let names: Vec<&str> = variants.iter().map(|(accepted, _)| accepted.as_str_name()).collect();
        cx.refuse("api_type", format!("only {} are supported", names.join(" and ")));
    }
    // Goes on with any, to find what else is wrong.
    let variant = variant.map_or(Variant::Delta, |(_, variant)| *variant);
    let cluster = match grpc_services.as_slice() {
        [service] => cx.item("grpc_services", 0, |cx| grpc_cluster(cx, service))?,
        _ => return Err(cx.refuse("grpc_services", "exactly one is required")),
    };
    Ok(GrpcSource { cluster: cluster.into(), variant, node_once: *set_node_on_first_message_only })
}

/// The cluster of a `GrpcService`.
fn grpc_cluster<'m>(cx: &mut CompileCx<'_>, service: &'m wire::GrpcService) -> Compiled<&'m str> {
    use wire::grpc_service::TargetSpecifier;
    let wire::GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = service;
    unsupported!(cx; initial_metadata, retry_policy);
    ignored!(cx; timeout);
    match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => cx.field("envoy_grpc", |cx| {
            let wire::grpc_service::EnvoyGrpc {
                cluster_name,
                authority,
                retry_policy,
                max_receive_message_length,
                skip_envoy_headers,
            } = grpc;
            unsupported!(cx; authority, retry_policy);
            ignored!(cx; max_receive_message_length, skip_envoy_headers);
            if cluster_name.is_empty() {
                return Err(cx.refuse("cluster_name", "value length must be at least 1 characters"));
            }
            Ok(cluster_name.as_str())
        }),
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            Err(cx.refuse("google_grpc", "not supported, use envoy_grpc"))
        }
        None => Err(cx.refuse("", "envoy_grpc is required")),
    }
}

/// AUTO and V3 mean version 3; version 2 is gone.
pub(crate) fn resource_version(cx: &mut CompileCx<'_>, name: &str, version: i32) {
    if !matches!(wire::ApiVersion::try_from(version), Ok(wire::ApiVersion::Auto | wire::ApiVersion::V3)) {
        cx.refuse(name, "only V3 is supported");
    }
}
