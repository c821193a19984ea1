//! TLS contexts of the mesh: SPIFFE identities both ways, keys by SDS; and of servers outside, by files of the sidecar.
//!
//! Secrets are named `default` (the workload's certificate and key) and `ROOTCA` (the trust bundle), on the cluster
//! `sds-grpc`: the workload's own sidecar or SDS agent. A private key never comes near the control plane.

use outrigger_xds_api::wire::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, TransportSocket, api_config_source,
    config_source, data_source, grpc_service, transport_socket,
};
use outrigger_xds_api::wire::protobuf::BoolValue;
use outrigger_xds_api::wire::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use outrigger_xds_api::wire::tls::v3::subject_alt_name_matcher::SanType;
use outrigger_xds_api::wire::tls::v3::tls_parameters::TlsProtocol;
use outrigger_xds_api::wire::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsCertificate, TlsParameters, UpstreamTlsContext,
};
use outrigger_xds_api::wire::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use crate::model::TlsOrigination;
use crate::translate::wire::any;

/// Name of Envoy's TLS transport socket.
const TLS: &str = "envoy.transport_sockets.tls";

/// The client's side: the peer must prove one of `identities` (SPIFFE URIs, sorted).
pub(super) fn upstream(sni: String, identities: &[String], alpn: &[&str]) -> TransportSocket {
    let names = identities.iter().map(|identity| uri(MatchPattern::Exact(identity.clone()))).collect();
    let context =
        UpstreamTlsContext { sni, common_tls_context: Some(common(names, alpn)), ..Default::default() };
    socket(any(&context))
}

/// The server's side: the peer must prove an identity of the trust domain.
pub(super) fn downstream(trust_domain: &str, alpn: &[&str]) -> TransportSocket {
    let names = vec![uri(MatchPattern::Prefix(format!("spiffe://{trust_domain}/")))];
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(names, alpn)),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    };
    socket(any(&context))
}

/// The client's side towards a server that is not the mesh's, at `host`. Of a host with `*` it is not known here which one is called:
/// then no server name is asked for unless one is written, and the server may prove any of them.
pub(super) fn origination(of: &TlsOrigination, host: String, alpn: &[&str]) -> TransportSocket {
    let sni =
        of.sni.clone().unwrap_or_else(|| if host.starts_with('*') { String::new() } else { host.clone() });
    let file = |path: &String| DataSource {
        specifier: Some(data_source::Specifier::Filename(path.clone())),
        ..Default::default()
    };
    let host = if sni.is_empty() { &host } else { &sni };
    let names = if of.server_names.is_empty() { std::slice::from_ref(host) } else { &of.server_names };
    let validation = of.roots.as_ref().map(|roots| {
        ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(file(roots)),
            match_typed_subject_alt_names: names.iter().map(|name| server_name(name)).collect(),
            ..Default::default()
        })
    });
    let certificate = of.certificate.as_ref().map(|(chain, key)| TlsCertificate {
        certificate_chain: Some(file(chain)),
        private_key: Some(file(key)),
        ..Default::default()
    });
    let common = CommonTlsContext {
        alpn_protocols: alpn.iter().map(|&protocol| protocol.to_owned()).collect(),
        tls_certificates: certificate.into_iter().collect(),
        validation_context_type: validation,
        ..Default::default()
    };
    socket(any(&UpstreamTlsContext { sni, common_tls_context: Some(common), ..Default::default() }))
}

/// A name of a server: of a URI's form it is an identity, else a name in DNS.
fn server_name(name: &str) -> SubjectAltNameMatcher {
    let san_type = if name.contains("://") { SanType::Uri } else { SanType::Dns };
    let pattern = match name.strip_prefix('*') {
        Some(end) => MatchPattern::Suffix(end.to_owned()),
        None => MatchPattern::Exact(name.to_owned()),
    };
    SubjectAltNameMatcher { san_type: san_type as i32, ..uri(pattern) }
}

fn socket(context: outrigger_xds_api::wire::protobuf::Any) -> TransportSocket {
    let config_type = Some(transport_socket::ConfigType::TypedConfig(context));
    TransportSocket { name: TLS.to_owned(), config_type }
}

fn common(names: Vec<SubjectAltNameMatcher>, alpn: &[&str]) -> CommonTlsContext {
    let validation =
        CertificateValidationContext { match_typed_subject_alt_names: names, ..Default::default() };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
            tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
            ..Default::default()
        }),
        alpn_protocols: alpn.iter().map(|&protocol| protocol.to_owned()).collect(),
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(validation),
                validation_context_sds_secret_config: Some(secret("ROOTCA")),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn uri(pattern: MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(StringMatcher { match_pattern: Some(pattern), ..Default::default() }),
        ..Default::default()
    }
}

fn secret(name: &str) -> SdsSecretConfig {
    let grpc = grpc_service::EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..Default::default() };
    let source = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        set_node_on_first_message_only: true,
        grpc_services: vec![GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        }],
        ..Default::default()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3 as i32,
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
            ..Default::default()
        }),
    }
}
