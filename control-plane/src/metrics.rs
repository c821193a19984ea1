//! The control plane's own metrics, in the Prometheus text format.
//!
//! Names that users of Istio know are kept where they follow Prometheus' rules (a counter ends in `_total`);
//! the others begin with `outrigger_`. Handles are resolved where they are used often; a scrape runs on the main
//! runtime.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::webhook::WebhookMetrics;

/// Bounds in seconds of the push histograms: from a change on an idle machine to a congested mesh (Istio's list, with
/// finer steps below 100 ms).
const PUSH_BUCKETS_S: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    /// Seconds from the publication of a change to the last ACK that it needs from one proxy.
    pub convergence: Histogram,
    /// Seconds from the publication of a change to the first response about it to one proxy.
    pub queue_time: Histogram,
    /// Responses sent, by type.
    pub pushes: IntCounterVec,
    /// NACKs received, by type.
    pub nacks: IntCounterVec,
    /// By type and name of the resource: how many proxies refuse it now. Counted when it is asked for.
    pub refused_resources: IntGaugeVec,
    /// Proxies connected now.
    pub connected_proxies: IntGauge,
    /// Streams and calls that were refused, by reason.
    pub refused_proxies: IntCounterVec,
    /// Objects and files of the source that are refused now.
    pub rejected_objects: IntGauge,
    /// Lists and watches of the API server that failed, by kind.
    pub watch_failures: IntCounterVec,
    /// Objects in force that cannot have their whole effect.
    pub objects_with_problems: IntGauge,
    /// Workload certificates signed.
    pub certificates_signed: IntCounter,
    /// Certificate requests refused, by reason.
    pub certificates_refused: IntCounterVec,
    /// When the CA's chain expires, in Unix seconds.
    pub root_expiry: IntGauge,
    /// Of the admission webhooks.
    pub webhooks: Arc<WebhookMetrics>,
}

impl Metrics {
    /// Registers every metric. Fails only when two have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let histogram = |name: &str, help: &str| {
            let metric =
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(PUSH_BUCKETS_S.to_vec()))?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let build = IntGaugeVec::new(
            Opts::new("outrigger_build_info", "Version of the control plane."),
            &["version"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        let refused_resources = IntGaugeVec::new(
            Opts::new("outrigger_xds_refused_resources", "Connected proxies that refuse the resource now."),
            &["type", "resource"],
        )?;
        registry.register(Box::new(refused_resources.clone()))?;

        let metrics = Self {
            convergence: histogram(
                "pilot_proxy_convergence_time",
                "Delay in seconds between config change and a proxy receiving all required configuration.",
            )?,
            queue_time: histogram(
                "pilot_proxy_queue_time",
                "Time in seconds, a proxy is in the push queue before being dequeued.",
            )?,
            pushes: counters("outrigger_xds_pushes_total", "xDS responses sent, by resource type.", "type")?,
            nacks: counters("outrigger_xds_nacks_total", "xDS responses that a proxy rejected.", "type")?,
            refused_resources,
            connected_proxies: gauge("outrigger_connected_proxies", "Proxies with an open xDS stream.")?,
            refused_proxies: counters(
                "outrigger_xds_refused_total",
                "xDS streams that were refused or ended by the control plane.",
                "reason",
            )?,
            rejected_objects: gauge(
                "outrigger_rejected_objects",
                "Objects and files of the source that are refused now.",
            )?,
            watch_failures: counters(
                "outrigger_source_watch_failures_total",
                "Lists and watches of the Kubernetes API server that failed and were tried again.",
                "kind",
            )?,
            objects_with_problems: gauge(
                "outrigger_objects_with_problems",
                "Objects in force that cannot have their whole effect.",
            )?,
            certificates_signed: counter(
                "outrigger_ca_certificates_signed_total",
                "Workload certificates signed.",
            )?,
            certificates_refused: counters(
                "outrigger_ca_requests_refused_total",
                "Certificate requests that were refused.",
                "reason",
            )?,
            root_expiry: gauge(
                "outrigger_ca_expiry_timestamp_seconds",
                "When the first certificate of the CA's own chain expires, in Unix seconds.",
            )?,
            webhooks: Arc::new(WebhookMetrics::register(&registry)?),
            registry,
        };
        // A series that exists from the start lets an alert on its rate see the first event.
        for of in ResourceType::ALL {
            metrics.pushes.with_label_values(&[of.short_name()]);
            metrics.nacks.with_label_values(&[of.short_name()]);
        }
        Ok(metrics)
    }

    /// The text format, version 0.0.4.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn names_follow_prometheus_rules() {
        let metrics = Metrics::new().unwrap();
        metrics.refused_proxies.with_label_values(&["node_mismatch"]).inc();
        metrics.certificates_refused.with_label_values(&["csr"]).inc();
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert!(text.contains("outrigger_xds_nacks_total{type=\"rds\"} 0"), "{text}");
    }
}
