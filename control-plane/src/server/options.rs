//! What the control plane is started with: flags, each also an environment variable.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use super::XdsAddress;
use crate::ca::serving::DNS_NAMES;
use crate::model::UnknownDestinations;
use crate::server::StartError;
use crate::status;
use clap::builder::NonEmptyStringValueParser;
use rustls_pki_types::DnsName;

/// The control plane of the Outrigger service mesh: reads Kubernetes objects, configures the sidecars over xDS and
/// signs their certificates.
#[derive(Parser, Debug, Clone)]
#[command(name = "outrigger-control-plane", version)]
pub struct Options {
    /// Where the objects come from: `kubernetes`, an API server, or `file:DIR`, a directory of Kubernetes YAML that is
    /// watched
    #[arg(long, env = "OUTRIGGER_SOURCE", value_name = "SOURCE")]
    pub source: Source,

    /// How to reach the API server of the source `kubernetes`; without it the service account of the Pod is used
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Audience of the service account tokens that sidecars present, with the source `kubernetes`
    #[arg(
        long, env = "OUTRIGGER_TOKEN_AUDIENCE", value_name = "AUDIENCE", default_value = "istio-ca",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub token_audience: String,

    /// Plaintext address of xDS and the certificate service: IP:PORT on loopback (port 0 picks a free port), or unix:PATH,
    /// a socket for this process's user only. Sidecars present their bearer token on either
    #[arg(
        long,
        env = "OUTRIGGER_XDS_ADDRESS",
        value_name = "IP:PORT|unix:PATH",
        default_value = "127.0.0.1:15010"
    )]
    pub xds_address: XdsAddress,

    /// TLS address of xDS and the certificate service, with a certificate of the mesh's own CA
    #[arg(long, env = "OUTRIGGER_XDS_TLS_ADDRESS", value_name = "IP:PORT")]
    pub xds_tls_address: Option<SocketAddr>,

    /// DNS name that sidecars and the API server may call the control plane by: its certificates are good for it beside
    /// its addresses. Repeatable; those given replace the default ones
    #[arg(
        long = "serving-name", env = "OUTRIGGER_SERVING_NAMES", value_name = "NAME", value_delimiter = ',',
        default_values = DNS_NAMES, value_parser = dns_name
    )]
    pub serving_names: Vec<String>,

    /// Address of /ready, /metrics, /proxies, /rejections, /config_dump and /version (HTTP)
    #[arg(long, env = "OUTRIGGER_ADMIN_ADDRESS", value_name = "IP:PORT", default_value = "127.0.0.1:15014")]
    pub admin_address: SocketAddr,

    /// HTTPS address of the admission webhooks /inject and /validate; without it there are none
    #[arg(long, env = "OUTRIGGER_WEBHOOK_ADDRESS", value_name = "IP:PORT")]
    pub webhook_address: Option<SocketAddr>,

    /// Settings of injection (YAML); default: the defaults, with this trust domain and cluster domain
    #[arg(long, env = "OUTRIGGER_INJECTION_SETTINGS", value_name = "FILE", requires = "webhook_address")]
    pub injection_settings: Option<PathBuf>,

    /// Name of the Mutating- and of the ValidatingWebhookConfiguration whose `caBundle` is kept, with the source
    /// `kubernetes`
    #[arg(
        long, env = "OUTRIGGER_WEBHOOK_CONFIGURATION", value_name = "NAME",
        default_value = "outrigger-control-plane-outrigger-system", value_parser = NonEmptyStringValueParser::new()
    )]
    pub webhook_configuration: String,

    /// Directory of the CA's root, addresses.json and, for the source `file`, the tokens; made with mode 0700
    #[arg(long, env = "OUTRIGGER_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Directory of the files that say what became of the objects, with the source `file:DIR`; default: DIR/.status. Inside of
    /// DIR its path must have a name that begins with a dot
    #[arg(long, env = "OUTRIGGER_STATUS_DIR", value_name = "DIR", conflicts_with = "no_status_files")]
    pub status_dir: Option<PathBuf>,

    /// Write no files that say what became of the objects
    #[arg(long, env = "OUTRIGGER_NO_STATUS_FILES")]
    pub no_status_files: bool,

    /// Trust domain of every workload's identity, spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    pub trust_domain: String,

    /// DNS suffix of Services
    #[arg(long, env = "OUTRIGGER_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Namespace whose policies hold for the whole mesh
    #[arg(long, env = "OUTRIGGER_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,

    /// Longest life of a workload certificate, for example 24h, 90m or 30s
    #[arg(
        long, env = "OUTRIGGER_WORKLOAD_CERT_TTL", value_name = "DURATION", default_value = "24h",
        value_parser = duration
    )]
    pub workload_cert_ttl: Duration,

    /// PEM file with the certificate to sign with, then its issuers up to the root; without it a root is made
    #[arg(long, env = "OUTRIGGER_CA_CERT", value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,

    /// PEM file with the private key of --ca-cert
    #[arg(long, env = "OUTRIGGER_CA_KEY", value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,

    /// PEM file with more roots that workloads trust, for the time in which the root is replaced; read again for each use
    #[arg(long, env = "OUTRIGGER_TRUSTED_ROOTS", value_name = "FILE")]
    pub trusted_roots: Option<PathBuf>,

    /// Secret in the control plane's namespace that keeps the CA's root, with the source `kubernetes`; without it the root
    /// is in --data-dir alone
    #[arg(long, env = "OUTRIGGER_CA_SECRET", value_name = "NAME", conflicts_with = "ca_cert")]
    pub ca_secret: Option<String>,

    /// Namespace of the control plane itself
    #[arg(long, env = "POD_NAMESPACE", default_value = "outrigger-system")]
    pub namespace: String,

    /// Name of the Lease by which one of several control planes writes the status of objects (--source kubernetes)
    #[arg(long, env = "OUTRIGGER_LEASE", value_name = "NAME", default_value = "outrigger-control-plane")]
    pub lease: String,

    /// Name of this process in the Lease; without it a random one
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,

    /// What becomes of captured connections to addresses that the mesh does not know
    #[arg(
        long, env = "OUTRIGGER_OUTBOUND_TRAFFIC_POLICY", value_enum, ignore_case = true,
        default_value_t = OutboundTrafficPolicy::AllowAny
    )]
    pub outbound_traffic_policy: OutboundTrafficPolicy,

    /// Have the sidecars write an access log line for each request and connection
    #[arg(long, env = "OUTRIGGER_ACCESS_LOG")]
    pub access_log: bool,

    /// Have the sidecars say in the response header Proxy-Status (RFC 9209) why a request failed
    #[arg(long, env = "OUTRIGGER_PROXY_STATUS")]
    pub proxy_status: bool,
}

impl Options {
    /// Where the statuses of a directory's objects are written; `None` when they are not.
    ///
    /// # Errors
    /// They would be read as objects.
    pub(super) fn status_folder(&self) -> Result<Option<PathBuf>, StartError> {
        let Source::File(source) = &self.source else { return Ok(None) };
        if self.no_status_files {
            return Ok(None);
        }
        let Some(folder) = &self.status_dir else { return Ok(Some(source.join(status::FOLDER))) };
        // A folder that does not exist yet is taken as it is written.
        let real = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let (Ok(real_folder), Ok(real_source)) = (real(folder), real(source)) else {
            return Ok(Some(folder.clone()));
        };
        let is_hidden = |part: Component<'_>| part.as_os_str().to_string_lossy().starts_with('.');
        match real_folder.strip_prefix(&real_source) {
            Ok(below) if !below.components().any(is_hidden) => Err(StartError::StatusDir(folder.clone())),
            _ => Ok(Some(folder.clone())),
        }
    }
}

/// Istio's `outboundTrafficPolicy.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutboundTrafficPolicy {
    /// They go on as they are
    #[value(name = "ALLOW_ANY")]
    AllowAny,
    /// They are closed
    #[value(name = "REGISTRY_ONLY")]
    RegistryOnly,
}

impl From<OutboundTrafficPolicy> for UnknownDestinations {
    fn from(policy: OutboundTrafficPolicy) -> Self {
        match policy {
            OutboundTrafficPolicy::AllowAny => Self::AllowAny,
            OutboundTrafficPolicy::RegistryOnly => Self::RegistryOnly,
        }
    }
}

/// Where the objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of Kubernetes YAML.
    File(PathBuf),
    /// A Kubernetes API server.
    Kubernetes,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(directory) => write!(f, "file:{}", directory.display()),
            Self::Kubernetes => f.write_str("kubernetes"),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", "")) => Err("`file:` needs a directory, for example file:./mesh".to_owned()),
            Some(("file", directory)) => Ok(Self::File(directory.into())),
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(format!("`{text}` is not a source; use kubernetes or file:DIR")),
        }
    }
}

fn trust_domain(text: &str) -> Result<String, String> {
    // SPIFFE-ID section 2.1.
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a trust domain has lower-case letters, digits, `.`, `-` and `_` only".to_owned())
    }
}

fn dns_name(text: &str) -> Result<String, String> {
    match DnsName::try_from(text) {
        Ok(_) if !text.ends_with('.') => Ok(text.to_owned()),
        _ => Err("not a DNS name, for example outrigger-control-plane.outrigger-system.svc".to_owned()),
    }
}

/// A whole number with the unit `s`, `m`, `h` or `d`; more than zero.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration; write a whole number with s, m, h or d, for example 24h");
    let unit_s = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(unit_s).filter(|seconds| (1..=10 * 365 * 24 * 3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is not between 1s and ten years"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["outrigger-control-plane", "--data-dir", "d"].iter().chain(arguments))
    }

    #[test]
    fn defaults() {
        let options = parse(&["--source", "file:mesh"]).unwrap();
        assert_eq!(options.source, Source::File("mesh".into()));
        assert_eq!(options.workload_cert_ttl, Duration::from_secs(24 * 3600));
        assert_eq!(options.xds_address.to_string(), "127.0.0.1:15010");
        assert!(options.xds_tls_address.is_none() && !options.access_log && !options.proxy_status);
        assert_eq!(options.serving_names, DNS_NAMES);
        let options = parse(&["--source", "kubernetes"]).unwrap();
        assert_eq!((options.source, options.token_audience.as_str()), (Source::Kubernetes, "istio-ca"));
    }

    #[test]
    fn statuses_are_never_read_as_objects() {
        let directory = tempfile::tempdir().unwrap();
        let mesh = directory.path().join("mesh");
        std::fs::create_dir(&mesh).unwrap();
        let source = format!("--source=file:{}", mesh.display());
        let folder = |flag: Option<&Path>| {
            let flag = flag.map(|path| format!("--status-dir={}", path.display()));
            let arguments: Vec<&str> = [source.as_str()].into_iter().chain(flag.as_deref()).collect();
            parse(&arguments).unwrap().status_folder()
        };
        assert_eq!(folder(None).unwrap(), Some(mesh.join(".status")));
        for good in
            [directory.path().join("elsewhere"), mesh.join(".a/b"), directory.path().join("mesh-status")]
        {
            assert_eq!(folder(Some(&good)).unwrap(), Some(good));
        }
        for bad in [mesh.clone(), mesh.join("status"), directory.path().join("mesh/./x")] {
            let error = folder(Some(&bad)).unwrap_err().to_string();
            assert!(error.contains("would be read as objects"), "{error}");
        }
        let none = parse(&[&source, "--no-status-files"]).unwrap();
        assert_eq!(none.status_folder().unwrap(), None);
        assert_eq!(parse(&["--source=kubernetes"]).unwrap().status_folder().unwrap(), None);
        assert!(parse(&[&source, "--no-status-files", "--status-dir=x"]).is_err());
    }

    #[test]
    fn serving_names_replace_the_default_ones() {
        let options =
            parse(&["--source=file:x", "--serving-name=control.mesh.svc", "--serving-name=a.example,b"])
                .unwrap();
        assert_eq!(options.serving_names, ["control.mesh.svc", "a.example", "b"]);
    }

    #[test]
    fn wrong_values_are_explained() {
        for (arguments, expected) in [
            (&["--source", "consul"][..], "use kubernetes or file:DIR"),
            (&["--source", "kubernetes:x"], "use kubernetes or file:DIR"),
            (&["--source", "kubernetes", "--token-audience", ""], "--token-audience"),
            (&["--source", "file:"], "needs a directory"),
            (&["--source", "file:x", "--workload-cert-ttl", "24"], "whole number"),
            (&["--source", "file:x", "--workload-cert-ttl", "0s"], "between 1s"),
            (&["--source", "file:x", "--trust-domain", "a/b"], "trust domain"),
            (&["--source", "file:x", "--ca-cert", "c.pem"], "--ca-key"),
            (&["--source", "file:x", "--xds-address", "localhost"], "write IP:PORT or unix:PATH"),
            (&["--source", "file:x", "--xds-address", "unix:"], "needs a path"),
            (&["--source", "file:x", "--serving-name", "10.0.0.1"], "not a DNS name"),
            (&["--source", "file:x", "--serving-name", "a b"], "--serving-name"),
        ] {
            let error = parse(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
