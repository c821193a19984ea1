//! Network filters and listeners: what inbound and outbound have in common.

use std::net::IpAddr;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::{Http2ProtocolOptions, TrafficDirection};
use outrigger_xds_api::wire::extensions::filters::http::cors::v3::Cors;
use outrigger_xds_api::wire::extensions::filters::http::fault::v3::HttpFault;
use outrigger_xds_api::wire::extensions::filters::http::header_mutation::v3::HeaderMutation;
use outrigger_xds_api::wire::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::{
    CodecType, ProxyStatusConfig, RouteSpecifier, UpgradeConfig, proxy_status_config::ProxyName,
};
use outrigger_xds_api::wire::http_connection_manager::v3::{HttpConnectionManager, HttpFilter, http_filter};
use outrigger_xds_api::wire::listener::v3::{Filter, FilterChain, Listener, filter};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::router::v3::Router;
use outrigger_xds_api::wire::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier};
use outrigger_xds_api::wire::r#type::v3::HashPolicy;
use prost::Message as _;

use crate::model::{ConnectionPool, MeshSettings};
use crate::translate::Output;
use crate::translate::access_log::access_log;
use crate::translate::metadata::{OrderedMetadata, PEER_CERTIFICATE_GRACE};
use crate::translate::names;
use crate::translate::traffic_policy;
use crate::translate::wire::{address, any, duration};

/// Number of field `metadata` in `Listener`.
const LISTENER_METADATA: u32 = 6;

/// The filter that forwards.
const ROUTER: &str = "envoy.filters.http.router";

/// HTTP filters of outbound connection managers, in the order in which they run. All of them have all of these: a rule that needs
/// one must not change a listener, whose connections an Envoy would drain. (As in Istio.)
pub(super) const OUTBOUND_FILTERS: &[&str] =
    &[names::CORS_FILTER, names::FAULT_FILTER, names::LOCAL_RATE_LIMIT_FILTER, names::HEADER_MUTATION_FILTER];

/// A connection manager for HTTP/1.1 and HTTP/2 alike, with `filters` before the router. WebSocket goes through: between sidecars
/// as extended CONNECT.
pub(super) fn connection_manager(
    settings: &MeshSettings,
    stat_prefix: String,
    routes: RouteSpecifier,
    filters: &[&str],
) -> Filter {
    let filters = filters.iter().copied().chain([ROUTER]);
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix,
        http_filters: filters.map(http_filter).collect(),
        access_log: access_log(settings),
        proxy_status_config: settings.proxy_status.then(proxy_status),
        route_specifier: Some(routes),
        http2_protocol_options: Some(http2_options()),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    };
    network_filter("envoy.filters.network.http_connection_manager", any(&manager))
}

/// Two sidecars are between caller and callee: the name of the node says whose word it is.
fn proxy_status() -> ProxyStatusConfig {
    ProxyStatusConfig { proxy_name: Some(ProxyName::UseNodeId(true)), ..ProxyStatusConfig::default() }
}

/// The filter that ends every list of them.
pub(super) fn router() -> HttpFilter {
    http_filter(ROUTER)
}

/// An HTTP filter that does nothing but what rules ask of it.
fn http_filter(name: &str) -> HttpFilter {
    let config = match name {
        names::CORS_FILTER => any(&Cors::default()),
        names::FAULT_FILTER => any(&HttpFault::default()),
        names::LOCAL_RATE_LIMIT_FILTER => any(&LocalRateLimit {
            stat_prefix: traffic_policy::STAT_PREFIX.to_owned(),
            ..LocalRateLimit::default()
        }),
        names::HEADER_MUTATION_FILTER => any(&HeaderMutation::default()),
        _ => any(&Router::default()),
    };
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

/// HTTP/2 of both sides of the sidecars: other protocols may be asked for on a stream (RFC 8441).
pub(super) fn http2_options() -> Http2ProtocolOptions {
    Http2ProtocolOptions { allow_connect: true, ..Http2ProtocolOptions::default() }
}

/// A TCP proxy to one cluster.
pub(super) fn tcp_proxy_to(settings: &MeshSettings, stat_prefix: String, cluster: String) -> Filter {
    let clusters = ClusterSpecifier::Cluster(cluster);
    tcp_proxy(settings, stat_prefix, clusters, None, &ConnectionPool::default())
}

/// A TCP proxy. Of `pool` it has how long a connection lasts.
pub(super) fn tcp_proxy(
    settings: &MeshSettings,
    stat_prefix: String,
    clusters: ClusterSpecifier,
    hash_policy: Option<HashPolicy>,
    pool: &ConnectionPool,
) -> Filter {
    let proxy = TcpProxy {
        stat_prefix,
        cluster_specifier: Some(clusters),
        hash_policy: hash_policy.into_iter().collect(),
        access_log: access_log(settings),
        idle_timeout: pool.tcp_idle_timeout.and_then(duration),
        max_downstream_connection_duration: pool.max_connection_duration.and_then(duration),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", any(&proxy))
}

fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// A listener at one address.
pub(super) fn listener(
    name: String,
    ip: IpAddr,
    port: u16,
    direction: TrafficDirection,
    filter_chains: Vec<FilterChain>,
) -> Listener {
    Listener {
        name,
        address: Some(address(ip, port)),
        traffic_direction: direction as i32,
        filter_chains,
        ..Listener::default()
    }
}

/// Adds a listener, with the metadata that switches our own proxy's mesh metrics on, as the reporter `source` (outbound) or
/// `destination` (inbound).
pub(super) fn add_listener(output: &mut Output, wire: &Listener) {
    let inbound = wire.traffic_direction == TrafficDirection::Inbound as i32;
    let (reporter, grace) =
        if inbound { ("destination", Some(PEER_CERTIFICATE_GRACE)) } else { ("source", None) };
    let mut encoded = wire.encode_to_vec();
    OrderedMetadata::default()
        .with_own(Some(reporter), grace, None)
        .append_to(LISTENER_METADATA, &mut encoded);
    output.add(ResourceType::Listener, &wire.name, encoded);
}
