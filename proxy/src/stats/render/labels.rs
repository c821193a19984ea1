//! Labels of series, in the order in which Envoy and Istio print them.

use prometheus::proto::LabelPair;

use crate::stats::Reporter;
use crate::stats::mesh::{HopLabels, PeerLabels, RequestLabels, RequestProtocol, TcpLabels};
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
    let mut out = hop_labels(labels.map(|l| &l.hop));
    let protocol = |l: &RequestLabels| match l.request_protocol {
        RequestProtocol::Http => "http",
        RequestProtocol::Grpc => "grpc",
    };
    out.push(label("request_protocol", labels.map_or(OVERFLOW, protocol)));
    out.push(label("response_code", or_overflow(|l| l.response_code.to_string())));
    let grpc = or_overflow(|l| l.grpc_response_status.map(|status| status.to_string()).unwrap_or_default());
    out.push(label("grpc_response_status", grpc));
    out.push(label("response_flags", or_overflow(|l| l.response_flags.to_string())));
    out.push(security_label(labels.map(|l| &l.hop)));
    out
}

/// All labels of `istio_tcp_*` in Istio's order; `None` is the overflow series.
pub(super) fn tcp_labels(labels: Option<&TcpLabels>) -> Vec<LabelPair> {
    let mut out = hop_labels(labels.map(|l| &l.hop));
    out.push(label("request_protocol", labels.map_or(OVERFLOW, |_| "tcp")));
    let flags = labels.map_or_else(|| OVERFLOW.into(), |l| l.response_flags.to_string());
    out.push(label("response_flags", flags));
    out.push(security_label(labels.map(|l| &l.hop)));
    out
}

/// The labels that come first: who talks to whom.
fn hop_labels(hop: Option<&HopLabels>) -> Vec<LabelPair> {
    // With room for those of a request.
    let mut out = Vec::with_capacity(25);
    out.push(label("reporter", hop.map_or(OVERFLOW, |hop| reporter(hop.reporter))));
    push_peer(&mut out, "source", hop.map(|hop| &*hop.source));
    push_peer(&mut out, "destination", hop.map(|hop| &*hop.destination));
    let mut push = |name: &str, get: fn(&HopLabels) -> &str| {
        out.push(label(name, hop.map_or(OVERFLOW, get)));
    };
    push("destination_service", |hop| &hop.destination_service);
    push("destination_service_name", |hop| &hop.destination_service_name);
    push("destination_service_namespace", |hop| &hop.destination_service_namespace);
    out
}

/// The label that comes last.
fn security_label(hop: Option<&HopLabels>) -> LabelPair {
    let security = hop.map_or(OVERFLOW, |hop| hop.connection_security_policy.as_str());
    label("connection_security_policy", security)
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
