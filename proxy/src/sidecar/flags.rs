//! From flags and the pod's environment to a bootstrap and the options of the process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::agent::AgentOptions;
use super::metrics::ApplicationMetrics;
use super::probes::Probes;
use crate::bootstrap::Document;
use crate::bootstrap::sidecar::{SidecarOptions, bootstrap};
use crate::capture::rules::{TO_APPLICATION_V4, TO_APPLICATION_V6};
use crate::identity::{IdentityFlags, IdentityOptions};
use crate::logging::Logging;
use crate::net::HostPort;
use crate::overload;
use crate::server::{Options, SidecarDrain};
use crate::stats::PeerLabels;

/// How long connections may take to end when nothing says how long the pod has.
const DRAIN_TIME: Duration = Duration::from_secs(25);
/// How long endpoints of a captured pod take to be forgotten by its callers.
const MINIMUM_DRAIN_TIME: Duration = Duration::from_secs(5);

/// Flags of a sidecar. Each is also an environment variable.
#[derive(Debug, Clone, Args)]
pub struct SidecarFlags {
    /// HOST:PORT of the control plane's xDS: an address, or a DNS name that its certificate must have
    #[arg(long, env = "OUTRIGGER_XDS_ADDRESS", value_name = "HOST:PORT")]
    pub xds_address: HostPort,
    /// HOST:PORT of the certificate service; default: --xds-address
    #[arg(long, env = "CA_ADDR", value_name = "HOST:PORT")]
    pub ca_address: Option<HostPort>,
    /// The workload's identity, and how to prove it
    #[command(flatten)]
    pub identity: IdentityFlags,
    /// Not ready with less time left until the certificate expires; default: a twentieth of its lifetime
    #[arg(long, env = "OUTRIGGER_MINIMUM_CERTIFICATE_LIFE_S", value_name = "SECONDS")]
    pub minimum_certificate_life_s: Option<u64>,
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
    /// Merged metrics, probes of the application, /drain; default: INSTANCE_IP:15020 when that is a loopback address, else
    /// 0.0.0.0:15020
    #[arg(long, env = "OUTRIGGER_AGENT_ADDRESS")]
    pub agent_address: Option<SocketAddr>,
    /// Seconds that connections may take to end when the process ends, within the pod's grace period; default: the grace
    /// period but for its last tenth (1 to 5 s), else 25
    #[arg(long, env = "OUTRIGGER_DRAIN_TIME_S", value_name = "SECONDS")]
    pub drain_time_s: Option<u64>,
    /// Seconds that inbound connections are still accepted when the drain has begun, until callers know of it; default: 5,
    /// without capture 0
    #[arg(long, env = "OUTRIGGER_MINIMUM_DRAIN_TIME_S", value_name = "SECONDS")]
    pub minimum_drain_time_s: Option<u64>,
    /// The pod's grace period, after which everything in it is killed
    #[arg(long, env = "TERMINATION_GRACE_PERIOD_SECONDS", value_name = "SECONDS")]
    pub termination_grace_period_seconds: Option<u64>,
    /// Shed load before memory or file descriptors run out
    #[arg(long, env = "OUTRIGGER_OVERLOAD_MANAGER", value_enum, default_value_t = OverloadManager::Auto)]
    pub overload_manager: OverloadManager,
    /// The application's own probes, as Istio's injector writes them
    #[arg(long, env = "ISTIO_KUBE_APP_PROBERS", value_name = "JSON", hide_env_values = true)]
    pub kube_app_probers: Option<String>,
    /// Where the application's own metrics are, as Istio's injector writes it
    #[arg(long, env = "ISTIO_PROMETHEUS_ANNOTATIONS", value_name = "JSON", hide_env_values = true)]
    pub prometheus_annotations: Option<String>,
    /// The pod's address
    #[arg(long, env = "INSTANCE_IP")]
    pub instance_ip: IpAddr,
    /// The pod's name
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
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

/// `--overload-manager`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverloadManager {
    /// By the memory limit of the container and the limit of file descriptors.
    Auto,
    /// Never.
    Off,
}

impl InterceptionMode {
    /// Istio's name.
    pub fn as_str(self) -> &'static str {
        match self {
            InterceptionMode::None => "NONE",
            InterceptionMode::Redirect => "REDIRECT",
        }
    }
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
        let mut metadata = metadata(environment)?;
        metadata.insert("INTERCEPTION_MODE".to_owned(), self.interception_mode.as_str().into());
        let (own, any, local) = match self.instance_ip {
            ip if ip.is_loopback() => (ip, ip, ip),
            ip @ IpAddr::V4(_) => (ip, Ipv4Addr::UNSPECIFIED.into(), IpAddr::V4(Ipv4Addr::LOCALHOST)),
            // Takes IPv4 too.
            ip @ IpAddr::V6(_) => (ip, Ipv6Addr::UNSPECIFIED.into(), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let agent = self.agent(self.agent_address.unwrap_or(SocketAddr::new(any, 15020)))?;
        let drain_time = self.drain_time();
        let sidecar = SidecarOptions {
            xds_address: self.xds_address.clone(),
            ca_root_cert: self.identity.ca_root_cert.clone(),
            admin_address: self.admin_address.unwrap_or(SocketAddr::new(local, 15000)),
            node_id: self.node_id.clone(),
            instance_ip: own,
            // Without capture addresses are not the kernel's choice: all of 127.0.0.0/8 is one machine.
            binds_upstreams: self.interception_mode == InterceptionMode::None,
            sheds_load: self.overload_manager == OverloadManager::Auto,
            memory_limit: overload::memory_limit(&overload::Paths::default()),
            pod_name: self.pod_name.clone(),
            pod_namespace: self.identity.pod_namespace.clone(),
            service_account: self.identity.service_account.clone(),
            cluster_domain: self.cluster_domain.clone(),
            metadata,
        };
        let ca = self.ca_address.as_ref().unwrap_or(&self.xds_address);
        let labels = labels(&sidecar, &self.identity.principal());
        let command_line = serde_json::json!({
            "concurrency": concurrency,
            "mode": "Serve",
            "drain_time": format!("{}s", drain_time.as_secs_f64()),
            "disable_hot_restart": true,
        });
        let options = Options {
            concurrency,
            drain_time,
            sidecar_drain: Some(SidecarDrain { minimum: self.minimum_drain_time() }),
            agent: Some(agent),
            command_line,
            token_file: Some(self.identity.token_file.clone()),
            state_dir: self.identity.state_dir.clone(),
            identity: Some(IdentityOptions {
                minimum_life: self.minimum_certificate_life_s.map(Duration::from_secs),
                ..self.identity.options(ca)
            }),
            needs_control_plane: true,
            named_control_plane: match &self.xds_address {
                HostPort::Address(_) => None,
                name @ HostPort::Name(..) => Some(self.identity.target(name)),
            },
            dns: self.identity.dns(),
            labels: Some(labels),
            prometheus_address: Some(self.prometheus_address.unwrap_or(SocketAddr::new(any, 15090))),
            status_address: Some(self.status_address.unwrap_or(SocketAddr::new(any, 15021))),
            ..Options::new(logging)
        };
        Ok((bootstrap(&sidecar)?, options))
    }

    fn agent(&self, address: SocketAddr) -> Result<AgentOptions, String> {
        let source: IpAddr = match self.instance_ip {
            IpAddr::V4(_) => TO_APPLICATION_V4.into(),
            IpAddr::V6(_) => TO_APPLICATION_V6.into(),
        };
        let annotations = self.prometheus_annotations.as_deref().filter(|json| !json.is_empty());
        let metrics = annotations.map(|json| ApplicationMetrics::parse(json, address.port())).transpose()?;
        let probers = self.kube_app_probers.as_deref().filter(|json| !json.is_empty());
        Ok(AgentOptions {
            address,
            instance_ip: self.instance_ip,
            source: (self.interception_mode == InterceptionMode::Redirect).then_some(source),
            metrics: metrics.flatten(),
            probes: probers.map(Probes::parse).transpose()?.unwrap_or_default(),
        })
    }

    /// One deadline: what `--drain-time-s` says, and never so long that the kubelet would end it.
    fn drain_time(&self) -> Duration {
        let asked = self.drain_time_s.map(Duration::from_secs);
        let grace = self.termination_grace_period_seconds.map(Duration::from_secs);
        let possible = grace.map(|grace| grace - margin(grace));
        match (asked, possible) {
            (Some(asked), Some(possible)) => asked.min(possible),
            (Some(time), None) | (None, Some(time)) => time,
            (None, None) => DRAIN_TIME,
        }
    }

    fn minimum_drain_time(&self) -> Duration {
        match (self.minimum_drain_time_s, self.interception_mode) {
            (Some(seconds), _) => Duration::from_secs(seconds),
            (None, InterceptionMode::Redirect) => MINIMUM_DRAIN_TIME,
            (None, InterceptionMode::None) => Duration::ZERO,
        }
    }
}

/// What is left of a grace period for writing the last logs and ending.
fn margin(grace: Duration) -> Duration {
    (grace / 10).clamp(Duration::from_secs(1), Duration::from_secs(5)).min(grace / 2)
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

    fn flags(more: &[&str]) -> SidecarFlags {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            flags: SidecarFlags,
        }
        let pod =
            ["--xds-address=127.0.0.1:1", "--instance-ip=10.1.1.1", "--pod-name=p", "--pod-namespace=n"];
        let line = std::iter::once("sidecar").chain(pod).chain(more.iter().copied());
        <Line as clap::Parser>::try_parse_from(line).unwrap().flags
    }

    #[test]
    fn there_is_one_deadline() {
        let time = |more: &[&str]| flags(more).drain_time().as_secs_f64();
        assert_eq!(time(&[]), 25.0);
        assert_eq!(time(&["--drain-time-s=7"]), 7.0);
        assert_eq!(time(&["--termination-grace-period-seconds=30"]), 27.0);
        assert_eq!(time(&["--termination-grace-period-seconds=600"]), 595.0);
        assert_eq!(time(&["--termination-grace-period-seconds=5"]), 4.0);
        assert_eq!(time(&["--termination-grace-period-seconds=1"]), 0.5);
        assert_eq!(time(&["--termination-grace-period-seconds=0"]), 0.0);
        assert_eq!(time(&["--termination-grace-period-seconds=30", "--drain-time-s=45"]), 27.0);
        assert_eq!(time(&["--termination-grace-period-seconds=30", "--drain-time-s=5"]), 5.0);
    }

    #[test]
    fn capture_decides_about_sources_and_waiting() {
        let (captured, explicit) = (flags(&["--interception-mode=REDIRECT"]), flags(&[]));
        assert_eq!(captured.minimum_drain_time(), MINIMUM_DRAIN_TIME);
        assert_eq!(explicit.minimum_drain_time(), Duration::ZERO);
        let agent = |flags: &SidecarFlags| flags.agent("0.0.0.0:15020".parse().unwrap()).unwrap();
        assert_eq!(agent(&captured).source, Some([127, 0, 0, 6].into()));
        assert_eq!(agent(&explicit).source, None);
    }

    #[test]
    fn what_the_injector_wrote_is_checked_at_the_start() {
        let refused = |flag: &str| flags(&[flag]).agent("0.0.0.0:15020".parse().unwrap()).unwrap_err();
        assert!(refused("--kube-app-probers={").contains("ISTIO_KUBE_APP_PROBERS"));
        assert!(refused(r#"--prometheus-annotations={"port":"15020"}"#).contains("injected twice"));
        let agent =
            flags(&["--kube-app-probers=", "--prometheus-annotations="]).agent("0.0.0.0:1".parse().unwrap());
        assert_eq!(agent.unwrap().metrics, None);
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
