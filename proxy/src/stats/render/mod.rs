//! How statistics are shown: Prometheus text, Envoy's dotted text, JSON. Runs on main.

/// Which statistics are shown: `?usedonly` and `?filter=`.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only what was ever touched.
    pub used_only: bool,
    /// Only names that match.
    pub filter: Option<regex::Regex>,
}
