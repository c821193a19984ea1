//! `RouteConfiguration`, `VirtualHost`, `Route`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::WILDCARD;
use outrigger_xds_api::wire::core::v3::HeaderValueOption;
use outrigger_xds_api::wire::protobuf::{Any, UInt32Value, UInt64Value};
use outrigger_xds_api::wire::route::v3 as wire;
use prost::Message;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::header_mutation::{compile_header_mutations, header_name};
use super::http_filter::compile_overrides;
use super::metadata::compile_metadata;
use super::rate_limit::{Place, compile_rate_limits};
use super::retry::compile_retry_policy;
use super::route_action::{compile_action, compile_mirrors};
use super::route_match::compile_route_match;
use super::source::{compile_config_source, is_incremental};
use super::values;
use super::virtual_cluster::compile_virtual_clusters;
use crate::formatter::CapturePlan;
use crate::http::filters::Overrides;
use crate::metadata::Metadata;
use crate::on_demand::{Asker, Kind};
use crate::route::{
    Action, DomainIndex, HeaderMutations, Mirror, MutationSteps, RateLimit, RequireTls, RetryPolicy, Route,
    RouteConfiguration, VirtualClusters, VirtualHost,
};

/// Envoy's default of `max_direct_response_body_size_bytes`.
const MAX_DIRECT_RESPONSE_BODY_BYTES: u32 = 4096;

/// What holds for all routes of one configuration, and later of one virtual host.
#[derive(Debug, Clone)]
pub(crate) struct RouteCx {
    /// Clusters that routes name must be known (`validate_clusters`).
    pub(crate) validate_clusters: bool,
    /// `max_direct_response_body_size_bytes`.
    pub(crate) max_body_bytes: u32,
    /// `most_specific_header_mutations_wins`: the most specific ones are made last.
    most_specific_wins: bool,
    /// Of the route configuration, then of the virtual host.
    headers: Vec<Headers>,
    /// `request_mirror_policies`, of the most specific place that has some.
    pub(crate) mirrors: Vec<Mirror>,
    /// `typed_per_filter_config` of the route configuration, the virtual host and, where an action is compiled, the route.
    pub(crate) overrides: Option<Arc<Overrides>>,
    /// `retry_policy` of the virtual host.
    pub(crate) retry: Option<Arc<RetryPolicy>>,
    /// `rate_limits` of the virtual host.
    pub(crate) rate_limits: Arc<[RateLimit]>,
    /// `request_body_buffer_limit` of the virtual host.
    pub(crate) buffer_limit_bytes: Option<u64>,
    attempt_count_in_request: bool,
    attempt_count_in_response: bool,
    /// `metadata` of the virtual host.
    metadata: Option<Arc<Metadata>>,
    /// `name` of the virtual host.
    virtual_host: Arc<str>,
    /// `virtual_clusters` of the virtual host.
    virtual_clusters: Option<Arc<VirtualClusters>>,
}

/// The header changes of one place.
#[derive(Debug, Clone)]
struct Headers {
    request: Arc<HeaderMutations>,
    response: Arc<HeaderMutations>,
    /// A format for a response prints something of the request.
    names_request: bool,
}

impl RouteCx {
    /// The changes in the order in which they are made.
    fn steps(&self, own: &Headers, of: impl Fn(&Headers) -> &Arc<HeaderMutations>) -> MutationSteps {
        let places = self.headers.iter().chain([own]).map(of).filter(|m| !m.is_empty()).cloned();
        match self.most_specific_wins {
            true => places.collect(),
            false => places.rev().collect(),
        }
    }
}

/// Compiles a route configuration.
///
/// `previous` is the last compiled one of the same name: virtual hosts that are equal keep their `Arc`. `inline` says that
/// it stands in a listener, which makes `validate_clusters` default to true (for a static listener; a dynamic one waits for
/// its clusters instead).
pub fn compile_route_configuration(
    value: &wire::RouteConfiguration,
    version: &str,
    previous: Option<&RouteConfiguration>,
    inline: bool,
    cx: &mut CompileCx<'_>,
) -> Compiled<(RouteConfiguration, Option<Arc<VirtualHostCx>>)> {
    let wire::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = value;
    unsupported!(cx; cluster_specifier_plugins, route_specifiers);
    informational!(metadata);
    let headers = compile_headers(
        cx,
        (request_headers_to_add, request_headers_to_remove),
        (response_headers_to_add, response_headers_to_remove),
    )?;
    let vhds = compile_vhds(cx, vhds, inline);
    let internal_only_headers =
        cx.each("internal_only_headers", internal_only_headers, |name, cx| header_name(cx, "", name))?;
    let vhost_header = match vhost_header.as_str() {
        "" => None,
        name => Some(header_name(cx, "vhost_header", name)?),
    };
    let validate_clusters = cx.is_static && values::boolean(validate_clusters, inline);
    let route_cx = RouteCx {
        validate_clusters,
        max_body_bytes: values::uint32(max_direct_response_body_size_bytes, MAX_DIRECT_RESPONSE_BODY_BYTES),
        most_specific_wins: *most_specific_header_mutations_wins,
        headers: vec![headers],
        mirrors: compile_mirrors(cx, request_mirror_policies, validate_clusters)?,
        overrides: compile_overrides(cx, None, typed_per_filter_config)?,
        retry: None,
        rate_limits: Arc::default(),
        buffer_limit_bytes: None,
        attempt_count_in_request: false,
        attempt_count_in_response: false,
        metadata: None,
        virtual_host: "".into(),
        virtual_clusters: None,
    };
    // What virtual hosts have of it: they are others when it is.
    let inherited = wire::RouteConfiguration {
        request_headers_to_add: request_headers_to_add.clone(),
        request_headers_to_remove: request_headers_to_remove.clone(),
        response_headers_to_add: response_headers_to_add.clone(),
        response_headers_to_remove: response_headers_to_remove.clone(),
        request_mirror_policies: request_mirror_policies.clone(),
        most_specific_header_mutations_wins: *most_specific_header_mutations_wins,
        ..Default::default()
    }
    .encode_to_vec();
    let inherited = [inherited, in_order(typed_per_filter_config)].concat();
    unique_names(cx, virtual_hosts);
    let virtual_hosts = cx.each("virtual_hosts", virtual_hosts, |virtual_host, cx| {
        // Compiled even when an equal one exists, to know what it refers to; the old `Arc` is kept for its readers.
        let compiled = compile_virtual_host(virtual_host, &inherited, &route_cx, cx)?;
        let kept = previous.and_then(|p| {
            p.virtual_hosts.iter().find(|v| v.hash == compiled.hash && v.name == compiled.name)
        });
        Ok(kept.cloned().unwrap_or_else(|| Arc::new(compiled)))
    })?;
    let domains = DomainIndex::build(virtual_hosts.iter().map(|v| v.domains.iter().map(|d| &**d)))
        .map_err(|e| cx.refuse("virtual_hosts", e))?;
    let vhds = vhds?;
    let routes = RouteConfiguration {
        name: name.as_str().into(),
        domains,
        virtual_hosts,
        ignore_port: *ignore_port_in_host_matching,
        ignore_path_parameters: *ignore_path_parameters_in_path_matching,
        vhost_header,
        internal_only_headers: internal_only_headers.into(),
        version: version.into(),
        vhds: vhds.clone(),
    };
    let hosts = vhds.map(|_| Arc::new(VirtualHostCx { routes: routes.name.clone(), inherited, route_cx }));
    Ok((routes, hosts))
}

/// What virtual hosts that come one by one have of their route configuration.
#[derive(Debug)]
pub struct VirtualHostCx {
    /// The route configuration's name.
    pub routes: Arc<str>,
    /// What they inherit, to be compared.
    pub inherited: Vec<u8>,
    route_cx: RouteCx,
}

/// Compiles a virtual host of VHDS.
pub(crate) fn compile_virtual_host_of(
    value: &wire::VirtualHost,
    of: &VirtualHostCx,
    cx: &mut CompileCx<'_>,
) -> Compiled<VirtualHost> {
    compile_virtual_host(value, &of.inherited, &of.route_cx, cx)
}

/// `vhds`: where virtual hosts come from one by one, some of them without being asked for.
fn compile_vhds(cx: &mut CompileCx<'_>, value: &Option<wire::Vhds>, inline: bool) -> Compiled<Option<Asker>> {
    let Some(wire::Vhds { config_source }) = value else { return Ok(None) };
    if inline {
        return Err(cx.refuse("vhds", "only supported in route configurations that come by RDS"));
    }
    cx.field("vhds", |cx| {
        let fetch = compile_config_source(cx, "config_source", config_source)?;
        if !is_incremental(cx, fetch) {
            let reason =
                "vhds: only 'DELTA_GRPC' or 'ADS' (which uses Delta xDS) is supported as a config source.";
            return Err(cx.refuse("config_source", reason));
        }
        cx.watch(ResourceType::VirtualHost, fetch, WILDCARD);
        Ok(Some(cx.inputs.on_demand.of(Kind::VirtualHost, fetch.source)))
    })
}

/// Envoy refuses two virtual hosts of one name.
fn unique_names(cx: &mut CompileCx<'_>, virtual_hosts: &[wire::VirtualHost]) {
    let mut seen = rustc_hash::FxHashSet::default();
    for (i, virtual_host) in virtual_hosts.iter().enumerate() {
        if !seen.insert(virtual_host.name.as_str()) {
            cx.refuse(
                &format!("virtual_hosts[{i}].name"),
                format!("virtual host '{}' must have a unique name", virtual_host.name),
            );
        }
    }
}

fn compile_virtual_host(
    value: &wire::VirtualHost,
    inherited: &[u8],
    route_cx: &RouteCx,
    cx: &mut CompileCx<'_>,
) -> Compiled<VirtualHost> {
    let wire::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = value;
    unsupported!(cx; matcher, cors, retry_policy_typed_config, hedge_policy,
        include_is_timeout_retry_header, route_specifiers);
    let mut route_cx = route_cx.clone();
    route_cx.virtual_host = name.as_str().into();
    route_cx.virtual_clusters = compile_virtual_clusters(cx, name, virtual_clusters)?;
    route_cx.metadata = compile_metadata(metadata);
    route_cx.headers.push(compile_headers(
        cx,
        (request_headers_to_add, request_headers_to_remove),
        (response_headers_to_add, response_headers_to_remove),
    )?);
    route_cx.overrides = compile_overrides(cx, route_cx.overrides.as_ref(), typed_per_filter_config)?;
    if !request_mirror_policies.is_empty() {
        route_cx.mirrors = compile_mirrors(cx, request_mirror_policies, route_cx.validate_clusters)?;
    }
    if let Some(policy) = retry_policy {
        let policy = cx.field("retry_policy", |cx| compile_retry_policy(cx, policy))?;
        route_cx.retry = Some(Arc::new(policy));
    }
    route_cx.rate_limits = compile_rate_limits(cx, rate_limits, Place::Route)?.into();
    route_cx.buffer_limit_bytes = buffer_limit(cx, request_body_buffer_limit, per_request_buffer_limit_bytes);
    route_cx.attempt_count_in_request = *include_request_attempt_count;
    route_cx.attempt_count_in_response = *include_attempt_count_in_response;
    let route_cx = &route_cx;
    if name.is_empty() {
        cx.refuse("name", "value length must be at least 1 characters");
    }
    if domains.is_empty() {
        cx.refuse("domains", "value must contain at least 1 item(s)");
    }
    let require_tls = values::enumeration(cx, "require_tls", *require_tls);
    let routes = cx.each("routes", routes, |route, cx| compile_route(route, route_cx, cx).map(Arc::new));
    let require_tls = match require_tls? {
        wire::virtual_host::TlsRequirementType::None => RequireTls::None,
        wire::virtual_host::TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        wire::virtual_host::TlsRequirementType::All => RequireTls::All,
    };
    Ok(VirtualHost::new(
        name.as_str().into(),
        domains.iter().map(|d| d.as_str().into()).collect(),
        routes?,
        require_tls,
        values::content_hash(&[&content_of(value), inherited, &[u8::from(route_cx.validate_clusters)]]),
    ))
}

/// What makes a virtual host the same: its message, but with its maps in the order of their names. An equal one is kept, and with
/// it what its filters count.
fn content_of(value: &wire::VirtualHost) -> Vec<u8> {
    let mut value = value.clone();
    let mut maps = in_order(&std::mem::take(&mut value.typed_per_filter_config));
    maps.extend(format!("{:?}", compile_metadata(&value.metadata.take())).into_bytes());
    for route in &mut value.routes {
        // In the order of its names too.
        let metadata = compile_metadata(&route.metadata.take());
        maps.extend(format!("{metadata:?}").into_bytes());
        maps.extend(in_order(&std::mem::take(&mut route.typed_per_filter_config)));
        let Some(wire::route::Action::Route(action)) = &mut route.action else { continue };
        if let Some(wire::route_action::ClusterSpecifier::WeightedClusters(weighted)) =
            &mut action.cluster_specifier
        {
            for cluster in &mut weighted.clusters {
                maps.extend(in_order(&std::mem::take(&mut cluster.typed_per_filter_config)));
            }
        }
    }
    [value.encode_to_vec(), maps].concat()
}

/// A map in the order of its names, with its length before it.
fn in_order(map: &HashMap<String, Any>) -> Vec<u8> {
    let mut bytes = map.len().to_le_bytes().to_vec();
    let ordered: BTreeMap<&String, &Any> = map.iter().collect();
    for (name, any) in ordered {
        bytes.extend(name.len().to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(any.encode_length_delimited_to_vec());
    }
    bytes
}

fn compile_route(value: &wire::Route, route_cx: &RouteCx, cx: &mut CompileCx<'_>) -> Compiled<Route> {
    let wire::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = value;
    unsupported!(cx; route_specifiers);
    // Spans.
    ignored!(cx; decorator, tracing);
    let own = compile_headers(
        cx,
        (request_headers_to_add, request_headers_to_remove),
        (response_headers_to_add, response_headers_to_remove),
    );
    let buffer_limit_bytes = buffer_limit(cx, request_body_buffer_limit, per_request_buffer_limit_bytes);
    let matcher = match r#match {
        Some(matcher) => cx.field("match", |cx| compile_route_match(cx, matcher)),
        None => Err(cx.refuse("match", "value is required")),
    };
    let overrides = compile_overrides(cx, route_cx.overrides.as_ref(), typed_per_filter_config)?;
    let own_cx = RouteCx { overrides: overrides.clone(), ..route_cx.clone() };
    let mut action = match overrides.as_ref().is_some_and(|said| said.ask_for_clusters()) {
        true => cx.on_demand(|cx| compile_action(cx, action, &own_cx)),
        false => compile_action(cx, action, &own_cx),
    }?;
    if let (Action::Route(action), Some(own)) = (&mut action, buffer_limit_bytes) {
        action.buffer_limit_bytes = Some(own);
    }
    let own = own?;
    let weighted_names_request = match &action {
        Action::Route(action) => action.keeps_request_head,
        _ => false,
    };
    Ok(Route {
        name: Some(name).filter(|n| !n.is_empty()).map(|n| n.as_str().into()),
        matcher: matcher?,
        request_headers: route_cx.steps(&own, |headers| &headers.request),
        response_headers: route_cx.steps(&own, |headers| &headers.response),
        keeps_request_head: weighted_names_request
            || route_cx.headers.iter().chain([&own]).any(|headers| headers.names_request),
        overrides,
        metadata: compile_metadata(metadata),
        virtual_host_metadata: route_cx.metadata.clone(),
        stats: Some(stat_prefix)
            .filter(|prefix| !prefix.is_empty())
            .map(|prefix| cx.inputs.stats.route(&route_cx.virtual_host, prefix)),
        virtual_clusters: route_cx.virtual_clusters.clone(),
        attempt_count_in_request: route_cx.attempt_count_in_request,
        attempt_count_in_response: route_cx.attempt_count_in_response,
        action,
    })
}

/// `request_headers_to_*` and `response_headers_to_*` of one message, each as (add, remove).
fn compile_headers(
    cx: &mut CompileCx<'_>,
    request: (&[HeaderValueOption], &[String]),
    response: (&[HeaderValueOption], &[String]),
) -> Compiled<Headers> {
    let mut plan = CapturePlan::live();
    let request = compile_header_mutations(cx, "request", request.0, request.1, &mut CapturePlan::live());
    let response = compile_header_mutations(cx, "response", response.0, response.1, &mut plan);
    Ok(Headers {
        request: Arc::new(request?),
        response: Arc::new(response?),
        names_request: plan.names_request(),
    })
}

/// The newer field, else the older one.
fn buffer_limit(
    cx: &mut CompileCx<'_>,
    limit: &Option<UInt64Value>,
    older: &Option<UInt32Value>,
) -> Option<u64> {
    if limit.is_some() && older.is_some() {
        cx.refuse(
            "per_request_buffer_limit_bytes",
            "request_body_buffer_limit and per_request_buffer_limit_bytes cannot both be set",
        );
    }
    limit.as_ref().map(|l| l.value).or(older.as_ref().map(|l| u64::from(l.value)))
}
