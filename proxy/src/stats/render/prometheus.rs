//! Prometheus' text format with Envoy's and Istio's names: scopes become `MetricFamily` values, which the `prometheus` crate
//! prints.
//!
//! A family at a time is built, printed and dropped: all families of a large mesh at once would be a hundred megabytes.
//!
//! `promtool check metrics` wants a counter to end in `_total` and nothing else to do so. Most of Envoy's counters do not and one
//! of its gauges does; dashboards need those names. So what breaks the rule is announced as `untyped`, which queries do not
//! notice. Names that carry `_ms` or `milliseconds` are left as they are: `promtool` remarks on those and there is no way round.

use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::labels::{label, request_labels, scope_labels, tcp_labels};
use super::{Selection, Visitor, dotted_name};
use crate::stats::mesh::{MeshHandles, RequestLabels, TcpHandles, TcpLabels};
use crate::stats::scope::{Family, Metric, Scope};
use crate::stats::{Counter, Histogram, Stats};

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
            let shown = scopes.iter().filter_map(|scope| {
                let metric = (family.get)(scope)?;
                let shows = self.selection.shows(metric.used(), || dotted_name(*scope, family.name));
                shows.then_some((scope, metric))
            });
            let shown: Vec<_> = shown.collect();
            let Some((_, first)) = shown.first() else { continue };
            let name = family_name(S::GROUP, family.name);
            let kind = Kind::of(&name, *first);
            let series = shown.iter().map(|(scope, metric)| series(scope_labels(**scope), *metric)).collect();
            self.print(name, family.help, kind, series);
        }
        self.responses(scopes);
    }
}

impl Page<'_> {
    /// Prints one family; nothing when it has no series.
    fn print(&mut self, name: String, help: &str, kind: Kind, series: Vec<proto::Metric>) {
        if series.is_empty() {
            return;
        }
        let announced = format!("# TYPE {name} gauge\n");
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.into());
        family.set_field_type(kind.printed_as());
        family.set_metric(series);
        // The encoder fails for a family without a name or without series only.
        let text = TextEncoder.encode_to_string(&[family]).unwrap_or_default();
        match (kind, text.split_once(&announced)) {
            (Kind::Untyped, Some((help, samples))) => {
                self.out.push_str(help);
                self.out.push_str(announced.trim_end_matches("gauge\n"));
                self.out.push_str("untyped\n");
                self.out.push_str(samples);
            }
            _ => self.out.push_str(&text),
        }
    }

    /// `_rq_xx{envoy_response_code_class}` and `_rq{envoy_response_code}`.
    fn responses<S: Scope>(&mut self, scopes: &[&S]) {
        let Some((prefix, ..)) = scopes.first().and_then(|scope| scope.responses()) else { return };
        let (mut by_class, mut by_code) = (Vec::new(), Vec::new());
        let series = |scope: &S, name: &str, value: u16, count: u64| {
            let mut labels = vec![label(name, value.to_string())];
            labels.extend(scope_labels(scope));
            sample(labels, count as f64)
        };
        for scope in scopes {
            let Some((_, classes, codes)) = scope.responses() else { continue };
            for (class, count) in classes.iter() {
                if self.selection.shows(count > 0, || dotted_name(*scope, &format!("{prefix}_{class}xx"))) {
                    by_class.push(series(scope, "envoy_response_code_class", class, count));
                }
            }
            for (code, count) in codes.map(|codes| codes.seen()).unwrap_or_default() {
                if self.selection.shows(true, || dotted_name(*scope, &format!("{prefix}_{code}"))) {
                    by_code.push(series(scope, "envoy_response_code", code, count));
                }
            }
        }
        let name = family_name(S::GROUP, &format!("{prefix}_xx"));
        self.print(name, "Responses by the class of their status code.", Kind::Untyped, by_class);
        let name = family_name(S::GROUP, prefix);
        self.print(name, "Responses by status code.", Kind::Untyped, by_code);
    }

    fn requests(&mut self, all: &[(Option<Arc<RequestLabels>>, Arc<MeshHandles>)]) {
        let all = sorted(all.iter().map(|(labels, h)| (request_labels(labels.as_deref()), h)));
        if self.selection.shows(true, || REQUESTS.into()) {
            let series = all.iter().map(|(l, h)| sample(l.clone(), h.requests.get() as f64)).collect();
            self.print(REQUESTS.into(), "Requests, by caller, callee and outcome.", Kind::Counter, series);
        }
        if self.selection.shows(true, || DURATION.into()) {
            let series = all.iter().map(|(l, h)| histogram(l.clone(), &h.duration)).collect();
            self.print(DURATION.into(), "Duration of requests, milliseconds.", Kind::Histogram, series);
        }
    }

    fn tcp(&mut self, all: &[(Option<Arc<TcpLabels>>, Arc<TcpHandles>)]) {
        let all = sorted(all.iter().map(|(labels, h)| (tcp_labels(labels.as_deref()), h)));
        for (name, help, get) in TCP_FAMILIES {
            if self.selection.shows(true, || name.into()) {
                let series = all.iter().map(|(l, h)| sample(l.clone(), get(h).get() as f64)).collect();
                self.print(name.into(), help, Kind::Counter, series);
            }
        }
    }
}

/// By the labels' values, so that two scrapes have one order.
fn sorted<H>(all: impl Iterator<Item = (Vec<LabelPair>, H)>) -> Vec<(Vec<LabelPair>, H)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|(a, _), (b, _)| a.iter().map(LabelPair::value).cmp(b.iter().map(LabelPair::value)));
    all
}

/// How a family is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Untyped,
}

impl Kind {
    fn of(name: &str, metric: Metric<'_>) -> Self {
        match (metric, name.ends_with("_total")) {
            (Metric::Counter(_), true) => Kind::Counter,
            (Metric::Gauge(_), false) => Kind::Gauge,
            (Metric::Histogram(_), _) => Kind::Histogram,
            _ => Kind::Untyped,
        }
    }

    /// The encoder panics at an untyped family. Its samples look like those of a gauge, so `print` lets it print a gauge and
    /// writes the announcement itself.
    fn printed_as(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge | Kind::Untyped => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        }
    }
}

fn series(labels: Vec<LabelPair>, metric: Metric<'_>) -> proto::Metric {
    match metric {
        Metric::Counter(c) => sample(labels, c.get() as f64),
        Metric::Gauge(g) => sample(labels, g.get() as f64),
        Metric::Histogram(h) => histogram(labels, h),
    }
}

/// A series with one value, be its family a counter or a gauge.
fn sample(labels: Vec<LabelPair>, value: f64) -> proto::Metric {
    let (mut counter, mut gauge) = (proto::Counter::default(), proto::Gauge::default());
    counter.set_value(value);
    gauge.set_value(value);
    let mut metric = proto::Metric::from_label(labels);
    metric.set_counter(counter);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: Vec<LabelPair>, histogram: &Histogram) -> proto::Metric {
    let cumulative = histogram.cumulative();
    let buckets = Histogram::bounds_ms().zip(cumulative).map(|(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut out = proto::Histogram::default();
    out.set_bucket(buckets.collect());
    out.set_sample_sum(histogram.sum_ms());
    // From the same reading as the buckets, so that they agree.
    out.set_sample_count(cumulative.last().copied().unwrap_or_default());
    let mut metric = proto::Metric::from_label(labels);
    metric.set_histogram(out);
    metric
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::stats::mesh::{HopLabels, PeerLabels, RequestProtocol};
    use crate::stats::{Reporter, SecurityPolicy};
    use crate::stream_info::ResponseFlags;

    fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
        page.lines().filter(|l| l.starts_with(start)).collect()
    }

    fn request_of(app: &str) -> RequestLabels {
        let hop = HopLabels {
            reporter: Reporter::Destination,
            source: Arc::default(),
            destination: Arc::new(PeerLabels::from_workload_metadata(&format!(
                "{app}-v1;default;{app};v1;Kubernetes"
            ))),
            destination_service: "reviews.default.svc.cluster.local".into(),
            destination_service_name: "reviews".into(),
            destination_service_namespace: "default".into(),
            connection_security_policy: SecurityPolicy::MutualTls,
        };
        RequestLabels {
            hop,
            request_protocol: RequestProtocol::Http,
            response_code: 200,
            grpc_response_status: None,
            response_flags: ResponseFlags::NONE,
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
        up.outlier_detection.counted().ejections_active.set(2);
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
        let RequestLabels { hop, response_flags, .. } = request_of("a");
        stats.mesh().tcp(&TcpLabels { hop, response_flags });
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
