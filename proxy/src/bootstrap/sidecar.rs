//! The bootstrap of `outrigger-proxy sidecar`: written as the messages that a file would have, so that it goes the same way.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use outrigger_xds_api::resource;
use outrigger_xds_api::wire::bootstrap::v3 as wire;
use outrigger_xds_api::wire::cluster::v3 as cluster;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::endpoint::v3 as endpoint;
use outrigger_xds_api::wire::http_protocol_options::v3 as http;
use outrigger_xds_api::wire::protobuf;
use outrigger_xds_api::wire::tls::v3 as tls;
use outrigger_xds_api::wire::r#type::matcher::v3::{StringMatcher, string_matcher};
use prost::Name;

use super::Document;
use super::sidecar_overload::overload_manager;
use crate::net::HostPort;

/// Name of the cluster that the control plane is, as in Istio.
pub const XDS_CLUSTER: &str = "xds-grpc";

/// What a sidecar is told by flags and environment.
#[derive(Debug, Clone)]
pub struct SidecarOptions {
    /// `--xds-address`.
    pub xds_address: HostPort,
    /// `--ca-root-cert`: TLS to the control plane, trusting these roots. `None`: plaintext, to loopback only.
    pub ca_root_cert: Option<PathBuf>,
    /// `--admin-address`.
    pub admin_address: SocketAddr,
    /// `--node-id`, else made of the pod's names.
    pub node_id: Option<String>,
    /// `INSTANCE_IP`.
    pub instance_ip: IpAddr,
    /// Upstream connections come from `instance_ip`, whatever the kernel would choose.
    pub binds_upstreams: bool,
    /// Sheds load under pressure; `--overload-manager`.
    pub sheds_load: bool,
    /// Bytes that the control group may use, if that is limited.
    pub memory_limit: Option<u64>,
    /// `POD_NAME`.
    pub pod_name: String,
    /// `POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `SERVICE_ACCOUNT`.
    pub service_account: String,
    /// DNS domain of the cluster, part of the node id.
    pub cluster_domain: String,
    /// `ISTIO_META_*` as text and `ISTIO_METAJSON_*` as JSON, without the prefix.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

impl SidecarOptions {
    /// A label of the workload (`ISTIO_METAJSON_LABELS`).
    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata.get("LABELS")?.get(name)?.as_str()
    }

    /// A metadata text (`ISTIO_META_*`).
    pub fn text(&self, name: &str) -> Option<&str> {
        self.metadata.get(name)?.as_str()
    }
}

/// Writes the bootstrap.
///
/// # Errors
/// Plaintext to a control plane on another machine.
pub fn bootstrap(options: &SidecarOptions) -> Result<Document, String> {
    if options.ca_root_cert.is_none() && !options.xds_address.is_loopback() {
        return Err(format!(
            "--xds-address {}: plaintext is only allowed to a loopback address, set --ca-root-cert",
            options.xds_address
        ));
    }
    let ads = core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..Default::default()
    };
    let message = wire::Bootstrap {
        node: Some(node(options)),
        admin: Some(wire::Admin { address: Some(address(options.admin_address)), ..Default::default() }),
        static_resources: Some(wire::bootstrap::StaticResources {
            clusters: vec![xds_cluster(options)],
            ..Default::default()
        }),
        dynamic_resources: Some(wire::bootstrap::DynamicResources {
            lds_config: Some(ads.clone()),
            cds_config: Some(ads),
            ads_config: Some(ads_config()),
            ..Default::default()
        }),
        overload_manager: options.sheds_load.then(|| overload_manager(options.memory_limit)),
        // Every hop shows its workload's address.
        cluster_manager: options.binds_upstreams.then(|| wire::ClusterManager {
            upstream_bind_config: Some(core::BindConfig {
                source_address: Some(socket_address(SocketAddr::new(options.instance_ip, 0))),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    Ok(Document::from_message(message))
}

fn ads_config() -> core::ApiConfigSource {
    let grpc = core::grpc_service::EnvoyGrpc { cluster_name: XDS_CLUSTER.to_owned(), ..Default::default() };
    core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::DeltaGrpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        set_node_on_first_message_only: true,
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Istio's: `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`, with its metadata.
fn node(options: &SidecarOptions) -> core::Node {
    let SidecarOptions { instance_ip, pod_name, pod_namespace, cluster_domain, .. } = options;
    let id = options.node_id.clone().unwrap_or_else(|| {
        format!("sidecar~{instance_ip}~{pod_name}.{pod_namespace}~{pod_namespace}.svc.{cluster_domain}")
    });
    let text = |text: &str| serde_json::Value::from(text);
    let mut metadata = options.metadata.clone();
    metadata.insert("NAMESPACE".to_owned(), text(pod_namespace));
    metadata.insert("NAME".to_owned(), text(pod_name));
    metadata.insert("SERVICE_ACCOUNT".to_owned(), text(&options.service_account));
    metadata.insert("INSTANCE_IPS".to_owned(), text(&instance_ip.to_string()));
    let app = options.label("app").unwrap_or(pod_name);
    core::Node {
        id,
        cluster: format!("{app}.{pod_namespace}"),
        metadata: Some(protobuf::Struct {
            fields: metadata.iter().map(|(k, v)| (k.clone(), value(v))).collect(),
        }),
        ..Default::default()
    }
}

/// JSON as `google.protobuf.Value`.
fn value(json: &serde_json::Value) -> protobuf::Value {
    use protobuf::value::Kind;
    use serde_json::Value;
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(list) => {
            Kind::ListValue(protobuf::ListValue { values: list.iter().map(value).collect() })
        }
        Value::Object(map) => Kind::StructValue(protobuf::Struct {
            fields: map.iter().map(|(k, v)| (k.clone(), value(v))).collect(),
        }),
    };
    protobuf::Value { kind: Some(kind) }
}

/// Its endpoint stands in it; the endpoints of a name come from the ADS client, which looks it up before it connects.
fn xds_cluster(options: &SidecarOptions) -> cluster::Cluster {
    let localities = match &options.xds_address {
        HostPort::Address(address) => vec![locality(*address)],
        HostPort::Name(..) => Vec::new(),
    };
    let explicit = http::http_protocol_options::ExplicitHttpConfig {
        protocol_config: Some(
            http::http_protocol_options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(
                core::Http2ProtocolOptions::default(),
            ),
        ),
    };
    let protocol = http::HttpProtocolOptions {
        upstream_protocol_options: Some(
            http::http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(explicit),
        ),
        ..Default::default()
    };
    cluster::Cluster {
        name: XDS_CLUSTER.to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Static as i32,
        )),
        connect_timeout: Some(protobuf::Duration { seconds: 5, nanos: 0 }),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: XDS_CLUSTER.to_owned(),
            endpoints: localities,
            ..Default::default()
        }),
        typed_extension_protocol_options: HashMap::from([(
            http::HttpProtocolOptions::full_name(),
            resource::pack(&protocol),
        )]),
        transport_socket: options.ca_root_cert.as_ref().map(|roots| xds_tls(roots, &options.xds_address)),
        ..Default::default()
    }
}

fn locality(at: SocketAddr) -> endpoint::LocalityLbEndpoints {
    let endpoint = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address(at)),
            ..Default::default()
        })),
        ..Default::default()
    };
    endpoint::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }
}

/// The roots also sign workloads' certificates, so the control plane must prove its name or address too.
fn xds_tls(roots: &std::path::Path, at: &HostPort) -> core::TransportSocket {
    use tls::subject_alt_name_matcher::SanType;
    let version = tls::tls_parameters::TlsProtocol::TlSv13 as i32;
    let sni = at.certificate_name().unwrap_or_default().to_owned();
    let (san_type, expected) = match at {
        HostPort::Address(address) => (SanType::IpAddress, address.ip().to_string()),
        HostPort::Name(..) => (SanType::Dns, sni.clone()),
    };
    let matcher = StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact(expected)),
        ..Default::default()
    };
    let validation = tls::CertificateValidationContext {
        trusted_ca: Some(core::DataSource {
            specifier: Some(core::data_source::Specifier::Filename(roots.display().to_string())),
            ..Default::default()
        }),
        match_typed_subject_alt_names: vec![tls::SubjectAltNameMatcher {
            san_type: san_type as i32,
            matcher: Some(matcher),
            ..Default::default()
        }],
        ..Default::default()
    };
    let context = tls::UpstreamTlsContext {
        sni,
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: Some(tls::TlsParameters {
                tls_minimum_protocol_version: version,
                tls_maximum_protocol_version: version,
                ..Default::default()
            }),
            alpn_protocols: vec!["h2".to_owned()],
            validation_context_type: Some(tls::common_tls_context::ValidationContextType::ValidationContext(
                validation,
            )),
            ..Default::default()
        }),
        ..Default::default()
    };
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(resource::pack(&context))),
    }
}

fn address(address: SocketAddr) -> core::Address {
    core::Address { address: Some(core::address::Address::SocketAddress(socket_address(address))) }
}

fn socket_address(address: SocketAddr) -> core::SocketAddress {
    core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    }
}
