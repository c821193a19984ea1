//! The two containers that a Pod gets: the sidecar, and the capture of its traffic before it.
//!
//! The sidecar has no right that it does not need: its own user, no capability, a read-only root, the runtime's seccomp
//! profile. The capture needs root and two capabilities for the moment in which it programs the kernel.

use serde_json::{Value, json};

use super::pod_settings::{Form, PodSettings};
use super::settings::InjectionSettings;
use super::{CAPTURE_CONTAINER, PROXY_CONTAINER, PROXY_UID, volumes};

/// The program in the image, found by the image's `PATH`.
const PROGRAM: &str = "outrigger-proxy";

/// Where the kubelet asks whether the sidecar is ready.
const READY_PORT: u16 = 15021;
const READY_PATH: &str = "/healthz/ready";
/// How long the kubelet waits for an answer, in seconds (Istio's).
const PROBE_TIMEOUT_S: u32 = 3;
/// The startup probe comes every second, for ten minutes (Istio's).
const STARTUP_PERIOD_S: u32 = 1;
const STARTUP_FAILURES: u32 = 600;

const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// The sidecar.
pub(super) fn proxy(of_pod: &PodSettings, settings: &InjectionSettings, environment: Vec<Value>) -> Value {
    let mut arguments = vec!["sidecar".to_owned(), format!("--log-level={}", of_pod.log_level.as_str())];
    if let Some(levels) = &of_pod.component_log_level {
        arguments.push(format!("--component-log-level={levels}"));
    }
    if let Some(concurrency) = of_pod.concurrency {
        arguments.push(format!("--concurrency={concurrency}"));
    }
    let ready = json!({"path": READY_PATH, "port": READY_PORT});
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": of_pod.image,
        "command": [PROGRAM],
        "args": arguments,
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
        "env": environment,
        "resources": of_pod.resources.to_json(),
        "startupProbe": {
            "httpGet": ready,
            "periodSeconds": STARTUP_PERIOD_S,
            "timeoutSeconds": PROBE_TIMEOUT_S,
            "failureThreshold": STARTUP_FAILURES,
        },
        "readinessProbe": {
            "httpGet": ready,
            "initialDelaySeconds": of_pod.readiness.initial_delay_seconds,
            "periodSeconds": of_pod.readiness.period_seconds,
            "timeoutSeconds": PROBE_TIMEOUT_S,
            "failureThreshold": of_pod.readiness.failure_threshold,
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "runAsUser": PROXY_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": volumes::proxy_mounts(),
    });
    match of_pod.form() {
        // The kubelet calls preStop of every container at once, but ends a native sidecar only after the application:
        // inbound traffic drains from the beginning.
        Form::Native => {
            container["restartPolicy"] = "Always".into();
            container["lifecycle"] =
                json!({"preStop": {"exec": {"command": [PROGRAM, "request", "POST", "/drain"]}}});
        }
        // The kubelet starts the next container once postStart of this one has ended.
        Form::Container { hold: true } => {
            container["lifecycle"] = json!({"postStart": {"exec": {"command": [PROGRAM, "wait"]}}});
        }
        Form::Container { hold: false } => {}
    }
    with_pull_policy(container, settings)
}

/// The capture.
pub(super) fn capture(of_pod: &PodSettings, settings: &InjectionSettings) -> Value {
    let mut arguments = vec![
        "capture".to_owned(),
        format!("--outbound-port={OUTBOUND_PORT}"),
        format!("--inbound-port={INBOUND_PORT}"),
        format!("--proxy-uid={PROXY_UID}"),
        format!("--proxy-gid={PROXY_UID}"),
    ];
    arguments.extend(of_pod.capture.flags());
    let container = json!({
        "name": CAPTURE_CONTAINER,
        "image": of_pod.image,
        "command": [PROGRAM],
        "args": arguments,
        // iptables takes a lock in a file; the root is read-only.
        "env": [{"name": "XTABLES_LOCKFILE", "value": format!("{}/xtables.lock", volumes::STATE_FOLDER)}],
        "resources": of_pod.resources.to_json(),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": volumes::capture_mounts(),
    });
    with_pull_policy(container, settings)
}

fn with_pull_policy(mut container: Value, settings: &InjectionSettings) -> Value {
    if let Some(policy) = settings.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    container
}
