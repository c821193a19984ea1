//! Envoy's own way to show statistics: dotted names, as text and as JSON.

use std::fmt::Write as _;

use prometheus::proto::LabelPair;
use serde_json::{Value, json};

use super::labels::{request_labels, tcp_labels};
use super::prometheus::{REQUESTS, TCP_FAMILIES};
use super::{Selection, Visitor, dotted_name};
use crate::stats::Stats;
use crate::stats::scope::{Family, Metric, Scope};

/// Quantiles that Envoy shows, percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

impl Stats {
    /// `/stats`: `cluster.up.upstream_rq_total: 5`, by name, then the histograms. There is no flush interval here, so a
    /// histogram's interval values are `nan`.
    pub fn text(&self, selection: &Selection) -> String {
        let readings = self.read(selection);
        let mut out = String::with_capacity(readings.numbers.len() * 64);
        for (name, value) in &readings.numbers {
            let _ = writeln!(out, "{name}: {value}");
        }
        for (name, quantiles) in &readings.histograms {
            let _ = write!(out, "{name}: ");
            match quantiles {
                None => out.push_str("No recorded values"),
                Some(values) => {
                    for (i, (q, value)) in QUANTILES.iter().zip(values).enumerate() {
                        let space = if i == 0 { "" } else { " " };
                        // Four digits are more than a bucket knows.
                        let value = (value * 1e4).round() / 1e4;
                        let _ = write!(out, "{space}P{q}(nan,{value})");
                    }
                }
            }
            out.push('\n');
        }
        out
    }

    /// `/stats?format=json`, in Envoy's shape.
    pub fn json(&self, selection: &Selection) -> Value {
        let readings = self.read(selection);
        let mut stats: Vec<Value> =
            readings.numbers.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let quantiles = |values: Option<[f64; 10]>| -> Vec<Value> {
            (0..QUANTILES.len())
                .map(|i| json!({"interval": null, "cumulative": values.map(|v| v[i])}))
                .collect()
        };
        let histograms: Vec<Value> = readings
            .histograms
            .into_iter()
            .map(|(name, values)| json!({"name": name, "values": quantiles(values)}))
            .collect();
        if !histograms.is_empty() {
            stats.push(
                json!({"histograms": {"supported_quantiles": QUANTILES, "computed_quantiles": histograms}}),
            );
        }
        json!({ "stats": stats })
    }

    fn read<'a>(&'a self, selection: &'a Selection) -> Readings<'a> {
        let mut readings = Readings { selection, numbers: Vec::new(), histograms: Vec::new(), stats: self };
        self.visit_scopes(&mut readings);
        readings.mesh();
        readings.numbers.sort_by(|a, b| a.0.cmp(&b.0));
        readings.histograms.sort_by(|a, b| a.0.cmp(&b.0));
        readings
    }
}

struct Readings<'a> {
    stats: &'a Stats,
    selection: &'a Selection,
    numbers: Vec<(String, i128)>,
    histograms: Vec<(String, Option<[f64; 10]>)>,
}

impl Visitor for Readings<'_> {
    fn visit<S: Scope>(&mut self, scopes: &[&S], families: &'static [Family<S>]) {
        for scope in scopes {
            for family in families {
                let Some(metric) = (family.get)(scope) else { continue };
                let name = dotted_name(*scope, family.name);
                if !self.selection.shows(metric.used(), || name.clone()) {
                    continue;
                }
                match metric {
                    Metric::Counter(c) => self.numbers.push((name, c.get().into())),
                    Metric::Gauge(g) => self.numbers.push((name, g.get().into())),
                    Metric::Histogram(h) => {
                        let values = (h.count() > 0)
                            .then(|| QUANTILES.map(|q| h.quantile_ms(q / 100.0).unwrap_or_default()));
                        self.histograms.push((name, values));
                    }
                }
            }
            let Some((prefix, classes, codes)) = scope.responses() else { continue };
            for (class, count) in classes.iter() {
                self.number(count > 0, dotted_name(*scope, &format!("{prefix}_{class}xx")), count);
            }
            for (code, count) in codes.map(|codes| codes.seen()).unwrap_or_default() {
                self.number(true, dotted_name(*scope, &format!("{prefix}_{code}")), count);
            }
        }
    }
}

impl Readings<'_> {
    fn number(&mut self, used: bool, name: String, value: u64) {
        if self.selection.shows(used, || name.clone()) {
            self.numbers.push((name, value.into()));
        }
    }

    /// Mesh metrics have no dotted name; they are shown as Prometheus does.
    fn mesh(&mut self) {
        for (labels, handles) in self.stats.mesh().requests.all() {
            let name = format!("{REQUESTS}{{{}}}", joined(&request_labels(labels.as_deref())));
            self.number(true, name, handles.requests.get());
        }
        for (labels, handles) in self.stats.mesh().tcp.all() {
            let labels = joined(&tcp_labels(labels.as_deref()));
            for (family, _, get) in TCP_FAMILIES {
                self.number(true, format!("{family}{{{labels}}}"), get(&handles).get());
            }
        }
    }
}

/// `a="b",c="d"`.
fn joined(labels: &[LabelPair]) -> String {
    labels.iter().map(|pair| format!("{}={:?}", pair.name(), pair.value())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn text_in_envoys_shape() {
        let stats = Stats::new();
        let up = stats.cluster("up");
        up.upstream_rq_total.inc_by(5);
        up.upstream_cx_active.set(2);
        up.upstream_rq_time.observe(7.0);
        up.response(204);
        let filter = regex::Regex::new("^cluster").unwrap();
        assert_eq!(
            stats.text(&Selection { used_only: true, filter: Some(filter) }),
            "cluster.up.upstream_cx_active: 2\n\
             cluster.up.upstream_rq_204: 1\n\
             cluster.up.upstream_rq_2xx: 1\n\
             cluster.up.upstream_rq_completed: 1\n\
             cluster.up.upstream_rq_total: 5\n\
             cluster.up.upstream_rq_time: P0(nan,5) P25(nan,6.25) P50(nan,7.5) P75(nan,8.75) P90(nan,9.5) P95(nan,9.75) \
             P99(nan,9.95) P99.5(nan,9.975) P99.9(nan,9.995) P100(nan,10)\n"
        );
        let filter = regex::Regex::new(r"outlier_detection\.ejections_active|connect_ms").unwrap();
        assert_eq!(
            stats.text(&Selection { used_only: false, filter: Some(filter) }),
            "cluster.up.outlier_detection.ejections_active: 0\n\
             cluster.up.upstream_cx_connect_ms: No recorded values\n"
        );
    }

    #[test]
    fn json_in_envoys_shape() {
        let stats = Stats::new();
        let tcp = stats.tcp("t");
        tcp.idle_timeout.inc();
        assert_eq!(
            stats.json(&Selection { used_only: true, filter: Some(regex::Regex::new("^tcp").unwrap()) }),
            json!({"stats": [{"name": "tcp.t.idle_timeout", "value": 1}]})
        );
        let listener = stats.listener("[::1]:80");
        listener.downstream_cx_length_ms.observe(0.2);
        let json =
            stats.json(&Selection { used_only: true, filter: Some(regex::Regex::new("length").unwrap()) });
        let histograms = &json["stats"][0]["histograms"];
        assert_eq!(histograms["computed_quantiles"][0]["name"], "listener.[__1]_80.downstream_cx_length_ms");
        assert_eq!(
            histograms["computed_quantiles"][0]["values"][9],
            json!({"interval": null, "cumulative": 0.5})
        );
        assert_eq!(histograms["supported_quantiles"][7], 99.5);
    }
}
