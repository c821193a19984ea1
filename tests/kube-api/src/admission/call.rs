//! The HTTPS request to a webhook.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::{Cluster, lock};
use crate::kinds::Collection;

/// Where a webhook is.
struct Destination {
    /// For messages, and as the request's target.
    url: String,
    /// The name that its certificate must have.
    host: String,
    /// Where to connect; `None`: resolve the host.
    address: Option<SocketAddr>,
    port: u16,
}

/// Sends a review and reads the answer; the error is what a real server says.
pub(super) async fn post(cluster: &Cluster, webhook: &Value, review: &Value) -> Result<Value, String> {
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
    let destination = destination(cluster, &webhook["clientConfig"], seconds)?;
    let url = destination.url.clone();
    let exchange = exchange(&destination, &webhook["clientConfig"]["caBundle"], review);
    let bytes = match tokio::time::timeout(Duration::from_secs(seconds), exchange).await {
        Err(_) => return Err(format!("Post {url:?}: context deadline exceeded")),
        Ok(Err(Failure::Transport(why))) => return Err(format!("Post {url:?}: {why}")),
        Ok(Err(Failure::Status)) => {
            return Err(
                r#"an error on the server ("unknown") has prevented the request from succeeding"#.into()
            );
        }
        Ok(Ok(bytes)) => bytes,
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
}

enum Failure {
    /// The connection, TLS or HTTP failed.
    Transport(String),
    /// The webhook did not answer with 200.
    Status,
}

fn destination(cluster: &Cluster, config: &Value, seconds: u64) -> Result<Destination, String> {
    let with_timeout = |url: String| {
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}timeout={seconds}s")
    };
    if let Some(url) = config["url"].as_str() {
        let uri: Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let address = host.parse().ok().map(|ip| SocketAddr::new(ip, uri.port_u16().unwrap_or(443)));
        return Ok(Destination {
            url: with_timeout(url.to_owned()),
            host,
            address,
            port: uri.port_u16().unwrap_or(443),
        });
    }
    let service = &config["service"];
    let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
    let host = format!("{name}.{namespace}.svc");
    let path = text("path");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = with_timeout(format!("https://{host}:{port}{slash}{path}"));
    let routed = lock(&cluster.addresses).get(&(namespace.clone(), name.clone())).copied();
    let address = match routed {
        Some(address) => address,
        None => endpoint(cluster, &namespace, &name, port).map_err(|why| format!("Post {url:?}: {why}"))?,
    };
    Ok(Destination { url, host, address: Some(address), port })
}

/// The first ready endpoint of a service's port.
fn endpoint(cluster: &Cluster, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
    let service = cluster
        .get(&Collection::new("", "services"), namespace, name)
        .ok_or_else(|| format!("service {name:?} not found"))?;
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port = ports
        .iter()
        .find(|one| one["port"] == port)
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = port["name"].as_str().unwrap_or_default();
    let slices = cluster.read(|store| store.list(&Collection::new("discovery.k8s.io", "endpointslices")));
    for slice in slices.values() {
        let of_service = slice["metadata"]["labels"]["kubernetes.io/service-name"] == name
            && slice["metadata"]["namespace"] == namespace;
        let slice_ports = slice["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let number = slice_ports
            .iter()
            .find(|one| one["name"].as_str().unwrap_or_default() == port_name)
            .and_then(|one| u16::try_from(one["port"].as_u64()?).ok());
        let Some(number) = number.filter(|_| of_service) else { continue };
        let ready = slice["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["conditions"]["ready"] != false);
        let address = ready.and_then(|one| one["addresses"][0].as_str()?.parse().ok());
        if let Some(address) = address {
            return Ok(SocketAddr::new(address, number));
        }
    }
    Err(format!("no endpoints available for service {name:?}"))
}

async fn exchange(destination: &Destination, authority: &Value, review: &Value) -> Result<Bytes, Failure> {
    let transport = |error: &dyn std::fmt::Display| Failure::Transport(error.to_string());
    let stream = match destination.address {
        Some(address) => TcpStream::connect(address).await.map_err(|error| dial_error(&error, address))?,
        None => TcpStream::connect((destination.host.as_str(), destination.port))
            .await
            .map_err(|error| transport(&error))?,
    };
    let config = client_config(authority).map_err(Failure::Transport)?;
    let name = ServerName::try_from(destination.host.clone()).map_err(|error| transport(&error))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| Failure::Transport(tls_error(&error)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| transport(&error))?;
    let connection = tokio::spawn(connection);
    let uri: Uri = destination.url.parse().map_err(|error| transport(&error))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::post(target)
        .header("host", uri.authority().map_or("", |authority| authority.as_str()))
        .header("content-type", "application/json")
        .header("accept", "application/json, */*")
        .header("user-agent", "kube-apiserver-admission")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| transport(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| transport(&error))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| transport(&error))?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(Failure::Status) }
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn client_config(authority: &Value) -> Result<ClientConfig, String> {
    let pem = STANDARD.decode(authority.as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn dial_error(error: &std::io::Error, address: SocketAddr) -> Failure {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    };
    Failure::Transport(format!("dial tcp {address}: connect: {why}"))
}

/// As Go says it, where it matters.
fn tls_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "x509: certificate signed by unknown authority".to_owned(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "x509: certificate has expired or is not yet valid".to_owned(),
        Some(rustls::Error::InvalidCertificate(other)) => format!("x509: {other}"),
        _ => return format!("tls: {error}"),
    };
    format!("tls: failed to verify certificate: {why}")
}
