//! `envoy.config.core.v3.ConfigSource`: where a dynamic resource comes from.

use std::time::Duration;

use outrigger_xds_api::wire::core::v3 as wire;
use outrigger_xds_api::wire::core::v3::api_config_source::ApiType;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::values;

/// How long a first answer is waited for by default (`initial_fetch_timeout`).
pub(crate) const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// The cluster name under which resources ask for the workload's own secrets.
pub(crate) const SDS_CLUSTER: &str = "sds-grpc";

/// Where a dynamic resource comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The one ADS stream.
    Ads,
    /// The workload's own identity, served in process under the cluster name `sds-grpc`.
    Identity,
}

/// Compiles the config source in the field `name`.
pub(crate) fn compile_config_source(
    cx: &mut CompileCx<'_>,
    name: &str,
    source: &Option<wire::ConfigSource>,
) -> Compiled<Source> {
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
        if let Some(timeout) = values::duration(cx, "initial_fetch_timeout", initial_fetch_timeout)
            && timeout != INITIAL_FETCH_TIMEOUT
        {
            // One deadline for all resources: 15 s, Envoy's default.
            cx.ignored("initial_fetch_timeout");
        }
        match config_source_specifier {
            Some(ConfigSourceSpecifier::Ads(wire::AggregatedConfigSource {})) => {
                if !cx.inputs.has_ads {
                    return Err(cx.refuse("ads", "the bootstrap has no dynamic_resources.ads_config"));
                }
                Ok(Source::Ads)
            }
            // xDS federation's "where this came from": everything dynamic comes from ADS here.
            Some(ConfigSourceSpecifier::Self_(wire::SelfConfigSource { transport_api_version })) => {
                resource_version(cx, "self.transport_api_version", *transport_api_version);
                if cx.is_static || !cx.inputs.has_ads {
                    return Err(cx.refuse("self", "only a resource that came over ADS can use it"));
                }
                Ok(Source::Ads)
            }
            Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
                cx.field("api_config_source", |cx| identity_source(cx, api))
            }
            Some(ConfigSourceSpecifier::Path(_)) => Err(cx.refuse("path", "not supported, use ads")),
            Some(ConfigSourceSpecifier::PathConfigSource(_)) => {
                Err(cx.refuse("path_config_source", "not supported, use ads"))
            }
            None => Err(cx.refuse("", "one of ads, api_config_source or self is required")),
        }
    })
}

/// A gRPC source of its own is only known for the identity cluster.
fn identity_source(cx: &mut CompileCx<'_>, api: &wire::ApiConfigSource) -> Compiled<Source> {
    let accepted = [ApiType::Grpc, ApiType::DeltaGrpc];
    let cluster = api_source_cluster(cx, api, &accepted, "only GRPC and DELTA_GRPC are supported")?;
    if cluster == SDS_CLUSTER && cx.inputs.has_identity {
        return Ok(Source::Identity);
    }
    Err(cx.refuse(
        "grpc_services[0].envoy_grpc.cluster_name",
        format!(
            "'{cluster}' is not supported as a source of its own: use ads, or '{}' in a sidecar",
            SDS_CLUSTER
        ),
    ))
}

/// The cluster that an `ApiConfigSource` asks over gRPC. Another type than these is refused in the words of `otherwise`.
pub(crate) fn api_source_cluster<'m>(
    cx: &mut CompileCx<'_>,
    api: &'m wire::ApiConfigSource,
    accepted: &[ApiType],
    otherwise: &str,
) -> Compiled<&'m str> {
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
    ignored!(cx; refresh_delay, request_timeout, rate_limit_settings);
    // On ADS the node goes in the first message of each resource type on a stream, and only there; in process there are no messages.
    informational!(set_node_on_first_message_only);
    resource_version(cx, "transport_api_version", *transport_api_version);
    if !accepted.iter().any(|accepted| *accepted as i32 == *api_type) {
        cx.refuse("api_type", otherwise);
    }
    match grpc_services.as_slice() {
        [service] => cx.item("grpc_services", 0, |cx| grpc_cluster(cx, service)),
        _ => Err(cx.refuse("grpc_services", "exactly one is required")),
    }
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
