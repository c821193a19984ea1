//! `outrigger-proxy sidecar`: from flags and the pod's environment to a bootstrap and the options of the process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::bootstrap::Document;
use crate::bootstrap::sidecar::{SidecarOptions, bootstrap};
use crate::identity::IdentityOptions;
use crate::logging::Logging;
use crate::server::Options;
use crate::stats::PeerLabels;

/// How long a workload certificate is asked to live, Istio's default.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Flags of a sidecar. Each is also an environment variable.
#[derive(Debug, Clone, Args)]
pub struct SidecarFlags {
    /// IP:PORT of the control plane's xDS
    #[arg(long, env = "OUTRIGGER_XDS_ADDRESS")]
    pub xds_address: SocketAddr,
    /// HOST:PORT of the certificate service; default: --xds-address
    #[arg(long, env = "CA_ADDR")]
    pub ca_address: Option<String>,
    /// Roots that the control plane's certificate must lead to; without it plaintext, to loopback only
    #[arg(long, env = "OUTRIGGER_CA_ROOT_CERT", value_name = "FILE")]
    pub ca_root_cert: Option<PathBuf>,
    /// Bearer token that proves the workload's service account, read again for each use
    #[arg(
        long,
        env = "OUTRIGGER_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    pub token_file: PathBuf,
    /// Directory for what the sidecar keeps, mode 0700. Keys stay in memory, so it stays empty
    #[arg(long, env = "OUTRIGGER_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Node id; default: sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN
    #[arg(long, env = "OUTRIGGER_NODE_ID")]
    pub node_id: Option<String>,
    /// How traffic reaches the sidecar
    #[arg(long, env = "INTERCEPTION_MODE", value_enum, default_value_t = InterceptionMode::None, ignore_case = true)]
    pub interception_mode: InterceptionMode,
    /// Admin interface; default: INSTANCE_IP:15000 when that is a loopback address, else 127.0.0.1:15000
    #[arg(long, env = "OUTRIGGER_ADMIN_ADDRESS")]
    pub admin_address: Option<SocketAddr>,
    /// Prometheus; default: INSTANCE_IP:15090 when that is a loopback address, else 0.0.0.0:15090
    #[arg(long, env = "OUTRIGGER_PROMETHEUS_ADDRESS")]
    pub prometheus_address: Option<SocketAddr>,
    /// Readiness for the kubelet; default: INSTANCE_IP:15021 when that is a loopback address, else 0.0.0.0:15021
    #[arg(long, env = "OUTRIGGER_STATUS_ADDRESS")]
    pub status_address: Option<SocketAddr>,
    /// Seconds that connections may take to end when the process ends
    #[arg(long, env = "OUTRIGGER_DRAIN_TIME_S", default_value_t = 25, value_name = "SECONDS")]
    pub drain_time_s: u64,
    /// The pod's address
    #[arg(long, env = "INSTANCE_IP")]
    pub instance_ip: IpAddr,
    /// The pod's name
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// The pod's namespace
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// The pod's service account
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    /// SPIFFE trust domain
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// DNS domain of the cluster
    #[arg(long, env = "OUTRIGGER_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
}

/// `--interception-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InterceptionMode {
    /// Applications address the sidecar themselves (explicit mode).
    #[value(name = "NONE")]
    None,
    /// The kernel sends the pod's connections to the sidecar (`outrigger-proxy capture`).
    #[value(name = "REDIRECT")]
    Redirect,
}

impl SidecarFlags {
    /// The bootstrap and the options of the process. `environment` is searched for `ISTIO_META_*` and `ISTIO_METAJSON_*`.
    ///
    /// # Errors
    /// What cannot work together, or is malformed.
    pub fn configure(
        &self,
        concurrency: usize,
        logging: Arc<Logging>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Document, Options), String> {
        if let Some(dir) = &self.state_dir {
            make_private(dir).map_err(|e| format!("--state-dir '{}': {e}", dir.display()))?;
        }
        let mut metadata = metadata(environment)?;
        let explicit = self.interception_mode == InterceptionMode::None;
        let mode = if explicit { "NONE" } else { "REDIRECT" };
        metadata.insert("INTERCEPTION_MODE".to_owned(), mode.into());
        let (own, any, local) = match self.instance_ip {
            ip if ip.is_loopback() => (ip, ip, ip),
            ip => (ip, IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let sidecar = SidecarOptions {
            xds_address: self.xds_address,
            ca_root_cert: self.ca_root_cert.clone(),
            admin_address: self.admin_address.unwrap_or(SocketAddr::new(local, 15000)),
            node_id: self.node_id.clone(),
            instance_ip: own,
            bind_upstream: explicit,
            pod_name: self.pod_name.clone(),
            pod_namespace: self.pod_namespace.clone(),
            service_account: self.service_account.clone(),
            cluster_domain: self.cluster_domain.clone(),
            metadata,
        };
        let principal =
            format!("spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.pod_namespace, self.service_account);
        let identity = IdentityOptions {
            ca_address: self.ca_address.clone().unwrap_or_else(|| self.xds_address.to_string()),
            ca_root_cert: self.ca_root_cert.clone(),
            token_file: self.token_file.clone(),
            principal: principal.clone(),
            lifetime: CERTIFICATE_LIFETIME,
        };
        let labels = labels(&sidecar, &principal);
        let command_line = serde_json::json!({
            "concurrency": concurrency,
            "mode": "Serve",
            "drain_time": format!("{}s", self.drain_time_s),
            "disable_hot_restart": true,
        });
        let options = Options {
            concurrency,
            drain_time: Duration::from_secs(self.drain_time_s),
            command_line,
            token_file: Some(self.token_file.clone()),
            identity: Some(identity),
            needs_control_plane: true,
            labels: Some(labels),
            prometheus_address: Some(self.prometheus_address.unwrap_or(SocketAddr::new(any, 15090))),
            status_address: Some(self.status_address.unwrap_or(SocketAddr::new(any, 15021))),
            ..Options::new(logging)
        };
        Ok((bootstrap(&sidecar)?, options))
    }
}

/// Makes a directory that only its owner may look into.
fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

/// Istio's way to tell a sidecar about its workload: `ISTIO_META_X=text`, `ISTIO_METAJSON_X=json`.
fn metadata(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, serde_json::Value>, String> {
    let mut metadata = BTreeMap::new();
    for (name, text) in environment {
        if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
            let value =
                serde_json::from_str(&text).map_err(|e| format!("environment variable {name}: {e}"))?;
            metadata.insert(key.to_owned(), value);
        } else if let Some(key) = name.strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), text.into());
        }
    }
    Ok(metadata)
}

/// This workload in mesh metrics, named as Istio names it: canonical name and revision from their labels.
fn labels(options: &SidecarOptions, principal: &str) -> PeerLabels {
    let first = |names: &[&str]| names.iter().find_map(|name| options.label(name));
    let defaults = PeerLabels::default();
    let or = |value: Option<&str>, default: &Arc<str>| value.map_or_else(|| default.clone(), Arc::from);
    let name = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    let revision = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    let canonical_service =
        first(&name).or(options.text("WORKLOAD_NAME")).unwrap_or(&options.pod_name).into();
    PeerLabels {
        workload: options.text("WORKLOAD_NAME").unwrap_or(&options.pod_name).into(),
        workload_namespace: options.pod_namespace.as_str().into(),
        principal: principal.into(),
        app: or(options.label("app"), &defaults.app),
        version: or(options.label("version"), &defaults.version),
        cluster: or(options.text("CLUSTER_ID"), &"Kubernetes".into()),
        canonical_service,
        canonical_revision: first(&revision).unwrap_or("latest").into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn metadata_comes_from_the_environment() {
        let metadata = metadata([
            pair("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
            pair("ISTIO_METAJSON_LABELS", r#"{"app":"reviews"}"#),
            pair("HOME", "/"),
        ])
        .unwrap();
        assert_eq!(metadata.len(), 2);
        assert_eq!(metadata["WORKLOAD_NAME"], "reviews-v1");
        assert_eq!(metadata["LABELS"]["app"], "reviews");
        assert!(super::metadata([pair("ISTIO_METAJSON_LABELS", "{")]).unwrap_err().contains("LABELS"));
    }
}
