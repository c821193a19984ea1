//! Transport sockets: `DownstreamTlsContext`, `UpstreamTlsContext`, certificates and validation contexts.
//!
//! Nothing that weakens or strengthens TLS is ignored, and no error quotes key material.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::{
    DataSource, TransportSocket, WatchedDirectory, data_source, transport_socket::ConfigType,
};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::tls::v3 as wire;

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::route_match::compile_string_matcher;
use super::source::{Fetch, compile_config_source, is_identity};
use super::values;
use crate::config::certificate_files::compile_inline;
use crate::config::live::Live;
use crate::config::sources::SourceId;
use crate::transport_socket::{
    DownstreamTls, DownstreamTlsOptions, DownstreamTransport, SanMatcher, SanType, TlsCertificate, TlsParams,
    TlsVersion, UpstreamTls, UpstreamTlsOptions, UpstreamTransport, ValidationContext, ValidationOptions,
    ValidationSource, parse_certificate_hash, parse_spki_hash,
};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const DOWNSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// The packed context of a transport socket; `None` is plaintext.
fn typed_config<'m>(
    cx: &mut CompileCx<'_>,
    socket: &'m Option<TransportSocket>,
) -> Compiled<Option<&'m Any>> {
    let Some(TransportSocket { name, config_type }) = socket else { return Ok(None) };
    match config_type {
        Some(ConfigType::TypedConfig(any)) if values::type_name(any) == RAW_BUFFER => Ok(None),
        Some(ConfigType::TypedConfig(any)) => Ok(Some(any)),
        None if name == "envoy.transport_sockets.raw_buffer" => Ok(None),
        None => Err(cx.refuse("typed_config", format!("transport socket '{name}' has no typed_config"))),
    }
}

/// Compiles `FilterChain.transport_socket`, at the context's present path.
pub(crate) fn compile_downstream_transport(
    cx: &mut CompileCx<'_>,
    socket: &Option<TransportSocket>,
) -> Compiled<DownstreamTransport> {
    let Some(any) = typed_config(cx, socket)? else { return Ok(DownstreamTransport::Plaintext) };
    cx.field("typed_config", |cx| match values::type_name(any) {
        DOWNSTREAM_TLS => {
            let context: wire::DownstreamTlsContext = values::unpack(cx, any)?;
            compile_downstream_tls(cx, &context).map(|tls| DownstreamTransport::Tls(Arc::new(tls)))
        }
        other => {
            Err(cx.refuse("@type", format!("transport socket '{other}' is not supported in a filter chain")))
        }
    })
}

/// Compiles `Cluster.transport_socket`, at the context's present path.
pub(crate) fn compile_upstream_transport(
    cx: &mut CompileCx<'_>,
    socket: &Option<TransportSocket>,
) -> Compiled<UpstreamTransport> {
    let Some(any) = typed_config(cx, socket)? else { return Ok(UpstreamTransport::Plaintext) };
    cx.field("typed_config", |cx| match values::type_name(any) {
        UPSTREAM_TLS => {
            let context: wire::UpstreamTlsContext = values::unpack(cx, any)?;
            compile_upstream_tls(cx, &context).map(|tls| UpstreamTransport::Tls(Arc::new(tls)))
        }
        other => Err(cx.refuse("@type", format!("transport socket '{other}' is not supported in a cluster"))),
    })
}

fn compile_downstream_tls(
    cx: &mut CompileCx<'_>,
    value: &wire::DownstreamTlsContext,
) -> Compiled<DownstreamTls> {
    use wire::downstream_tls_context::SessionTicketKeysType;
    let wire::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = value;
    unsupported!(cx; session_timeout, ocsp_staple_policy, prefer_client_ciphers);
    values::unsupported_if_true(cx, "require_sni", require_sni);
    // There is one certificate to choose from, and sessions are never stored.
    ignored!(cx; full_scan_certs_on_sni_mismatch);
    informational!(disable_stateful_session_resumption);
    let session_tickets = match session_ticket_keys_type {
        None => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disabled)) => !disabled,
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            return Err(cx.refuse("session_ticket_keys", "not supported"));
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            return Err(cx.refuse("session_ticket_keys_sds_secret_config", "not supported"));
        }
    };
    let common = compile_common(cx, common_tls_context, TlsVersion::V1_3)?;
    let Some(certificate) = common.certificate else {
        return Err(cx.refuse("common_tls_context", "No TLS certificates found for server context"));
    };
    DownstreamTls::new(DownstreamTlsOptions {
        params: common.params,
        alpn: common.alpn,
        certificate,
        validation: common.validation,
        require_client_certificate: values::boolean(require_client_certificate, false),
        session_tickets,
    })
    .map_err(|e| cx.refuse("common_tls_context", e))
}

fn compile_upstream_tls(cx: &mut CompileCx<'_>, value: &wire::UpstreamTlsContext) -> Compiled<UpstreamTls> {
    let wire::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = value;
    unsupported!(cx; auto_host_sni, auto_sni_san_validation, allow_renegotiation);
    // Key usage is always enforced.
    ignored!(cx; enforce_rsa_key_usage);
    if sni.len() > 255 {
        return Err(cx.refuse("sni", "value length must be at most 255 bytes"));
    }
    // Envoy's default for clients; what speaks TLS 1.3 upstream says so.
    let common = compile_common(cx, common_tls_context, TlsVersion::V1_2)?;
    UpstreamTls::new(UpstreamTlsOptions {
        params: common.params,
        alpn: common.alpn,
        sni: Some(sni.clone()).filter(|s| !s.is_empty()),
        certificate: common.certificate,
        validation: common.validation,
        max_session_keys: values::uint32(max_session_keys, 1),
    })
    .map_err(|e| cx.refuse("", e))
}

/// `CommonTlsContext`, compiled.
#[derive(Debug)]
struct Common {
    params: TlsParams,
    alpn: Vec<Vec<u8>>,
    certificate: Option<Arc<Live<TlsCertificate>>>,
    validation: Option<ValidationSource>,
}

fn compile_common(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::CommonTlsContext>,
    default_max: TlsVersion,
) -> Compiled<Common> {
    cx.field("common_tls_context", |cx| {
        compile_common_inner(cx, &value.clone().unwrap_or_default(), default_max)
    })
}

fn compile_common_inner(
    cx: &mut CompileCx<'_>,
    value: &wire::CommonTlsContext,
    default_max: TlsVersion,
) -> Compiled<Common> {
    let wire::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = value;
    unsupported!(cx; tls_certificate_provider_instance, custom_tls_certificate_selector,
        tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker,
        key_log);
    let params = cx.field("tls_params", |cx| compile_params(cx, tls_params, default_max));
    let certificates =
        cx.each("tls_certificates", tls_certificates, |certificate, cx| compile_inline(cx, certificate));
    let secrets =
        cx.each("tls_certificate_sds_secret_configs", tls_certificate_sds_secret_configs, |config, cx| {
            certificate_secret(cx, config)
        });
    let mut sources = certificates?;
    sources.extend(secrets?);
    if sources.len() > 1 {
        return Err(cx.refuse("tls_certificates", "more than one certificate is not supported"));
    }
    for (i, protocol) in alpn_protocols.iter().enumerate() {
        if protocol.is_empty() || protocol.len() > 255 {
            cx.refuse(&format!("alpn_protocols[{i}]"), "Invalid ALPN protocol string");
        }
    }
    let validation = compile_validation_source(cx, validation_context_type)?;
    Ok(Common {
        params: params?,
        alpn: alpn_protocols.iter().map(|p| p.clone().into_bytes()).collect(),
        certificate: sources.pop(),
        validation,
    })
}

fn compile_params(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::TlsParameters>,
    default_max: TlsVersion,
) -> Compiled<TlsParams> {
    let mut params = TlsParams { max: default_max, ..TlsParams::default() };
    let Some(value) = value else { return Ok(params) };
    let wire::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = value;
    unsupported!(cx; cipher_suites, ecdh_curves, signature_algorithms, compliance_policies);
    if let Some(min) = version(cx, "tls_minimum_protocol_version", *tls_minimum_protocol_version)? {
        params.min = min;
    }
    if let Some(max) = version(cx, "tls_maximum_protocol_version", *tls_maximum_protocol_version)? {
        params.max = max;
    }
    Ok(params)
}

fn version(cx: &mut CompileCx<'_>, name: &str, value: i32) -> Compiled<Option<TlsVersion>> {
    use wire::tls_parameters::TlsProtocol;
    match values::enumeration(cx, name, value)? {
        TlsProtocol::TlsAuto => Ok(None),
        TlsProtocol::TlSv12 => Ok(Some(TlsVersion::V1_2)),
        TlsProtocol::TlSv13 => Ok(Some(TlsVersion::V1_3)),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            Err(cx.refuse(name, "TLS 1.0 and 1.1 are not supported"))
        }
    }
}

/// Compiles a `TlsCertificate`, at the context's present path.
pub(crate) fn compile_certificate(
    cx: &mut CompileCx<'_>,
    value: &wire::TlsCertificate,
) -> Compiled<TlsCertificate> {
    let wire::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = value;
    watch(cx, watched_directory);
    unsupported!(cx; pkcs12, private_key_provider, password, ocsp_staple,
        signed_certificate_timestamp, tls_params);
    let chain = match certificate_chain {
        Some(source) => cx.field("certificate_chain", |cx| values::data(cx, source)),
        None => Err(cx.refuse("certificate_chain", "value is required")),
    };
    let key = match private_key {
        Some(source) => cx.field("private_key", |cx| values::data(cx, source)),
        None => Err(cx.refuse("private_key", "value is required")),
    };
    TlsCertificate::from_pem(&chain?, &key?).map_err(|e| cx.refuse("", e))
}

fn watch(cx: &mut CompileCx<'_>, folder: &Option<WatchedDirectory>) {
    if let Some(WatchedDirectory { path, watch_modify }) = folder {
        // A file that was written in place is always seen, once it is closed.
        informational!(watch_modify);
        cx.files.watch(path);
    }
}

fn compile_validation_source(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::common_tls_context::ValidationContextType>,
) -> Compiled<Option<ValidationSource>> {
    use wire::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType as Type};
    Ok(Some(match value {
        None => return Ok(None),
        Some(Type::ValidationContext(context)) => {
            ValidationSource::Whole(cx.field("validation_context", |cx| compile_inline(cx, context))?)
        }
        Some(Type::ValidationContextSdsSecretConfig(config)) => ValidationSource::Whole(
            cx.field("validation_context_sds_secret_config", |cx| validation_secret(cx, config))?,
        ),
        Some(Type::CombinedValidationContext(combined)) => cx.field("combined_validation_context", |cx| {
            let CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = combined;
            unsupported!(cx; validation_context_certificate_provider, validation_context_certificate_provider_instance);
            let default = cx.field("default_validation_context", |cx| {
                compile_inline(cx, &default_validation_context.clone().unwrap_or_default())
            });
            let Some(config) = validation_context_sds_secret_config else {
                return Err(cx.refuse("validation_context_sds_secret_config", "value is required"));
            };
            let secret = cx.field("validation_context_sds_secret_config", |cx| validation_secret(cx, config))?;
            Ok(ValidationSource::Combined { default: default?, secret })
        })?,
        Some(Type::ValidationContextCertificateProvider(_)) => {
            return Err(cx.refuse("validation_context_certificate_provider", "not supported"));
        }
        Some(Type::ValidationContextCertificateProviderInstance(_)) => {
            return Err(cx.refuse("validation_context_certificate_provider_instance", "not supported"));
        }
    }))
}

/// What `/certs` calls the place that a certificate came from.
pub(crate) fn source_name(source: &Option<DataSource>) -> &str {
    match source.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(data_source::Specifier::Filename(path)) => path,
        _ => "<inline>",
    }
}

/// Compiles a `CertificateValidationContext`, at the context's present path.
pub(crate) fn compile_validation_context(
    cx: &mut CompileCx<'_>,
    value: &wire::CertificateValidationContext,
) -> Compiled<ValidationContext> {
    let wire::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = value;
    watch(cx, watched_directory);
    unsupported!(cx; ca_certificate_provider_instance, system_root_certs, crl, trust_chain_verification,
         custom_validator_config, max_verify_depth);
    values::unsupported_if_true(
        cx,
        "require_signed_certificate_timestamp",
        require_signed_certificate_timestamp,
    );
    // A list of names that only helps clients to choose; no effect without `crl`.
    ignored!(cx; suppress_client_ca_list);
    informational!(only_verify_leaf_cert_crl);
    let trusted_ca = match trusted_ca {
        Some(source) => cx.field("trusted_ca", |cx| values::data(cx, source)).map(Some),
        None => Ok(None),
    };
    let mut match_sans =
        cx.each("match_typed_subject_alt_names", match_typed_subject_alt_names, compile_san_matcher)?;
    // The older form has no type: it matches names of any.
    for san_type in [SanType::Dns, SanType::Uri, SanType::Email, SanType::Ip] {
        match_sans.extend(cx.each("match_subject_alt_names", match_subject_alt_names, |matcher, cx| {
            Ok(SanMatcher { san_type, matcher: compile_string_matcher(cx, matcher)? })
        })?);
    }
    let certificate_hashes = cx.each("verify_certificate_hash", verify_certificate_hash, |text, cx| {
        parse_certificate_hash(text).map_err(|e| cx.refuse("", e))
    });
    let spki_hashes = cx.each("verify_certificate_spki", verify_certificate_spki, |text, cx| {
        parse_spki_hash(text).map_err(|e| cx.refuse("", e))
    });
    ValidationContext::new(ValidationOptions {
        trusted_ca: trusted_ca?,
        match_sans,
        certificate_hashes: certificate_hashes?,
        spki_hashes: spki_hashes?,
        allow_expired: *allow_expired_certificate,
    })
    .map_err(|e| cx.refuse("trusted_ca", e))
}

fn compile_san_matcher(value: &wire::SubjectAltNameMatcher, cx: &mut CompileCx<'_>) -> Compiled<SanMatcher> {
    use wire::subject_alt_name_matcher::SanType as Wire;
    let wire::SubjectAltNameMatcher { san_type, matcher, oid } = value;
    unsupported!(cx; oid);
    let san_type = match values::enumeration(cx, "san_type", *san_type)? {
        Wire::Email => SanType::Email,
        Wire::Dns => SanType::Dns,
        Wire::Uri => SanType::Uri,
        Wire::IpAddress => SanType::Ip,
        Wire::OtherName => return Err(cx.refuse("san_type", "OTHER_NAME is not supported")),
        Wire::Unspecified => return Err(cx.refuse("san_type", "value must not be SAN_TYPE_UNSPECIFIED")),
    };
    let Some(matcher) = matcher else {
        return Err(cx.refuse("matcher", "value is required"));
    };
    let matcher = cx.field("matcher", |cx| compile_string_matcher(cx, matcher))?;
    Ok(SanMatcher { san_type, matcher })
}

/// Where a secret of this name comes from; `None`: from the bootstrap's `secrets`.
fn secret_source(cx: &mut CompileCx<'_>, config: &wire::SdsSecretConfig) -> Compiled<Option<Fetch>> {
    let wire::SdsSecretConfig { name, sds_config } = config;
    if name.is_empty() {
        return Err(cx.refuse("name", "value length must be at least 1 characters"));
    }
    if sds_config.is_none() {
        return Ok(None);
    }
    compile_config_source(cx, "sds_config", sds_config).map(Some)
}

fn certificate_secret(
    cx: &mut CompileCx<'_>,
    config: &wire::SdsSecretConfig,
) -> Compiled<Arc<Live<TlsCertificate>>> {
    let fetch = secret_source(cx, config)?;
    if fetch.is_some_and(|fetch| is_identity(cx, fetch)) {
        return identity_secret(cx, &config.name, |cx| cx.inputs.registry.identity_certificate.clone());
    }
    let source = fetch.map_or(SourceId::STATIC, |fetch| fetch.source);
    let cell = cx.inputs.registry.certificates.of_mut(source).cell(&config.name);
    named_secret(cx, fetch, &cell)?;
    Ok(cell)
}

fn validation_secret(
    cx: &mut CompileCx<'_>,
    config: &wire::SdsSecretConfig,
) -> Compiled<Arc<Live<ValidationContext>>> {
    let fetch = secret_source(cx, config)?;
    if fetch.is_some_and(|fetch| is_identity(cx, fetch)) {
        return identity_secret(cx, &config.name, |cx| cx.inputs.registry.identity_validation.clone());
    }
    let source = fetch.map_or(SourceId::STATIC, |fetch| fetch.source);
    let cell = cx.inputs.registry.validations.of_mut(source).cell(&config.name);
    named_secret(cx, fetch, &cell)?;
    Ok(cell)
}

fn named_secret<T>(cx: &mut CompileCx<'_>, fetch: Option<Fetch>, cell: &Arc<Live<T>>) -> Compiled<()> {
    match fetch {
        Some(fetch) => cx.watch(ResourceType::Secret, fetch, cell.name()),
        None if cell.peek().is_none() => {
            return Err(cx.refuse("name", format!("Unknown static secret: {}", cell.name())));
        }
        None => {}
    }
    Ok(())
}

/// The workload's identity has two secrets: its certificate `default` and the roots `ROOTCA`.
fn identity_secret<T>(
    cx: &mut CompileCx<'_>,
    name: &str,
    cell: impl FnOnce(&CompileCx<'_>) -> Arc<Live<T>>,
) -> Compiled<Arc<Live<T>>> {
    let cell = cell(cx);
    if **cell.name() != *name {
        return Err(cx.refuse("name", format!("'{name}': the secret of this kind is '{}'", cell.name())));
    }
    cx.references.identity_secrets.push(cell.name().clone());
    Ok(cell)
}
