//! Whether an object gets a sidecar.
//!
//! Istio's rules ("Controlling the injection policy"): a `disabled` or `false` anywhere wins; then the namespace's
//! `istio-injection`, the namespace's `istio.io/rev`, the Pod's `istio.io/rev` and the Pod's `sidecar.istio.io/inject`
//! in this order can switch it on. Unlike Istio, a value that is neither yes nor no is refused: whoever mistypes
//! `sidecar.istio.io/inject` must not get a Pod outside the mesh.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::{fields, status};
use crate::api::Refusal;

/// Label or annotation of a Pod that switches its injection.
const INJECT: &str = "sidecar.istio.io/inject";
/// Label of a namespace: `enabled` or `disabled`.
const NAMESPACE_INJECTION: &str = "istio-injection";
/// Label of a namespace or Pod: the control plane's revision that injects.
const REVISION: &str = "istio.io/rev";
/// Annotation of the image that the API server has of a Pod from a file of its node.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The revision that `istio-injection` and a Pod's `sidecar.istio.io/inject` alone mean.
const DEFAULT_REVISION: &str = "default";

/// Namespaces whose Pods the cluster itself depends on (Istio's list).
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The namespace of an object, as far as it decides about injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// What is known of its labels.
    pub policy: NamespacePolicy,
}

/// What is known of a namespace's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespacePolicy {
    /// Its labels.
    Labels(BTreeMap<String, String>),
    /// Whoever asks has chosen already: a webhook configuration's `namespaceSelector`, or a person at a command line.
    /// Everything is injected that does not say no.
    Selected,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject,
    /// It stays as it is.
    Skip(SkipReason),
}

/// Why an object stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// `spec.hostNetwork`: capture would take the node's own traffic.
    HostNetwork,
    /// It has a sidecar.
    AlreadyInjected,
    /// Windows: there is no sidecar for it.
    Windows,
    /// It runs already, from a file of its node.
    MirrorPod,
    /// The cluster's own namespaces.
    SystemNamespace,
    /// The Pod says no.
    PodOptedOut,
    /// The namespace says no.
    NamespaceOptedOut,
    /// Another revision of the control plane injects it.
    OtherRevision,
    /// Neither the namespace nor the Pod asks for it.
    NotEnabled,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::HostNetwork,
        Self::AlreadyInjected,
        Self::Windows,
        Self::MirrorPod,
        Self::SystemNamespace,
        Self::PodOptedOut,
        Self::NamespaceOptedOut,
        Self::OtherRevision,
        Self::NotEnabled,
    ];

    /// The value of the metrics' label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::HostNetwork => "host_network",
            Self::AlreadyInjected => "already_injected",
            Self::Windows => "windows",
            Self::MirrorPod => "mirror_pod",
            Self::SystemNamespace => "system_namespace",
            Self::PodOptedOut => "pod_opted_out",
            Self::NamespaceOptedOut => "namespace_opted_out",
            Self::OtherRevision => "other_revision",
            Self::NotEnabled => "not_enabled",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "it uses the node's network",
            Self::AlreadyInjected => "it has a sidecar already",
            Self::Windows => "it is for Windows",
            Self::MirrorPod => "it runs already, from a file of its node",
            Self::SystemNamespace => "it is in a namespace of the cluster's own",
            Self::PodOptedOut => "it is labelled or annotated sidecar.istio.io/inject: \"false\"",
            Self::NamespaceOptedOut => "its namespace is labelled istio-injection: disabled",
            Self::OtherRevision => "another revision of the control plane injects it",
            Self::NotEnabled => "neither its namespace nor the Pod asks for a sidecar",
        })
    }
}

/// Decides about a Pod or Pod template, for the control plane of `revision`.
///
/// # Errors
/// A label or annotation whose value is neither yes nor no.
pub fn decide(pod: &Map<String, Value>, namespace: &Namespace, revision: &str) -> Result<Decision, Refusal> {
    use Decision::{Inject, Skip};
    if fields::at(pod, "spec.hostNetwork") == Some(&Value::Bool(true)) {
        return Ok(Skip(SkipReason::HostNetwork));
    }
    if fields::text(pod, "spec.os.name") == Some("windows") {
        return Ok(Skip(SkipReason::Windows));
    }
    if fields::metadata(pod, "annotations", MIRROR).is_some() {
        return Ok(Skip(SkipReason::MirrorPod));
    }
    if SYSTEM_NAMESPACES.contains(&namespace.name.as_str()) {
        return Ok(Skip(SkipReason::SystemNamespace));
    }
    let wish = wish(pod)?;
    if wish == Some(false) {
        return Ok(Skip(SkipReason::PodOptedOut));
    }
    if status::is_injected(pod)? {
        return Ok(Skip(SkipReason::AlreadyInjected));
    }
    let labels = match &namespace.policy {
        NamespacePolicy::Selected => return Ok(Inject),
        NamespacePolicy::Labels(labels) => labels,
    };
    let if_revision =
        |wanted: &str| Ok(if wanted == revision { Inject } else { Skip(SkipReason::OtherRevision) });
    match labels.get(NAMESPACE_INJECTION).map(String::as_str) {
        Some("enabled") => return if_revision(DEFAULT_REVISION),
        Some("disabled") => return Ok(Skip(SkipReason::NamespaceOptedOut)),
        Some(other) => {
            let reason = format!(
                "namespace {} is labelled {NAMESPACE_INJECTION}: {other:?}; it must be enabled or disabled",
                namespace.name
            );
            return Err(Refusal::new("metadata.namespace", reason));
        }
        None => {}
    }
    if let Some(wanted) = labels.get(REVISION) {
        return if_revision(wanted);
    }
    if let Some(wanted) = fields::metadata(pod, "labels", REVISION) {
        return if_revision(wanted);
    }
    match wish {
        Some(true) => if_revision(DEFAULT_REVISION),
        _ => Ok(Skip(SkipReason::NotEnabled)),
    }
}

/// What the Pod says itself; its label counts before its annotation.
fn wish(pod: &Map<String, Value>) -> Result<Option<bool>, Refusal> {
    for map in ["labels", "annotations"] {
        let Some(text) = fields::metadata(pod, map, INJECT) else { continue };
        return match text.to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "true" | "yes" | "y" | "on" => Ok(Some(true)),
            "false" | "no" | "n" | "off" => Ok(Some(false)),
            _ => {
                let field = format!("metadata.{map}[{INJECT:?}]");
                Err(Refusal::new(field, format!("{text:?} is neither \"true\" nor \"false\"")))
            }
        };
    }
    Ok(None)
}
