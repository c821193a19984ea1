//! What the injector puts into every Pod, unless an annotation of the Pod says otherwise.
//!
//! One document (YAML or JSON, camelCase), read strictly: `--injection-settings` of the control plane and `--settings` of
//! `outrigger inject` read the same file. Every field has a default.

use outrigger_xds_api::json;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::capture::Capture;
use super::quantity;
use crate::api::Refusal;

/// Settings of injection.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectionSettings {
    /// Image of the sidecar and of the capture. Default: `outrigger-proxy:VERSION`, this program's version.
    pub image: String,
    /// `imagePullPolicy` of both; default: Kubernetes' own.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Names of Secrets that the Pod pulls the image with, beside its own. Default: none.
    pub image_pull_secrets: Vec<String>,
    /// Revision of this control plane, for the label `istio.io/rev`. Default: `default`.
    pub revision: String,
    /// SPIFFE trust domain. Default: `cluster.local`.
    pub trust_domain: String,
    /// DNS suffix of Services. Default: `cluster.local`.
    pub cluster_domain: String,
    /// Name of the cluster, in metrics. Default: `Kubernetes`, as Istio's.
    pub cluster_name: String,
    /// HOST:PORT of xDS over TLS. Default: `outrigger-control-plane.outrigger-system.svc:15012`.
    pub xds_address: String,
    /// HOST:PORT of the certificate service, when it is another one than `xdsAddress`.
    pub ca_address: Option<String>,
    /// Audience of the token that proves the service account. Default: `istio-ca`.
    pub token_audience: String,
    /// Name of the ConfigMap, in each namespace, that holds the mesh's root certificate under `root-cert.pem`. Default:
    /// `outrigger-ca-root-cert`.
    pub root_cert_config_map: String,
    /// How traffic gets to the sidecar. Default: REDIRECT. Annotation `sidecar.istio.io/interceptionMode`.
    pub interception_mode: InterceptionMode,
    /// Whether the sidecar is an init container with `restartPolicy: Always` (Kubernetes 1.29 and later), which starts
    /// before the application, ends after it and does not keep a Job from completing. Default: true. Annotation
    /// `sidecar.istio.io/nativeSidecar`.
    pub native_sidecar: bool,
    /// Without a native sidecar: whether the application's containers start only once the sidecar is ready. Default:
    /// true. `holdApplicationUntilProxyStarts` in the annotation `proxy.istio.io/config`.
    pub hold_application_until_proxy_starts: bool,
    /// Resources of the sidecar. Default, as Istio's: requests 100m and 128Mi, limits 2 and 1Gi. Annotations
    /// `sidecar.istio.io/proxyCPU`, `proxyMemory`, `proxyCPULimit`, `proxyMemoryLimit`; one of them replaces them all.
    pub resources: Resources,
    /// The sidecar's log level. Default: warning, as Istio's. Annotation `sidecar.istio.io/logLevel`.
    pub log_level: LogLevel,
    /// Whether kubelet probes go through the sidecar's port 15020. Default: true. Annotation
    /// `sidecar.istio.io/rewriteAppHTTPProbers`.
    #[serde(rename = "rewriteAppHTTPProbers")]
    pub rewrite_app_http_probers: bool,
    /// Whether Prometheus scrapes sidecar and application together on port 15020. Default: true. Annotation
    /// `prometheus.istio.io/merge-metrics`.
    pub merge_metrics: bool,
    /// The sidecar's readiness probe. Annotations `readiness.status.sidecar.istio.io/*`.
    pub readiness: Readiness,
    /// Which traffic is captured. Annotations `traffic.sidecar.istio.io/*`.
    pub capture: Capture,
}

/// Kubernetes' `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "Kubernetes' values")]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl ImagePullPolicy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// How traffic gets to the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InterceptionMode {
    /// An init container has the kernel redirect the Pod's TCP traffic.
    #[serde(rename = "REDIRECT")]
    Redirect,
    /// Applications address the sidecar themselves.
    #[serde(rename = "NONE")]
    None,
}

impl InterceptionMode {
    /// # Errors
    /// A sentence saying what is expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "REDIRECT" => Ok(Self::Redirect),
            "NONE" => Ok(Self::None),
            _ => Err(format!("{text:?} is not supported; supported: REDIRECT, NONE")),
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "REDIRECT",
            Self::None => "NONE",
        }
    }
}

/// Levels of the sidecar's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual levels")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl LogLevel {
    const ALL: [Self; 7] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off];

    /// # Errors
    /// A sentence saying what is expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.as_str() == text);
        level.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is not a log level; they are {names}")
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }
}

/// `resources` of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// What the scheduler keeps free for it.
    pub requests: Amounts,
    /// What it may use at most.
    pub limits: Amounts,
}

/// Kubernetes' quantities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    /// Cores, for example `100m`.
    pub cpu: Option<String>,
    /// Bytes, for example `128Mi`.
    pub memory: Option<String>,
}

impl Resources {
    /// Checks the quantities; the path of one that is wrong is `requests.cpu` and so on.
    ///
    /// # Errors
    /// One that cannot be read, or a request above its limit, which Kubernetes would refuse.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (name, request, limit) in [
            ("cpu", &self.requests.cpu, &self.limits.cpu),
            ("memory", &self.requests.memory, &self.limits.memory),
        ] {
            let read = |list: &str, text: &Option<String>| {
                let Some(text) = text else { return Ok(None) };
                let quantity = quantity::parse(text);
                quantity.map(Some).map_err(|reason| Refusal::new(format!("{list}.{name}"), reason))
            };
            if let (Some(asked), Some(most)) = (read("requests", request)?, read("limits", limit)?)
                && asked > most
            {
                let reason = format!(
                    "{} is more than the limit {}",
                    request.as_deref().unwrap_or_default(),
                    limit.as_deref().unwrap_or_default()
                );
                return Err(Refusal::new(format!("requests.{name}"), reason));
            }
        }
        Ok(())
    }

    /// As a container has it.
    pub(super) fn to_json(&self) -> Value {
        let mut resources = Map::new();
        for (list, amounts) in [("requests", &self.requests), ("limits", &self.limits)] {
            let quantities = [("cpu", &amounts.cpu), ("memory", &amounts.memory)].into_iter();
            let quantities: Map<String, Value> = quantities
                .filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?.into())))
                .collect();
            if !quantities.is_empty() {
                resources.insert(list.to_owned(), quantities.into());
            }
        }
        resources.into()
    }
}

/// The sidecar's readiness probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Readiness {
    /// Seconds before the first probe. Default: 0; the startup probe comes first.
    pub initial_delay_seconds: u32,
    /// Seconds between probes. Default: 15, as Istio's.
    pub period_seconds: u32,
    /// Failures until the Pod is not ready. Default: 4, as Istio's.
    pub failure_threshold: u32,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { initial_delay_seconds: 0, period_seconds: 15, failure_threshold: 4 }
    }
}

impl Default for InjectionSettings {
    fn default() -> Self {
        let text = str::to_owned;
        let amounts = |cpu: &str, memory: &str| Amounts { cpu: Some(text(cpu)), memory: Some(text(memory)) };
        Self {
            image: concat!("outrigger-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            revision: text("default"),
            trust_domain: text("cluster.local"),
            cluster_domain: text("cluster.local"),
            cluster_name: text("Kubernetes"),
            xds_address: text("outrigger-control-plane.outrigger-system.svc:15012"),
            ca_address: None,
            token_audience: text("istio-ca"),
            root_cert_config_map: text("outrigger-ca-root-cert"),
            interception_mode: InterceptionMode::Redirect,
            native_sidecar: true,
            hold_application_until_proxy_starts: true,
            resources: Resources { requests: amounts("100m", "128Mi"), limits: amounts("2", "1Gi") },
            log_level: LogLevel::Warning,
            rewrite_app_http_probers: true,
            merge_metrics: true,
            readiness: Readiness::default(),
            capture: Capture::default(),
        }
    }
}

impl InjectionSettings {
    /// Reads a YAML or JSON document; an empty one means the defaults.
    ///
    /// # Errors
    /// The field that is unknown or wrong.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::of(document(text)?)
    }

    /// Reads a document for a mesh of these domains, which it need not name.
    ///
    /// # Errors
    /// The field that is unknown or wrong, or a domain that is another one.
    pub fn parse_for(text: &str, trust_domain: &str, cluster_domain: &str) -> Result<Self, Refusal> {
        let mut fields = document(text)?;
        for (field, ours) in [("trustDomain", trust_domain), ("clusterDomain", cluster_domain)] {
            let theirs = fields.entry(field).or_insert_with(|| ours.into());
            if theirs != ours {
                return Err(Refusal::new(field, format!("{theirs} is not this mesh's, {ours:?}")));
            }
        }
        Self::of(fields)
    }

    fn of(fields: Map<String, Value>) -> Result<Self, Refusal> {
        let settings: Self = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            Refusal::new(path, error.into_inner().to_string())
        })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Refusal> {
        for (field, text) in [
            ("image", &self.image),
            ("revision", &self.revision),
            ("trustDomain", &self.trust_domain),
            ("clusterDomain", &self.cluster_domain),
            ("clusterName", &self.cluster_name),
            ("tokenAudience", &self.token_audience),
            ("rootCertConfigMap", &self.root_cert_config_map),
        ] {
            if text.is_empty() {
                return Err(Refusal::new(field, "must not be empty"));
            }
        }
        let addresses = [("xdsAddress", Some(&self.xds_address)), ("caAddress", self.ca_address.as_ref())];
        for (field, address) in addresses {
            let Some(address) = address else { continue };
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
                return Err(Refusal::new(field, format!("{address:?} is not HOST:PORT")));
            }
        }
        self.resources
            .check()
            .map_err(|error| Refusal { field: format!("resources.{}", error.field), ..error })?;
        self.readiness
            .check()
            .map_err(|error| Refusal { field: format!("readiness.{}", error.field), ..error })?;
        self.capture.check().map_err(|error| Refusal { field: format!("capture.{}", error.field), ..error })
    }
}

/// The fields of a document.
fn document(text: &str) -> Result<Map<String, Value>, Refusal> {
    let documents = json::parse(text).map_err(|error| {
        Refusal::new("", format!("line {}, column {}: {}", error.line, error.column, error.reason))
    })?;
    match documents.as_slice() {
        [] => Ok(Map::new()),
        [document] => match document.to_json() {
            Value::Null => Ok(Map::new()),
            Value::Object(fields) => Ok(fields),
            _ => Err(Refusal::new("", "must be a map")),
        },
        _ => Err(Refusal::new("", "must be one document")),
    }
}

impl Readiness {
    /// # Errors
    /// A number that Kubernetes would refuse.
    fn check(&self) -> Result<(), Refusal> {
        for (field, number, least) in [
            ("initialDelaySeconds", self.initial_delay_seconds, 0),
            ("periodSeconds", self.period_seconds, 1),
            ("failureThreshold", self.failure_threshold, 1),
        ] {
            seconds(number, least).map_err(|reason| Refusal::new(field, reason))?;
        }
        Ok(())
    }
}

/// Whether Kubernetes takes a number of a probe (a signed 32-bit integer with a minimum).
pub(super) fn seconds(number: u32, least: u32) -> Result<u32, String> {
    match number {
        n if (least..=i32::MAX.unsigned_abs()).contains(&n) => Ok(n),
        n => Err(format!("{n} is not between {least} and {}", i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_empty_document_is_the_defaults() {
        let defaults = InjectionSettings::default();
        assert_eq!(InjectionSettings::parse("").unwrap(), defaults);
        assert_eq!(InjectionSettings::parse("# nothing\n").unwrap(), defaults);
        assert_eq!(InjectionSettings::parse("{}").unwrap(), defaults);
        defaults.check().unwrap();
    }

    #[test]
    fn one_field_leaves_the_others() {
        let settings = InjectionSettings::parse(
            "image: proxy:2\ninterceptionMode: NONE\nresources: {requests: {cpu: 1m}}\n\
             readiness: {periodSeconds: 2}\ncapture: {excludeOutboundIPRanges: 10.0.0.0/8}\n",
        )
        .unwrap();
        assert_eq!(
            (settings.image.as_str(), settings.interception_mode),
            ("proxy:2", InterceptionMode::None)
        );
        assert_eq!(settings.resources.to_json(), serde_json::json!({"requests": {"cpu": "1m"}}));
        assert_eq!((settings.readiness.period_seconds, settings.readiness.failure_threshold), (2, 4));
        assert_eq!(settings.capture.exclude_outbound_ip_ranges, "10.0.0.0/8");
        assert_eq!(settings.token_audience, "istio-ca");
    }

    #[test]
    fn the_domains_are_the_meshs() {
        let parse = |text| InjectionSettings::parse_for(text, "example.org", "cluster.test");
        let settings = parse("").unwrap();
        assert_eq!(settings.trust_domain, "example.org");
        assert_eq!(settings.cluster_domain, "cluster.test");
        assert_eq!(parse("trustDomain: example.org").unwrap(), settings);
        assert_eq!(parse("trustDomain: cluster.local").unwrap_err().field, "trustDomain");
    }

    #[test]
    fn wrong_settings_name_their_field() {
        for (text, field) in [
            ("imag: x", "imag"),
            ("image: ''", "image"),
            ("xdsAddress: host", "xdsAddress"),
            ("xdsAddress: ':15012'", "xdsAddress"),
            ("caAddress: host:0", "caAddress"),
            ("interceptionMode: TPROXY", "interceptionMode"),
            ("resources: {requests: {cpu: lots}}", "resources.requests.cpu"),
            ("resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}", "resources.requests.memory"),
            ("resources: {requests: {gpu: '1'}}", "resources.requests.gpu"),
            ("readiness: {periodSeconds: 0}", "readiness.periodSeconds"),
            ("capture: {excludeInboundPorts: http}", "capture.excludeInboundPorts"),
            ("nativeSidecar: perhaps", "nativeSidecar"),
            ("a: 1\n---\nb: 1\n", ""),
            ("a: [", ""),
            ("- a", ""),
        ] {
            let refusal = InjectionSettings::parse(text).unwrap_err();
            assert_eq!(refusal.field, field, "{text}: {}", refusal.reason);
        }
    }
}
