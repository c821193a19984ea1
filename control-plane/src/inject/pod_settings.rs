//! What holds for one Pod: the settings with the Pod's own wishes applied.

use std::collections::BTreeMap;
use std::time::Duration;

use super::capture::Capture;
use super::settings::{InjectionSettings, InterceptionMode, LogLevel, Readiness, Resources};

/// How the sidecar is part of the Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An init container that keeps running.
    Native,
    /// One of the containers.
    Container {
        /// Whether the application's containers wait for it.
        hold: bool,
    },
}

/// Settings of one Pod's sidecar.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodSettings {
    pub(super) image: String,
    /// Whether it is a native sidecar.
    pub(super) is_native: bool,
    /// Whether the application's containers wait for a sidecar that is not native.
    pub(super) holds: bool,
    pub(super) interception_mode: InterceptionMode,
    pub(super) log_level: LogLevel,
    pub(super) component_log_level: Option<String>,
    pub(super) resources: Resources,
    /// Number of workers; `None`: from the CPU limit.
    pub(super) concurrency: Option<u32>,
    /// How long connections may take to end; `None`: what the Pod's grace period leaves.
    pub(super) drain_time: Option<Duration>,
    pub(super) readiness: Readiness,
    pub(super) rewrite_probes: bool,
    pub(super) merge_metrics: bool,
    pub(super) capture: Capture,
    /// `ISTIO_META_*` and `ISTIO_METAJSON_*` of the user.
    pub(super) metadata: BTreeMap<String, String>,
}

impl PodSettings {
    /// What holds for a Pod that wishes nothing.
    pub(super) fn new(settings: &InjectionSettings) -> Self {
        Self {
            image: settings.image.clone(),
            is_native: settings.native_sidecar,
            holds: settings.hold_application_until_proxy_starts,
            interception_mode: settings.interception_mode,
            log_level: settings.log_level,
            component_log_level: None,
            resources: settings.resources.clone(),
            concurrency: None,
            drain_time: None,
            readiness: settings.readiness,
            rewrite_probes: settings.rewrite_app_http_probers,
            merge_metrics: settings.merge_metrics,
            capture: settings.capture.clone(),
            metadata: BTreeMap::new(),
        }
    }

    /// How the sidecar is part of the Pod.
    pub(super) fn form(&self) -> Form {
        if self.is_native { Form::Native } else { Form::Container { hold: self.holds } }
    }
}
