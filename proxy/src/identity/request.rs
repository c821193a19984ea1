//! One request to the certificate service: key, CSR, token, answer.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_xds_api::istio_ca::{IstioCertificateRequest, IstioCertificateServiceClient};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::IdentityOptions;
use crate::transport_socket::{TlsCertificate, ValidationContext, ValidationOptions};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the service issued.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) certificate: TlsCertificate,
    pub(super) roots: ValidationContext,
    /// As the service gave it, PEM: the certificate first, the roots last.
    pub(super) chain: Vec<String>,
    pub(super) private_key: PrivateKey,
}

/// A private key, PEM. It is never printed.
pub struct PrivateKey(pub(crate) String);

impl PrivateKey {
    /// The key itself, which must not get into a log or an error.
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Whether the options can work at all.
pub(super) fn check(options: &IdentityOptions) -> Result<(), String> {
    if options.ca_root_cert.is_none() && !options.ca.at().is_loopback() {
        return Err(format!(
            "CA address '{}': the token may be sent in plaintext to a loopback address only; give the CA's root certificate",
            options.ca.at()
        ));
    }
    if !options.principal.starts_with("spiffe://") {
        return Err(format!("'{}' is not a SPIFFE identity", options.principal));
    }
    Ok(())
}

/// Makes a key, asks for its certificate and checks what comes back. Errors never contain the token or the key.
pub(super) async fn certificate(options: &IdentityOptions) -> Result<Answer, String> {
    let key =
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| format!("cannot make a key: {e}"))?;
    let mut request = Request::new(IstioCertificateRequest {
        csr: signing_request(&options.principal, &key)?,
        validity_duration: i64::try_from(options.lifetime.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    request.metadata_mut().insert("authorization", bearer_token(options)?);
    request.set_timeout(REQUEST_TIMEOUT);
    let channel = connect(options).await?;
    let answer = IstioCertificateServiceClient::new(channel)
        .create_certificate(request)
        .await
        .map_err(|status| format!("{}: {:?}: {}", options.ca.at(), status.code(), status.message()))?;
    read(&options.principal, answer.into_inner().cert_chain, PrivateKey(key.serialize_pem()))
}

fn signing_request(principal: &str, key: &KeyPair) -> Result<String, String> {
    let invalid = |e: rcgen::Error| format!("cannot make a CSR for '{principal}': {e}");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(principal.try_into().map_err(invalid)?)];
    params.serialize_request(key).and_then(|csr| csr.pem()).map_err(invalid)
}

fn bearer_token(options: &IdentityOptions) -> Result<AsciiMetadataValue, String> {
    let file = options.token_file.display();
    let token = std::fs::read_to_string(&options.token_file)
        .map_err(|e| format!("cannot read the token file {file}: {e}"))?;
    let mut value: AsciiMetadataValue = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| format!("the token file {file} does not have a token in it"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Tries the addresses of the service, one after the other.
async fn connect(options: &IdentityOptions) -> Result<Channel, String> {
    let at = options.ca.at();
    let mut failures: Vec<String> = Vec::new();
    for address in options.ca.addresses().await? {
        match endpoint(options, address)?.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => failures.push(format!("{address}: {}", with_causes(&error))),
        }
    }
    Err(format!("cannot connect to the CA at {at}: {}", failures.join("; ")))
}

/// One address of the service, called by its name: in the request, as SNI and in what its certificate must prove.
fn endpoint(options: &IdentityOptions, address: SocketAddr) -> Result<Endpoint, String> {
    let at = options.ca.at();
    let invalid = |reason: String| format!("CA address '{at}': {reason}");
    let scheme = if options.ca_root_cert.is_some() { "https" } else { "http" };
    let origin = format!("{scheme}://{at}").parse().map_err(|e| invalid(format!("{e}")))?;
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|e| invalid(with_causes(&e)))?
        .origin(origin)
        .connect_timeout(CONNECT_TIMEOUT);
    let Some(path) = &options.ca_root_cert else { return Ok(endpoint) };
    let pem = std::fs::read(path)
        .map_err(|e| format!("cannot read the CA's root certificate {}: {e}", path.display()))?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    if let Some(name) = at.certificate_name() {
        tls = tls.domain_name(name);
    }
    endpoint.tls_config(tls).map_err(|e| invalid(with_causes(&e)))
}

/// tonic's errors say what happened only in their sources.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What of a chain is sent to peers, and the roots: its last element.
pub(super) fn split(chain: &[String]) -> (String, String) {
    let (roots, sent) = chain.split_last().map_or(("", &[][..]), |(last, before)| (last, before));
    (sent.join("\n"), roots.to_owned())
}

/// The answer is a chain, leaf first; its last element is the root.
pub(super) fn read(principal: &str, chain: Vec<String>, private_key: PrivateKey) -> Result<Answer, String> {
    let [issued @ .., root] = chain.as_slice() else {
        return Err("the CA answered without a certificate".to_owned());
    };
    if issued.is_empty() {
        return Err("the CA answered without a root certificate".to_owned());
    }
    let certificate = TlsCertificate::from_pem(issued.join("\n").as_bytes(), private_key.0.as_bytes())
        .map_err(|e| format!("the CA's answer: {e}"))?;
    match certificate.leaf().principal() {
        Some(certified) if **certified == *principal => {}
        Some(certified) => return Err(format!("the CA certified '{certified}' instead")),
        None => return Err("the CA's certificate has no SPIFFE identity".to_owned()),
    }
    let options = ValidationOptions { trusted_ca: Some(root.clone().into_bytes()), ..Default::default() };
    let roots = ValidationContext::new(options).map_err(|e| format!("the CA's answer: {e}"))?;
    Ok(Answer { certificate, roots, chain, private_key })
}
