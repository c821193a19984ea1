//! Small xDS resources for the fake control plane, packed for the wire.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use outrigger_xds_api::resource::{pack, unpack};
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use outrigger_xds_api::wire::core::v3::config_source::ConfigSourceSpecifier;
use outrigger_xds_api::wire::core::v3::data_source::Specifier;
use outrigger_xds_api::wire::core::v3::socket_address::PortSpecifier;
use outrigger_xds_api::wire::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress, TransportSocket,
    address, transport_socket,
};
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use outrigger_xds_api::wire::http_protocol_options::v3::HttpProtocolOptions;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use outrigger_xds_api::wire::listener::v3::{Filter, FilterChain, Listener, filter};
use outrigger_xds_api::wire::protobuf::{Any, Duration, UInt32Value};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::route_action::ClusterSpecifier;
use outrigger_xds_api::wire::route::v3::route_match::PathSpecifier;
use outrigger_xds_api::wire::route::v3::weighted_cluster::ClusterWeight;
use outrigger_xds_api::wire::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use outrigger_xds_api::wire::router::v3::Router;
use outrigger_xds_api::wire::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, secret,
};
use serde_json::{Value, json};

use crate::bootstrap::{cluster, http2_upstream};
use crate::certs::Leaf;

/// Type URL of a Listener.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Type URL of a RouteConfiguration.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Type URL of a Cluster.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Type URL of a ClusterLoadAssignment.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// A bootstrap that takes listeners and clusters from the incremental ADS server at `ads`.
pub fn ads_bootstrap(ads: SocketAddr) -> Value {
    let from_ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "test-node", "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": from_ads,
            "cds_config": from_ads,
        },
        "static_resources": {"clusters": [cluster("xds", &[ads], http2_upstream())]},
    })
}

/// An EDS cluster.
pub fn eds_cluster(name: &str) -> Any {
    pack(&Cluster {
        name: name.into(),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(from_ads()), ..Default::default() }),
        ..Default::default()
    })
}

/// An EDS cluster of hosts that speak HTTP/2.
pub fn http2_cluster(name: &str) -> Any {
    let mut cluster: Cluster = unpack(&eds_cluster(name)).expect("it was packed here");
    let explicit = ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Default::default())),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster.typed_extension_protocol_options.insert(name.into(), pack(&options));
    pack(&cluster)
}

/// A cluster that no proxy can take: its connect timeout is negative.
pub fn invalid_cluster(name: &str) -> Any {
    pack(&Cluster {
        name: name.into(),
        connect_timeout: Some(Duration { seconds: -1, nanos: 0 }),
        ..Default::default()
    })
}

/// The endpoints of an EDS cluster.
pub fn endpoints(cluster: &str, endpoints: &[SocketAddr]) -> Any {
    let endpoints = endpoints.iter().map(|addr| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address_of(*addr)),
            ..Default::default()
        })),
        ..Default::default()
    });
    pack(&ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: endpoints.collect(), ..Default::default() }],
        ..Default::default()
    })
}

/// A route configuration that sends everything to `cluster`.
pub fn routes(name: &str, cluster: &str) -> Any {
    routes_to(name, ClusterSpecifier::Cluster(cluster.into()))
}

/// A route configuration that sends everything to these clusters, by weight.
pub fn weighted_routes(name: &str, clusters: &[(&str, u32)]) -> Any {
    let clusters = clusters.iter().map(|&(name, weight)| ClusterWeight {
        name: name.into(),
        weight: Some(UInt32Value { value: weight }),
        ..Default::default()
    });
    let clusters = WeightedCluster { clusters: clusters.collect(), ..Default::default() };
    routes_to(name, ClusterSpecifier::WeightedClusters(clusters))
}

fn routes_to(name: &str, clusters: ClusterSpecifier) -> Any {
    let all = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() };
    let action = RouteAction { cluster_specifier: Some(clusters), ..Default::default() };
    let route = Route { r#match: Some(all), action: Some(Action::Route(action)), ..Default::default() };
    pack(&RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: vec![route],
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// A route configuration that no proxy can take: its virtual host has no domain.
pub fn invalid_routes(name: &str) -> Any {
    let nowhere = VirtualHost { name: "nowhere".into(), ..Default::default() };
    pack(&RouteConfiguration { name: name.into(), virtual_hosts: vec![nowhere], ..Default::default() })
}

/// An HTTP listener whose routes come over RDS.
pub fn listener(name: &str, addr: SocketAddr, route_config: &str) -> Any {
    let router = HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: name.into(),
        http_filters: vec![router],
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(from_ads()),
            route_config_name: route_config.into(),
        })),
        ..Default::default()
    };
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&manager))),
    };
    pack(&Listener {
        name: name.into(),
        address: Some(address_of(addr)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    })
}

/// A certificate and its key as a secret.
pub fn tls_secret(name: &str, leaf: &Leaf) -> Any {
    let inline = |path: &Path| DataSource {
        specifier: Some(Specifier::InlineBytes(fs::read(path).expect("a PEM file"))),
        ..Default::default()
    };
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(&leaf.chain)),
        private_key: Some(inline(&leaf.key)),
        ..Default::default()
    };
    pack(&Secret { name: name.into(), r#type: Some(secret::Type::TlsCertificate(certificate)) })
}

/// TLS of a filter chain with a secret's certificate, for any client.
pub fn server_tls(secret: &str) -> TransportSocket {
    let config = SdsSecretConfig { name: secret.into(), sds_config: Some(from_ads()) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![config],
            ..Default::default()
        }),
        ..Default::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(&context))),
    }
}

fn from_ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

fn address_of(addr: SocketAddr) -> Address {
    let socket_address = SocketAddress {
        address: addr.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(addr.port().into())),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket_address)) }
}
