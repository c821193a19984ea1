//! Labels of series, in the order in which Envoy and Istio print them.

use prometheus::proto::LabelPair;

use crate::stats::Reporter;
use crate::stats::mesh::{PeerLabels, RequestLabels, RequestProtocol, TcpLabels};
use crate::stats::scope::Scope;

/// What every label of the overflow series says.
const OVERFLOW: &str = "overflow";

/// One label.
pub(super) fn label(name: impl Into<String>, value: impl Into<String>) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}

/// The labels of a scope.
pub(super) fn scope_labels<S: Scope>(scope: &S) -> Vec<LabelPair> {
    S::LABELS.iter().zip(scope.labels()).map(|(name, value)| label(*name, &**value)).collect()
}

/// All labels of `istio_requests_total` in Istio's order; `None` is the overflow series.
pub(super) fn request_labels(labels: Option<&RequestLabels>) -> Vec<LabelPair> {
    let or_overflow = |get: fn(&RequestLabels) -> String| labels.map_or_else(|| OVERFLOW.into(), get);
    let mut out = Vec::with_capacity(25);
    out.push(label("reporter", labels.map_or(OVERFLOW, |l| reporter(l.reporter))));
    push_peer(&mut out, "source", labels.map(|l| &*l.source));
    push_peer(&mut out, "destination", labels.map(|l| &*l.destination));
    out.push(label("destination_service", or_overflow(|l| l.destination_service.to_string())));
    out.push(label("destination_service_name", or_overflow(|l| l.destination_service_name.to_string())));
    out.push(label(
        "destination_service_namespace",
        or_overflow(|l| l.destination_service_namespace.to_string()),
    ));
    let protocol = |l: &RequestLabels| match l.request_protocol {
        RequestProtocol::Http => "http",
        RequestProtocol::Grpc => "grpc",
    };
    out.push(label("request_protocol", labels.map_or(OVERFLOW, protocol)));
    out.push(label("response_code", or_overflow(|l| l.response_code.to_string())));
    let grpc = or_overflow(|l| l.grpc_response_status.map(|status| status.to_string()).unwrap_or_default());
    out.push(label("grpc_response_status", grpc));
    out.push(label("response_flags", or_overflow(|l| l.response_flags.to_string())));
    let security = labels.map_or(OVERFLOW, |l| l.connection_security_policy.as_str());
    out.push(label("connection_security_policy", security));
    out
}

/// All labels of `istio_tcp_*` in Istio's order; `None` is the overflow series.
pub(super) fn tcp_labels(labels: Option<&TcpLabels>) -> Vec<LabelPair> {
    let or_overflow = |get: fn(&TcpLabels) -> String| labels.map_or_else(|| OVERFLOW.into(), get);
    let mut out = Vec::with_capacity(23);
    out.push(label("reporter", labels.map_or(OVERFLOW, |l| reporter(l.reporter))));
    push_peer(&mut out, "source", labels.map(|l| &*l.source));
    push_peer(&mut out, "destination", labels.map(|l| &*l.destination));
    out.push(label("destination_service", or_overflow(|l| l.destination_service.to_string())));
    out.push(label("destination_service_name", or_overflow(|l| l.destination_service_name.to_string())));
    out.push(label(
        "destination_service_namespace",
        or_overflow(|l| l.destination_service_namespace.to_string()),
    ));
    out.push(label("request_protocol", labels.map_or(OVERFLOW, |_| "tcp")));
    out.push(label("response_flags", or_overflow(|l| l.response_flags.to_string())));
    let security = labels.map_or(OVERFLOW, |l| l.connection_security_policy.as_str());
    out.push(label("connection_security_policy", security));
    out
}

/// The eight labels of one end, in Istio's order; `None` is the overflow series.
fn push_peer(out: &mut Vec<LabelPair>, end: &str, peer: Option<&PeerLabels>) {
    let mut push = |name: &str, get: fn(&PeerLabels) -> &str| {
        out.push(label(format!("{end}_{name}"), peer.map_or(OVERFLOW, get)));
    };
    push("workload", |p| &p.workload);
    push("canonical_service", |p| &p.canonical_service);
    push("canonical_revision", |p| &p.canonical_revision);
    push("workload_namespace", |p| &p.workload_namespace);
    push("principal", |p| &p.principal);
    push("app", |p| &p.app);
    push("version", |p| &p.version);
    push("cluster", |p| &p.cluster);
}

fn reporter(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    }
}
