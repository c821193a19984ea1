//! Prometheus' text format with Envoy's and Istio's names.
//!
//! `promtool check metrics` wants a counter to end in `_total` and nothing else to do so. Most of Envoy's counters do not and one
//! of its gauges does; dashboards need those names. So what breaks the rule is announced as `untyped`, which queries do not
//! notice. Names that carry `_ms` or `milliseconds` are left as they are: `promtool` remarks on those and there is no way round.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Selection, Visitor, dotted_name};
use crate::stats::mesh::{MeshHandles, PeerLabels, RequestLabels, RequestProtocol, TcpHandles, TcpLabels};
use crate::stats::metric::BOUNDS_MS;
use crate::stats::scope::{Family, Metric, Scope};
use crate::stats::{Counter, Histogram, Reporter, Stats};

impl Stats {
    /// Everything selected in Prometheus' text format, version 0.0.4.
    pub fn prometheus(&self, selection: &Selection) -> String {
        let mut page = Page { out: String::with_capacity(64 * 1024), selection };
        self.visit_scopes(&mut page);
        page.requests(&self.mesh().requests.all());
        page.tcp(&self.mesh().tcp.all());
        page.out
    }
}

struct Page<'a> {
    out: String,
    selection: &'a Selection,
}

impl Visitor for Page<'_> {
    fn visit<S: Scope>(&mut self, scopes: &[&S], families: &'static [Family<S>]) {
        for family in families {
            let mut name = None;
            for scope in scopes {
                let metric = (family.get)(scope);
                if !self.selection.shows(metric.used(), || dotted_name(*scope, family.name)) {
                    continue;
                }
                let name = name.get_or_insert_with(|| {
                    let name = family_name(S::GROUP, family.name);
                    self.head(&name, kind(&name, metric), family.help);
                    name
                });
                self.series(name, &labels(*scope), metric);
            }
        }
        self.responses(scopes);
    }
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// `labels` is `a="b",c="d"`, possibly empty.
    fn series(&mut self, name: &str, labels: &str, metric: Metric<'_>) {
        match metric {
            Metric::Counter(c) => self.sample(name, labels, c.get()),
            Metric::Gauge(g) => self.sample(name, labels, g.get()),
            Metric::Histogram(h) => self.histogram(name, labels, h),
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.out, "{name} {value}")
        } else {
            writeln!(self.out, "{name}{{{labels}}} {value}")
        };
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let comma = if labels.is_empty() { "" } else { "," };
        let cumulative = histogram.cumulative();
        for (bound, count) in BOUNDS_MS.iter().chain(&["+Inf"]).zip(cumulative) {
            let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum_ms());
        // From the same reading as the buckets, so that they agree.
        self.sample(&format!("{name}_count"), labels, cumulative[BOUNDS_MS.len()]);
    }

    /// `_rq_xx{envoy_response_code_class}` and `_rq{envoy_response_code}`.
    fn responses<S: Scope>(&mut self, scopes: &[&S]) {
        let mut headed = false;
        for scope in scopes {
            let Some((prefix, classes, _)) = scope.responses() else { return };
            let (name, labels) = (family_name(S::GROUP, &format!("{prefix}_xx")), labels(*scope));
            for (class, count) in classes.iter() {
                if !self.selection.shows(count > 0, || dotted_name(*scope, &format!("{prefix}_{class}xx"))) {
                    continue;
                }
                if !std::mem::replace(&mut headed, true) {
                    self.head(&name, "untyped", "Responses by the class of their status code.");
                }
                self.sample(&name, &format!("envoy_response_code_class=\"{class}\",{labels}"), count);
            }
        }
        headed = false;
        for scope in scopes {
            let Some((prefix, _, Some(codes))) = scope.responses() else { return };
            let (name, labels) = (family_name(S::GROUP, prefix), labels(*scope));
            for (code, count) in codes.seen() {
                if !self.selection.shows(true, || dotted_name(*scope, &format!("{prefix}_{code}"))) {
                    continue;
                }
                if !std::mem::replace(&mut headed, true) {
                    self.head(&name, "untyped", "Responses by status code.");
                }
                self.sample(&name, &format!("envoy_response_code=\"{code}\",{labels}"), count);
            }
        }
    }

    fn requests(&mut self, all: &[(Option<Arc<RequestLabels>>, Arc<MeshHandles>)]) {
        if all.is_empty() {
            return;
        }
        let mut all: Vec<_> = all.iter().map(|(labels, h)| (request_labels(labels.as_deref()), h)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        if self.selection.shows(true, || REQUESTS.into()) {
            self.head(REQUESTS, "counter", "Requests, by caller, callee and outcome.");
            for (labels, handles) in &all {
                self.sample(REQUESTS, labels, handles.requests.get());
            }
        }
        if self.selection.shows(true, || DURATION.into()) {
            self.head(DURATION, "histogram", "Duration of requests, milliseconds.");
            for (labels, handles) in &all {
                self.histogram(DURATION, labels, &handles.duration);
            }
        }
    }

    fn tcp(&mut self, all: &[(Option<Arc<TcpLabels>>, Arc<TcpHandles>)]) {
        if all.is_empty() {
            return;
        }
        let mut all: Vec<_> = all.iter().map(|(labels, h)| (tcp_labels(labels.as_deref()), h)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, help, get) in TCP_FAMILIES {
            if self.selection.shows(true, || name.into()) {
                self.head(name, "counter", help);
                for (labels, handles) in &all {
                    self.sample(name, labels, get(handles).get());
                }
            }
        }
    }
}

pub(super) const REQUESTS: &str = "istio_requests_total";
const DURATION: &str = "istio_request_duration_milliseconds";

type TcpFamily = (&'static str, &'static str, fn(&TcpHandles) -> &Counter);

pub(super) const TCP_FAMILIES: [TcpFamily; 4] = [
    ("istio_tcp_sent_bytes_total", "Bytes sent to clients over TCP connections.", |h| &h.sent_bytes),
    ("istio_tcp_received_bytes_total", "Bytes received from clients over TCP connections.", |h| {
        &h.received_bytes
    }),
    ("istio_tcp_connections_opened_total", "TCP connections opened.", |h| &h.connections_opened),
    ("istio_tcp_connections_closed_total", "TCP connections closed.", |h| &h.connections_closed),
];

/// `envoy_GROUP_NAME`; our own have our own prefix.
fn family_name(group: &str, name: &str) -> String {
    let name = name.replace('.', "_");
    if group.is_empty() {
        if name.starts_with("outrigger_") { name } else { format!("envoy_{name}") }
    } else {
        format!("envoy_{}_{name}", group.replace('.', "_"))
    }
}

fn kind(name: &str, metric: Metric<'_>) -> &'static str {
    match (metric, name.ends_with("_total")) {
        (Metric::Counter(_), true) => "counter",
        (Metric::Gauge(_), false) => "gauge",
        (Metric::Histogram(_), _) => "histogram",
        _ => "untyped",
    }
}

fn labels<S: Scope>(scope: &S) -> String {
    let mut out = String::new();
    for (name, value) in S::LABELS.iter().zip(scope.labels()) {
        push_label(&mut out, name, value);
    }
    out
}

/// Appends `name="value"`, after a comma if there is something before it.
fn push_label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

const OVERFLOW: &str = "overflow";

fn reporter(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    }
}

/// The eight labels of one end, in Istio's order; `None` is the overflow series.
fn push_peer(out: &mut String, prefix: &str, peer: Option<&PeerLabels>) {
    let mut push = |name: &str, get: fn(&PeerLabels) -> &str| {
        push_label(out, &format!("{prefix}_{name}"), peer.map_or(OVERFLOW, get));
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

/// All labels of `istio_requests_total` in Istio's order; `None` is the overflow series.
pub(super) fn request_labels(labels: Option<&RequestLabels>) -> String {
    let mut out = String::with_capacity(1024);
    push_label(&mut out, "reporter", labels.map_or(OVERFLOW, |l| reporter(l.reporter)));
    push_peer(&mut out, "source", labels.map(|l| &*l.source));
    push_peer(&mut out, "destination", labels.map(|l| &*l.destination));
    let protocol = |l: &RequestLabels| match l.request_protocol {
        RequestProtocol::Http => "http",
        RequestProtocol::Grpc => "grpc",
    };
    push_label(&mut out, "destination_service", labels.map_or(OVERFLOW, |l| &l.destination_service));
    push_label(
        &mut out,
        "destination_service_name",
        labels.map_or(OVERFLOW, |l| &l.destination_service_name),
    );
    push_label(
        &mut out,
        "destination_service_namespace",
        labels.map_or(OVERFLOW, |l| &l.destination_service_namespace),
    );
    push_label(&mut out, "request_protocol", labels.map_or(OVERFLOW, protocol));
    let or_overflow = |value: Option<String>| value.unwrap_or_else(|| OVERFLOW.into());
    push_label(&mut out, "response_code", &or_overflow(labels.map(|l| l.response_code.to_string())));
    let grpc = labels.map(|l| l.grpc_response_status.map(|status| status.to_string()).unwrap_or_default());
    push_label(&mut out, "grpc_response_status", &or_overflow(grpc));
    push_label(&mut out, "response_flags", &or_overflow(labels.map(|l| l.response_flags.to_string())));
    push_label(
        &mut out,
        "connection_security_policy",
        labels.map_or(OVERFLOW, |l| l.connection_security_policy.as_str()),
    );
    out
}

/// All labels of `istio_tcp_*` in Istio's order; `None` is the overflow series.
pub(super) fn tcp_labels(labels: Option<&TcpLabels>) -> String {
    let mut out = String::with_capacity(1024);
    push_label(&mut out, "reporter", labels.map_or(OVERFLOW, |l| reporter(l.reporter)));
    push_peer(&mut out, "source", labels.map(|l| &*l.source));
    push_peer(&mut out, "destination", labels.map(|l| &*l.destination));
    push_label(&mut out, "destination_service", labels.map_or(OVERFLOW, |l| &l.destination_service));
    push_label(
        &mut out,
        "destination_service_name",
        labels.map_or(OVERFLOW, |l| &l.destination_service_name),
    );
    push_label(
        &mut out,
        "destination_service_namespace",
        labels.map_or(OVERFLOW, |l| &l.destination_service_namespace),
    );
    push_label(&mut out, "request_protocol", labels.map_or(OVERFLOW, |_| "tcp"));
    push_label(
        &mut out,
        "response_flags",
        &labels.map_or_else(|| OVERFLOW.into(), |l| l.response_flags.to_string()),
    );
    push_label(
        &mut out,
        "connection_security_policy",
        labels.map_or(OVERFLOW, |l| l.connection_security_policy.as_str()),
    );
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::stats::SecurityPolicy;
    use crate::stream_info::ResponseFlags;

    fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
        page.lines().filter(|l| l.starts_with(start)).collect()
    }

    fn request_of(app: &str) -> RequestLabels {
        RequestLabels {
            reporter: Reporter::Destination,
            source: Arc::default(),
            destination: Arc::new(PeerLabels::from_workload_metadata(&format!(
                "{app}-v1;default;{app};v1;Kubernetes"
            ))),
            destination_service: "reviews.default.svc.cluster.local".into(),
            destination_service_name: "reviews".into(),
            destination_service_namespace: "default".into(),
            request_protocol: RequestProtocol::Http,
            response_code: 200,
            grpc_response_status: None,
            response_flags: ResponseFlags::NONE,
            connection_security_policy: SecurityPolicy::MutualTls,
        }
    }

    #[test]
    fn scopes_are_shared_by_name_and_go_with_their_last_holder() {
        let stats = Stats::new();
        let a = stats.cluster("up");
        a.upstream_rq_total.inc();
        let b = stats.cluster("up");
        assert!(Arc::ptr_eq(&a, &b));
        drop(a);
        let page = stats.prometheus(&Selection::default());
        assert_eq!(
            lines(&page, "envoy_cluster_upstream_rq_total"),
            ["envoy_cluster_upstream_rq_total{envoy_cluster_name=\"up\"} 1"]
        );
        drop(b);
        assert!(!stats.prometheus(&Selection::default()).contains("envoy_cluster_name"));
        assert_eq!(stats.cluster("up").upstream_rq_total.get(), 0);
    }

    #[test]
    fn responses_have_code_and_class() {
        let stats = Stats::new();
        let (up, http) = (stats.cluster("up"), stats.http("in"));
        up.response(200);
        up.response(418);
        http.response(503);
        let page = stats.prometheus(&Selection { used_only: true, filter: None });
        assert_eq!(
            lines(&page, "envoy_cluster_upstream_rq"),
            [
                "envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"up\"} 2",
                "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"up\"} 1",
                "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"4\",envoy_cluster_name=\"up\"} 1",
                "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"up\"} 1",
                "envoy_cluster_upstream_rq{envoy_response_code=\"418\",envoy_cluster_name=\"up\"} 1",
            ]
        );
        assert_eq!(
            lines(&page, "envoy_http_downstream_rq_xx"),
            [
                "envoy_http_downstream_rq_xx{envoy_response_code_class=\"5\",envoy_http_conn_manager_prefix=\"in\"} 1"
            ]
        );
    }

    #[test]
    fn names_follow_envoy() {
        let stats = Stats::new();
        let listener = stats.listener("127.0.0.1:10001");
        let up = stats.cluster("a\"b");
        listener.ssl.handshake.inc();
        up.circuit_breakers[1].rq_open.set(1);
        up.outlier_detection_ejections_active.set(2);
        stats.server().config_ignored_fields_total.inc();
        let routes = stats.rds("80");
        routes.update_success.inc();
        let page = stats.prometheus(&Selection::default());
        for line in [
            "envoy_listener_ssl_handshake{envoy_listener_address=\"127.0.0.1_10001\"} 1",
            "envoy_cluster_circuit_breakers_high_rq_open{envoy_cluster_name=\"a\\\"b\"} 1",
            "envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name=\"a\\\"b\"} 2",
            "envoy_listener_manager_lds_update_success 0",
            "envoy_http_rds_update_success{envoy_rds_route_config=\"80\"} 1",
            "outrigger_config_ignored_fields_total 1",
            "# TYPE envoy_cluster_membership_total untyped",
            "# TYPE envoy_cluster_upstream_rq_total counter",
            "# TYPE envoy_cluster_upstream_cx_destroy untyped",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\\\"b\",le=\"0.5\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "missing: {line}");
        }
    }

    #[test]
    fn filter_is_by_dotted_name() {
        let stats = Stats::new();
        let (_a, _b) = (stats.cluster("a"), stats.cluster("b"));
        let filter = regex::Regex::new(r"^cluster\.b\.upstream_cx_total$").unwrap();
        assert_eq!(
            stats.prometheus(&Selection { used_only: false, filter: Some(filter) }),
            "# HELP envoy_cluster_upstream_cx_total Connections opened or being opened to hosts.\n\
             # TYPE envoy_cluster_upstream_cx_total counter\n\
             envoy_cluster_upstream_cx_total{envoy_cluster_name=\"b\"} 0\n"
        );
    }

    #[test]
    fn mesh_metrics_have_all_standard_labels() {
        let stats = Stats::new();
        let handles = stats.mesh().request(&request_of("reviews"));
        handles.requests.inc_by(3);
        handles.duration.observe(4.0);
        let page = stats.prometheus(&Selection::default());
        assert_eq!(
            lines(&page, "istio_requests_total"),
            [
                "istio_requests_total{reporter=\"destination\",source_workload=\"unknown\",source_canonical_service=\"unknown\",\
              source_canonical_revision=\"unknown\",source_workload_namespace=\"unknown\",source_principal=\"unknown\",\
              source_app=\"unknown\",source_version=\"unknown\",source_cluster=\"unknown\",\
              destination_workload=\"reviews-v1\",destination_canonical_service=\"reviews\",\
              destination_canonical_revision=\"v1\",destination_workload_namespace=\"default\",\
              destination_principal=\"unknown\",destination_app=\"reviews\",destination_version=\"v1\",\
              destination_cluster=\"Kubernetes\",destination_service=\"reviews.default.svc.cluster.local\",\
              destination_service_name=\"reviews\",destination_service_namespace=\"default\",request_protocol=\"http\",\
              response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",\
              connection_security_policy=\"mutual_tls\"} 3"
            ]
        );
        assert_eq!(lines(&page, "istio_request_duration_milliseconds_bucket").len(), 20);
    }

    #[test]
    fn series_beyond_the_cap_go_to_one_overflow_series() {
        let stats = Stats::new();
        stats.mesh().set_series_limit(2);
        for app in ["a", "b", "c", "d", "a"] {
            stats.mesh().request(&request_of(app)).requests.inc();
        }
        let page = stats.prometheus(&Selection::default());
        let series = lines(&page, "istio_requests_total");
        assert_eq!(series.len(), 3);
        let overflow: Vec<_> = series.iter().filter(|l| l.contains("reporter=\"overflow\"")).collect();
        assert!(overflow.len() == 1 && overflow[0].ends_with("} 2"), "{series:#?}");
        assert!(!overflow[0].contains("unknown"), "{overflow:?}");
        assert_eq!(lines(&page, "outrigger_series_overflow_total"), ["outrigger_series_overflow_total 2"]);
    }

    /// What `promtool` remarks on is units in names that Envoy and Istio gave away, and nothing else.
    #[test]
    fn promtool_finds_only_the_units_in_names_that_are_not_ours() {
        let stats = Stats::new();
        let scopes =
            (stats.cluster("up"), stats.http("in"), stats.listener("l"), stats.tcp("t"), stats.rds("r"));
        scopes.0.response(200);
        scopes.1.response(200);
        stats.mesh().request(&request_of("a")).requests.inc();
        let labels = request_of("a");
        stats.mesh().tcp(&TcpLabels {
            reporter: labels.reporter,
            source: labels.source,
            destination: labels.destination,
            destination_service: labels.destination_service,
            destination_service_name: labels.destination_service_name,
            destination_service_namespace: labels.destination_service_namespace,
            response_flags: labels.response_flags,
            connection_security_policy: labels.connection_security_policy,
        });
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool: apt install prometheus");
        let page = stats.prometheus(&Selection::default());
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let remarks = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            remarks.lines().collect::<Vec<_>>(),
            [
                "envoy_cluster_upstream_cx_connect_ms metric names should not contain abbreviated units",
                "envoy_http_downstream_cx_length_ms metric names should not contain abbreviated units",
                "envoy_listener_downstream_cx_length_ms metric names should not contain abbreviated units",
                "envoy_server_days_until_first_cert_expiring use base unit \"seconds\" instead of \"days\"",
                "istio_request_duration_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
            ]
        );
    }
}
