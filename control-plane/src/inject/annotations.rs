//! A Pod's annotations -> what holds for the Pod.
//!
//! Every annotation of Istio's groups has a verdict: honoured, without effect (a warning), or refused. Refused is what
//! would change security or the way of the traffic. Names and meanings: Istio's annotation reference.

use serde_json::{Map, Value};

use super::pod_settings::PodSettings;
use super::proxy_config;
use super::settings::{InjectionSettings, InterceptionMode, LogLevel, Resources, seconds};
use crate::api::Refusal;

/// Groups that are the mesh's business.
const GROUPS: [&str; 7] = [
    "sidecar.istio.io",
    "traffic.sidecar.istio.io",
    "readiness.status.sidecar.istio.io",
    "status.sidecar.istio.io",
    "proxy.istio.io",
    "prometheus.istio.io",
    "inject.istio.io",
];

/// The annotation that holds Istio's ProxyConfig.
pub(super) const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The port that Istio's annotation `status.sidecar.istio.io/port` can move; ours is fixed.
const STATUS_PORT: &str = "15020";

/// Reads the annotations of a Pod.
///
/// # Errors
/// The first annotation with a bad value, or one that is not supported and must not be ignored.
pub(super) fn read(
    pod: &Map<String, Value>,
    settings: &InjectionSettings,
    warnings: &mut Vec<String>,
) -> Result<PodSettings, Refusal> {
    let mut of_pod = PodSettings::new(settings);
    let annotations: Vec<(&str, &str)> = pod
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations")?.as_object())
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    // The mesh's document first: an annotation of its own is more specific.
    if let Some((_, text)) = annotations.iter().find(|(name, _)| *name == PROXY_CONFIG) {
        proxy_config::apply(text, &mut of_pod, warnings)?;
    }
    let mut resources = Resources::default();
    for (name, text) in annotations {
        apply(name, text, &mut of_pod, &mut resources, warnings).map_err(|reason| at(name, reason))?;
    }
    if resources != Resources::default() {
        resources.check().map_err(|error| at(resource_annotation(&error.field), error.reason))?;
        of_pod.resources = resources;
    }
    if of_pod.interception_mode == InterceptionMode::None && of_pod.capture != settings.capture {
        warnings.push("annotations traffic.sidecar.istio.io/* have no effect without capture".to_owned());
    }
    if of_pod.is_native && !of_pod.holds && settings.hold_application_until_proxy_starts {
        let field = "holdApplicationUntilProxyStarts: false";
        warnings.push(format!("{PROXY_CONFIG}: {field} has no effect: a native sidecar always starts first"));
    }
    check_drain_time(pod, &of_pod)?;
    Ok(of_pod)
}

/// One annotation.
fn apply(
    name: &str,
    text: &str,
    of_pod: &mut PodSettings,
    resources: &mut Resources,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let Some((group, key)) = name.split_once('/') else { return Ok(()) };
    let capture = &mut of_pod.capture;
    let readiness = &mut of_pod.readiness;
    match (group, key) {
        ("sidecar.istio.io", "inject" | "status") | ("proxy.istio.io", "config") => {}
        ("sidecar.istio.io", "proxyImage") if text.is_empty() => return Err("must not be empty".to_owned()),
        ("sidecar.istio.io", "proxyImage") => text.clone_into(&mut of_pod.image),
        ("sidecar.istio.io", "proxyCPU") => resources.requests.cpu = Some(text.to_owned()),
        ("sidecar.istio.io", "proxyMemory") => resources.requests.memory = Some(text.to_owned()),
        ("sidecar.istio.io", "proxyCPULimit") => resources.limits.cpu = Some(text.to_owned()),
        ("sidecar.istio.io", "proxyMemoryLimit") => resources.limits.memory = Some(text.to_owned()),
        ("sidecar.istio.io", "logLevel") => of_pod.log_level = LogLevel::parse(text)?,
        ("sidecar.istio.io", "componentLogLevel") => of_pod.component_log_level = component_levels(text)?,
        ("sidecar.istio.io", "nativeSidecar") => of_pod.is_native = boolean(text)?,
        ("sidecar.istio.io", "interceptionMode") => of_pod.interception_mode = InterceptionMode::parse(text)?,
        ("sidecar.istio.io", "rewriteAppHTTPProbers") => of_pod.rewrite_probes = boolean(text)?,
        ("prometheus.istio.io", "merge-metrics") => of_pod.merge_metrics = boolean(text)?,
        ("readiness.status.sidecar.istio.io", "initialDelaySeconds") => {
            readiness.initial_delay_seconds = number(text, 0)?;
        }
        ("readiness.status.sidecar.istio.io", "periodSeconds") => readiness.period_seconds = number(text, 1)?,
        ("readiness.status.sidecar.istio.io", "failureThreshold") => {
            readiness.failure_threshold = number(text, 1)?;
        }
        ("status.sidecar.istio.io", "port") if text == STATUS_PORT => {}
        ("sidecar.istio.io", "capNetBindService") if text == "false" => {}
        ("traffic.sidecar.istio.io", key) => {
            let list = match key {
                "includeInboundPorts" => &mut capture.include_inbound_ports,
                "excludeInboundPorts" => &mut capture.exclude_inbound_ports,
                "includeOutboundPorts" => &mut capture.include_outbound_ports,
                "excludeOutboundPorts" => &mut capture.exclude_outbound_ports,
                "includeOutboundIPRanges" => &mut capture.include_outbound_ip_ranges,
                "excludeOutboundIPRanges" => &mut capture.exclude_outbound_ip_ranges,
                "excludeInterfaces" => &mut capture.exclude_interfaces,
                _ => return Err(UNSUPPORTED.to_owned()),
            };
            text.clone_into(list);
            capture.check().map_err(|error| error.reason)?;
        }
        ("sidecar.istio.io", "bootstrapOverride" | "controlPlaneAuthPolicy" | "capNetBindService")
        | ("status.sidecar.istio.io", "port")
        | ("inject.istio.io", _)
        | ("istio.io", "reroute-virtual-interfaces") => return Err(UNSUPPORTED.to_owned()),
        (group, _) if GROUPS.contains(&group) => {
            warnings.push(format!("annotation {name} is not supported; it has no effect"));
        }
        _ => {}
    }
    Ok(())
}

const UNSUPPORTED: &str = "is not supported, and a Pod that relies on it must not start without it";

/// The path of an annotation.
pub(super) fn at(name: &str, reason: impl Into<String>) -> Refusal {
    Refusal::new(format!("metadata.annotations[{name:?}]"), reason)
}

fn resource_annotation(field: &str) -> &'static str {
    match field {
        "requests.cpu" => "sidecar.istio.io/proxyCPU",
        "requests.memory" => "sidecar.istio.io/proxyMemory",
        "limits.cpu" => "sidecar.istio.io/proxyCPULimit",
        _ => "sidecar.istio.io/proxyMemoryLimit",
    }
}

/// As Go's `strconv.ParseBool`, which Istio reads these with.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither \"true\" nor \"false\"")),
    }
}

fn number(text: &str, least: u32) -> Result<u32, String> {
    let number = text.parse().map_err(|_| format!("{text:?} is not a whole number of at least {least}"))?;
    seconds(number, least)
}

/// `COMPONENT:LEVEL,...`; the sidecar itself knows which components there are.
fn component_levels(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    for part in text.split(',') {
        let Some((component, level)) = part.split_once(':').filter(|(component, _)| !component.is_empty())
        else {
            return Err(format!("{part:?} is not COMPONENT:LEVEL"));
        };
        LogLevel::parse(level).map_err(|reason| format!("{component}: {reason}"))?;
    }
    Ok(Some(text.to_owned()))
}

/// One deadline: what the sidecar promises must fit into what the kubelet grants.
fn check_drain_time(pod: &Map<String, Value>, of_pod: &PodSettings) -> Result<(), Refusal> {
    let grace_s = super::environment::grace_period_s(pod);
    match of_pod.drain_time {
        Some(drain) if i64::try_from(drain.as_secs()).unwrap_or(i64::MAX) > grace_s => {
            let reason = format!(
                "terminationDrainDuration: {} s is more than the Pod's terminationGracePeriodSeconds, {grace_s} s",
                drain.as_secs()
            );
            Err(at(PROXY_CONFIG, reason))
        }
        _ => Ok(()),
    }
}
