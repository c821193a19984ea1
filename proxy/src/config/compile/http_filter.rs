//! `http_filters`: the registry of HTTP filters, by the type of their configuration, and what routes say to them.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::extensions::filters::http as wire;
use outrigger_xds_api::wire::http_connection_manager::v3::{self as hcm, http_filter::ConfigType};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::route::v3::FilterConfig;
use outrigger_xds_api::wire::router::v3::Router;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::filter_local_rate_limit::compile_local_rate_limit;
use super::rate_limit::Place;
use super::source::compile_config_source;
use super::{
    filter_cors, filter_fault, filter_grpc_stats, filter_header_mutation, filter_health_check,
    filter_on_demand, values,
};
use crate::http::filters::{
    Buffer, DiscoveredFilter, FilterChain, HttpFilter, Override, Overrides, Slot, SlotFilter,
};

/// A compiled entry of `http_filters`.
enum Entry {
    Filter(HttpFilter),
    /// Its configuration comes from a source.
    Discovered(Arc<DiscoveredFilter>),
    /// The router, with its options.
    Router(Box<Router>),
    /// Not known, and optional.
    LeftOut,
}

/// Compiles `http_filters`: the chain, and the router's options.
pub(crate) fn compile_http_filters(
    cx: &mut CompileCx<'_>,
    filters: &[hcm::HttpFilter],
) -> Compiled<(FilterChain, Box<Router>)> {
    let entries = cx.each("http_filters", filters, compile_entry)?;
    let last = entries.len().checked_sub(1);
    let mut slots = Vec::new();
    let mut router = None;
    for (at, (filter, entry)) in filters.iter().zip(entries).enumerate() {
        match entry {
            Entry::Filter(compiled) => slots.push(slot(filter, SlotFilter::Configured(compiled))),
            Entry::Discovered(compiled) => slots.push(slot(filter, SlotFilter::Discovered(compiled))),
            Entry::Router(options) if Some(at) == last => router = Some(options),
            Entry::Router(_) => {
                return Err(cx.refuse(
                    "http_filters",
                    "envoy.filters.http.router must be the terminal filter and occur once",
                ));
            }
            Entry::LeftOut => {}
        }
    }
    match router {
        Some(options) => Ok((FilterChain::new(slots), options)),
        None => Err(cx.refuse("http_filters", "the list must end with envoy.filters.http.router")),
    }
}

fn slot(value: &hcm::HttpFilter, filter: SlotFilter) -> Slot {
    Slot { name: value.name.as_str().into(), disabled: value.disabled, filter }
}

fn compile_entry(filter: &hcm::HttpFilter, cx: &mut CompileCx<'_>) -> Compiled<Entry> {
    let hcm::HttpFilter { name, is_optional, disabled, config_type } = filter;
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(source)) => {
            let compile = |cx: &mut CompileCx<'_>| compile_discovery(cx, name, source);
            return cx.field("config_discovery", compile).map(Entry::Discovered);
        }
        None => return Err(cx.refuse("typed_config", format!("http filter '{name}' has no typed_config"))),
    };
    let compiled = cx.field("typed_config", |cx| compile_filter(cx, any, *is_optional))?;
    if *disabled && matches!(compiled, Entry::Router(_)) {
        return Err(cx.refuse("disabled", "the terminal filter cannot be disabled"));
    }
    Ok(compiled)
}

/// Compiles `config_discovery`. The chain waits for what comes under the filter's name, unless its default is to be good enough.
fn compile_discovery(
    cx: &mut CompileCx<'_>,
    name: &str,
    value: &core::ExtensionConfigSource,
) -> Compiled<Arc<DiscoveredFilter>> {
    let core::ExtensionConfigSource {
        config_source,
        default_config,
        apply_default_config_without_warming,
        type_urls,
    } = value;
    let fetch = compile_config_source(cx, "config_source", config_source)?;
    let accepts: Box<[Box<str>]> =
        type_urls.iter().map(|url| outrigger_xds_api::resource::message_name(url).into()).collect();
    let default = match default_config {
        Some(any) => {
            let message = values::type_name(any);
            if !accepts.iter().any(|accepted| **accepted == *message) {
                let expected = accepts.join(", ");
                return Err(cx.refuse(
                    "default_config.@type",
                    format!("filter config has type URL {message} but expect {expected}"),
                ));
            }
            Some(cx.field("default_config", |cx| compile_discovered(cx, any))?)
        }
        None if *apply_default_config_without_warming => {
            return Err(cx.refuse(
                "apply_default_config_without_warming",
                format!("filter config {name} applied without warming but has no default config"),
            ));
        }
        None => None,
    };
    let watch = cx.inputs.watches.watch(fetch.source, ResourceType::ExtensionConfig, name);
    if !apply_default_config_without_warming {
        cx.watch(ResourceType::ExtensionConfig, fetch, name);
    }
    let filter = Arc::new(DiscoveredFilter::new(accepts, default, watch));
    cx.inputs.registry.extensions.of_mut(fetch.source).follow(name, &filter);
    Ok(filter)
}

/// Compiles a `TypedExtensionConfig` of ECDS: the filter, and the message that it is configured by.
pub fn compile_extension(
    value: &core::TypedExtensionConfig,
    cx: &mut CompileCx<'_>,
) -> Compiled<(Arc<HttpFilter>, Box<str>)> {
    let core::TypedExtensionConfig { name: _, typed_config } = value;
    let Some(any) = typed_config else { return Err(cx.refuse("typed_config", "value is required")) };
    let filter = cx.field("typed_config", |cx| compile_discovered(cx, any))?;
    Ok((filter, values::type_name(any).into()))
}

fn compile_discovered(cx: &mut CompileCx<'_>, any: &Any) -> Compiled<Arc<HttpFilter>> {
    match compile_filter(cx, any, false)? {
        Entry::Filter(filter) => Ok(Arc::new(filter)),
        _ => Err(cx.refuse("@type", "the terminal filter is not taken from a source")),
    }
}

fn compile_filter(cx: &mut CompileCx<'_>, any: &Any, is_optional: bool) -> Compiled<Entry> {
    Ok(match values::type_name(any) {
        "envoy.extensions.filters.http.router.v3.Router" => {
            let router = values::unpack(cx, any)?;
            check_router(cx, &router);
            Entry::Router(Box::new(router))
        }
        "envoy.extensions.filters.http.buffer.v3.Buffer" => {
            Entry::Filter(HttpFilter::Buffer(unpacked(cx, any, compile_buffer)?))
        }
        "envoy.extensions.filters.http.cors.v3.Cors" => {
            let wire::cors::v3::Cors {} = values::unpack(cx, any)?;
            Entry::Filter(HttpFilter::Cors)
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let fault = unpacked(cx, any, filter_fault::compile_fault)?;
            Entry::Filter(HttpFilter::Fault(Arc::new(fault)))
        }
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => {
            let counting = unpacked(cx, any, filter_grpc_stats::compile_grpc_stats)?;
            Entry::Filter(HttpFilter::GrpcStats(Arc::new(counting)))
        }
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" => {
            let wire::grpc_web::v3::GrpcWeb {} = values::unpack(cx, any)?;
            Entry::Filter(HttpFilter::GrpcWeb)
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" => {
            let wire::header_mutation::v3::HeaderMutation { mutations, most_specific_header_mutations_wins } =
                values::unpack(cx, any)?;
            Entry::Filter(HttpFilter::HeaderMutation {
                own: Arc::new(filter_header_mutation::compile_mutations(cx, &mutations)?),
                most_specific_wins: most_specific_header_mutations_wins,
            })
        }
        "envoy.extensions.filters.http.health_check.v3.HealthCheck" => {
            let check = unpacked(cx, any, filter_health_check::compile_health_check)?;
            Entry::Filter(HttpFilter::HealthCheck(Arc::new(check)))
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            let limit = unpacked(cx, any, |cx, m| compile_local_rate_limit(cx, m, Place::Filter))?;
            Entry::Filter(HttpFilter::LocalRateLimit(Arc::new(limit)))
        }
        "envoy.extensions.filters.http.on_demand.v3.OnDemand" => {
            let wire::on_demand::v3::OnDemand { odcds } = values::unpack(cx, any)?;
            Entry::Filter(HttpFilter::OnDemand(filter_on_demand::compile_on_demand(cx, &odcds)?))
        }
        // Envoy leaves it out as well, and says so.
        _ if is_optional => {
            cx.ignored("@type");
            Entry::LeftOut
        }
        other => return Err(cx.refuse("@type", format!("http filter '{other}' is not supported"))),
    })
}

/// Unpacks the message and compiles it.
fn unpacked<M: prost::Message + prost::Name + Default, T>(
    cx: &mut CompileCx<'_>,
    any: &Any,
    compile: impl FnOnce(&mut CompileCx<'_>, &M) -> Compiled<T>,
) -> Compiled<T> {
    let message = values::unpack(cx, any)?;
    compile(cx, &message)
}

/// The options that are left are the connection manager's.
fn check_router(cx: &mut CompileCx<'_>, value: &Router) {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers: _,
        strict_check_headers,
        respect_expected_rq_timeout: _,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = value;
    unsupported!(cx; upstream_log, strict_check_headers, upstream_http_filters);
    ignored!(cx; dynamic_stats, start_child_span, upstream_log_options, suppress_grpc_request_failure_code_stats,
        reject_connect_request_early_data);
}

fn compile_buffer(cx: &mut CompileCx<'_>, value: &wire::buffer::v3::Buffer) -> Compiled<Buffer> {
    let wire::buffer::v3::Buffer { max_request_bytes } = value;
    match max_request_bytes {
        Some(max) if max.value > 0 => Ok(Buffer { max_bytes: max.value }),
        _ => Err(cx.refuse("max_request_bytes", "value must be greater than 0")),
    }
}

/// Compiles `typed_per_filter_config` on top of what the less specific places say.
pub(crate) fn compile_overrides(
    cx: &mut CompileCx<'_>,
    less_specific: Option<&Arc<Overrides>>,
    configs: &HashMap<String, Any>,
) -> Compiled<Option<Arc<Overrides>>> {
    if configs.is_empty() {
        return Ok(less_specific.cloned());
    }
    let mut overrides = less_specific.map(|o| (**o).clone()).unwrap_or_default();
    let mut names: Vec<&String> = configs.keys().collect();
    names.sort();
    for name in names {
        let field = format!("typed_per_filter_config[\"{name}\"]");
        if let Some(said) = cx.field(&field, |cx| compile_override(cx, &configs[name], false))? {
            overrides.add(name.as_str().into(), said);
        }
    }
    Ok(Some(Arc::new(overrides)).filter(|o| !o.is_empty()))
}

/// `None`: not known, and optional.
fn compile_override(cx: &mut CompileCx<'_>, any: &Any, is_optional: bool) -> Compiled<Option<Override>> {
    Ok(Some(match values::type_name(any) {
        "envoy.config.route.v3.FilterConfig" => {
            let FilterConfig { config, is_optional, disabled } = values::unpack(cx, any)?;
            return match (config, disabled) {
                (_, true) => Ok(Some(Override::Disabled)),
                (None, false) => {
                    Err(cx.refuse("config", "Empty route/virtual host per filter configuration for a filter"))
                }
                (Some(config), false) => cx.field("config", |cx| compile_override(cx, &config, is_optional)),
            };
        }
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute" => {
            use wire::buffer::v3::buffer_per_route::Override as Wire;
            let wire::buffer::v3::BufferPerRoute { r#override } = values::unpack(cx, any)?;
            match r#override {
                Some(Wire::Disabled(true)) => Override::Disabled,
                Some(Wire::Disabled(false)) => {
                    return Err(cx.refuse("disabled", "value must equal true"));
                }
                Some(Wire::Buffer(buffer)) => {
                    Override::Buffer(cx.field("buffer", |cx| compile_buffer(cx, &buffer))?)
                }
                None => return Err(cx.refuse("", "one of disabled or buffer is required")),
            }
        }
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
            Override::Cors(Arc::new(unpacked(cx, any, filter_cors::compile_cors_policy)?))
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            Override::Fault(Arc::new(unpacked(cx, any, filter_fault::compile_fault)?))
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
            let wire::header_mutation::v3::HeaderMutationPerRoute { mutations } = values::unpack(cx, any)?;
            let mutations = filter_header_mutation::compile_mutations(cx, &mutations)?;
            Override::HeaderMutation(vec![Arc::new(mutations)])
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            let limit = unpacked(cx, any, |cx, m| compile_local_rate_limit(cx, m, Place::Route))?;
            Override::LocalRateLimit(Arc::new(limit))
        }
        "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig" => {
            let wire::on_demand::v3::PerRouteConfig { odcds } = values::unpack(cx, any)?;
            Override::OnDemand(Arc::new(filter_on_demand::compile_on_demand(cx, &odcds)?))
        }
        _ if is_optional => {
            cx.ignored("@type");
            return Ok(None);
        }
        other => return Err(cx.refuse("@type", format!("'{other}' is not supported"))),
    }))
}
