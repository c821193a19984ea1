//! Injection: a workload or Pod goes in, the same object with a sidecar comes out.
//!
//! Pure functions over JSON, the same for the webhook ([`crate::webhook`]) and for `outrigger inject`: nothing here reads
//! a file, a clock or the network. Objects stay JSON, so that what this code does not know is kept as it is. Invariants:
//! an object is either injected as a whole or left exactly as it was; injecting twice is injecting once; the Pod that a
//! controller makes from an injected template is the Pod that the webhook would have made.
//!
//! One subject a file: [`decision`] whether, [`workload`] where the Pod is in each kind, [`settings`] and
//! [`pod_settings`] with what (`annotations` and `proxy_config` read a Pod's own wishes), then `containers`,
//! `environment`, `volumes`, `probes`, `prometheus` and `status`; [`patch`] says it as a JSON Patch.

mod annotations;
pub mod capture;
mod containers;
pub mod decision;
mod environment;
mod fields;
pub mod patch;
mod pod_settings;
mod probes;
mod prometheus;
mod proxy_config;
pub(crate) mod quantity;
pub mod settings;
mod status;
mod volumes;
pub mod workload;

use serde_json::{Map, Value};

use crate::api::Refusal;
use decision::{Decision, Namespace, SkipReason};
use fields::{take_list, take_object};
use pod_settings::{Form, PodSettings};
use settings::{InjectionSettings, InterceptionMode};
use workload::Workload;

/// The sidecar's container.
pub const PROXY_CONTAINER: &str = "outrigger-proxy";
/// The init container that programs the capture of the Pod's traffic.
pub const CAPTURE_CONTAINER: &str = "outrigger-capture";
/// User and group of the sidecar; its own traffic is told from the application's by it (Istio's number).
pub const PROXY_UID: u32 = 1337;

/// What became of one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It has a sidecar now.
    Injected {
        /// The whole object.
        object: Value,
        /// What the user should know: settings without effect, and what will not work as it may look. In sentences.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Skipped(SkipReason),
    /// It has no Pod in it.
    NotAWorkload,
}

/// Injects one object: a Pod, or one of the kinds that hold a template of Pods.
///
/// # Errors
/// The field (in the object given, for example `spec.template.metadata.annotations["sidecar.istio.io/proxyCPU"]`) that
/// cannot be honoured, with the reason. Nothing is injected then.
pub fn inject(
    object: &Value,
    namespace: &Namespace,
    settings: &InjectionSettings,
) -> Result<Outcome, Refusal> {
    let Some(workload) = Workload::of(object) else { return Ok(Outcome::NotAWorkload) };
    let Some(template) = workload.pod(object) else {
        return Err(Refusal::new(workload.pod_field(""), "has no Pod template"));
    };
    let at = |refusal: Refusal| Refusal { field: workload.pod_field(&refusal.field), ..refusal };
    fields::check(template).map_err(at)?;
    match decision::decide(template, namespace, &settings.revision).map_err(at)? {
        Decision::Skip(reason) => Ok(Outcome::Skipped(reason)),
        Decision::Inject => {
            let mut injected = object.clone();
            let mut warnings = Vec::new();
            if let Some(pod) = workload.pod_mut(&mut injected) {
                let owner = workload.owner(object);
                warnings = inject_pod(pod, owner.as_ref(), settings).map_err(at)?;
            }
            Ok(Outcome::Injected { object: injected, warnings })
        }
    }
}

/// Puts the sidecar into a Pod or a Pod template; returns the warnings.
fn inject_pod(
    pod: &mut Map<String, Value>,
    owner: Option<&workload::Owner>,
    settings: &InjectionSettings,
) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    let of_pod = annotations::read(pod, settings, &mut warnings)?;
    refuse_conflicts(pod)?;
    warn_of_surprises(pod, &of_pod, &mut warnings);

    let captured = of_pod.interception_mode == InterceptionMode::Redirect;
    let mut extra = Vec::new();
    if captured && of_pod.rewrite_probes {
        extra.extend(probes::rewrite(pod, &mut warnings));
    }
    if of_pod.merge_metrics {
        extra.extend(prometheus::merge(pod)?);
    }
    let environment = environment::of(pod, owner, &of_pod, settings, extra)?;
    let proxy = containers::proxy(&of_pod, settings, environment);
    let capture = captured.then(|| containers::capture(&of_pod, settings));

    status::mark(pod, &of_pod, capture.is_some(), settings);
    place(pod, &of_pod, proxy, capture);
    volumes::add(pod, settings);
    Ok(warnings)
}

/// Puts the containers where they start in the right order.
///
/// Native: capture, then the sidecar, then the Pod's own init containers, which have the mesh already. Otherwise the
/// Pod's own init containers come before the capture, because nobody would serve their traffic after it.
fn place(pod: &mut Map<String, Value>, of_pod: &PodSettings, proxy: Value, capture: Option<Value>) {
    let mut spec = take_object(pod, "spec");
    let mut init = take_list(&mut spec, "initContainers");
    let mut containers = take_list(&mut spec, "containers");
    match of_pod.form() {
        Form::Native => {
            init.splice(0..0, capture.into_iter().chain([proxy]));
        }
        Form::Container { hold } => {
            init.extend(capture);
            containers.insert(if hold { 0 } else { containers.len() }, proxy);
        }
    }
    if !init.is_empty() {
        spec.insert("initContainers".to_owned(), init.into());
    }
    spec.insert("containers".to_owned(), containers.into());
    pod.insert("spec".to_owned(), spec.into());
}

/// Names that the sidecar needs for itself.
fn refuse_conflicts(pod: &Map<String, Value>) -> Result<(), Refusal> {
    for (list, name, field) in fields::names(pod) {
        let ours = match list {
            "volumes" => volumes::NAMES.contains(&name),
            _ => name == PROXY_CONTAINER || name == CAPTURE_CONTAINER,
        };
        if ours {
            let reason = format!("{name:?} is a name of the sidecar's own, and this Pod is not injected");
            return Err(Refusal::new(field, reason));
        }
    }
    Ok(())
}

/// What works, but not as it may look.
fn warn_of_surprises(pod: &Map<String, Value>, of_pod: &PodSettings, warnings: &mut Vec<String>) {
    let ends = fields::text(pod, "spec.restartPolicy").is_some_and(|policy| policy != "Always");
    if ends && matches!(of_pod.form(), Form::Container { .. }) {
        warnings.push(
            "without a native sidecar this Pod does not complete by itself: its last act must be a \
             POST to http://127.0.0.1:15020/quitquitquit"
                .to_owned(),
        );
    }
    if of_pod.interception_mode == InterceptionMode::None {
        return;
    }
    for (container, field) in fields::containers(pod) {
        if fields::number(container, "securityContext.runAsUser") == Some(PROXY_UID.into()) {
            warnings.push(format!(
                "{field}.securityContext.runAsUser: user {PROXY_UID} is the sidecar's; traffic of this container goes \
                 round the mesh"
            ));
        }
        for hook in ["postStart", "preStop"] {
            if fields::at(container, &format!("lifecycle.{hook}.httpGet")).is_some() {
                warnings.push(format!(
                    "{field}.lifecycle.{hook}.httpGet: the kubelet's call comes without mTLS and is refused where \
                     mTLS is STRICT; use exec"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests;
