//! Reads the sidecars' Prometheus pages.

use std::net::{Ipv4Addr, SocketAddr};

/// A scrape of one sidecar's port 15090.
#[derive(Debug)]
pub(super) struct Scrape(String);

impl Scrape {
    pub(super) async fn of(pod: Ipv4Addr) -> anyhow::Result<Self> {
        Ok(Self(super::http::get(SocketAddr::from((pod, 15090)), "/stats/prometheus").await?))
    }

    /// Lines of a metric whose labels contain all of these strings.
    pub(super) fn lines<'a>(&'a self, metric: &'a str, labels: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter(move |line| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|l| line.contains(l))
        })
    }

    /// Their sum.
    pub(super) fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        self.lines(metric, labels).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The value of a label of the first such line.
    pub(super) fn label(&self, metric: &str, labels: &[&str], name: &str) -> Option<String> {
        let line = self.lines(metric, labels).next()?;
        let (_, after) = line.split_once(&format!("{name}=\""))?;
        after.split('"').next().map(str::to_owned)
    }
}
