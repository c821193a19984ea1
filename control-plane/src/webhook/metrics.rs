//! Counts of what the API server asked and what it was answered, under Istio's names where Istio has them.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::inject::decision::SkipReason;

/// Counters of the webhooks.
pub struct WebhookMetrics {
    /// Pods that the API server asked to inject.
    pub injection_requests: IntCounter,
    /// Pods that got a sidecar.
    pub injected: IntCounter,
    /// Pods that were left as they are, by reason.
    pub injection_skipped: IntCounterVec,
    /// Pods that were refused.
    pub injection_refused: IntCounter,
    /// Rule objects that may be stored.
    pub validated: IntCounter,
    /// Rule objects that were refused.
    pub validation_refused: IntCounter,
    /// Requests that are no admission reviews, by reason.
    pub bad_requests: IntCounterVec,
}

impl WebhookMetrics {
    /// Registers the counters. Fails only when a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let metrics = Self {
            injection_requests: counter(
                "sidecar_injection_requests_total",
                "Pods that the API server asked to inject.",
            )?,
            injected: counter("sidecar_injection_success_total", "Pods that got a sidecar.")?,
            injection_skipped: counters(
                "sidecar_injection_skip_total",
                "Pods that were left as they are, by reason.",
                "reason",
            )?,
            injection_refused: counter(
                "sidecar_injection_failure_total",
                "Pods that were refused because they could not be injected.",
            )?,
            validated: counter("outrigger_validation_passed_total", "Rule objects that may be stored.")?,
            validation_refused: counter(
                "outrigger_validation_refused_total",
                "Rule objects that were refused because they could not be translated.",
            )?,
            bad_requests: counters(
                "outrigger_webhook_bad_requests_total",
                "Requests to the webhooks that are no admission reviews, by reason.",
                "reason",
            )?,
        };
        for reason in SkipReason::ALL {
            metrics.injection_skipped.with_label_values(&[reason.label()]);
        }
        Ok(metrics)
    }
}
