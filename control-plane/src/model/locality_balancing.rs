//! How endpoints are chosen by where they and their caller are.

use std::collections::BTreeMap;

use crate::model::Locality;

/// Label that says where a workload is, in the place of its Node: `REGION.ZONE.SUBZONE` (Istio's).
const LOCALITY_LABEL: &str = "istio-locality";

/// Label of a Node that is its name.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// What the place of a caller is for (`localityLbSetting`, `trafficDistribution`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalityBalancing {
    /// Nothing: endpoints are equal wherever they are (`enabled: false`).
    Off,
    /// Shares for places (`distribute`). Of several for a caller the first counts.
    Distribute(Vec<Distribution>),
    /// Nearer endpoints are used as long as enough of them are healthy.
    Failover(Failover),
}

/// Where the traffic of the callers at some place goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Where the callers are.
    pub from: LocalityPattern,
    /// Where to, and what share of 100. No two overlap.
    pub to: Vec<(LocalityPattern, u32)>,
}

/// Which endpoints are nearer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failover {
    /// Endpoints that have more of these labels in common with the caller, from the first on, are nearer (`failoverPriority`).
    pub labels: Vec<PreferredLabel>,
    /// From which region to which other one first (`failover`).
    pub regions: BTreeMap<String, String>,
}

/// A label that a near endpoint has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferredLabel {
    /// Its key.
    pub key: String,
    /// Its value; none: that of the caller.
    pub value: Option<String>,
}

/// Localities that have these parts; one that is not said may be any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityPattern {
    /// Region.
    pub region: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// Part of the zone.
    pub sub_zone: Option<String>,
}

/// Where a caller is, as far as endpoints depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its locality.
    pub locality: Locality,
    /// Those of its labels that some [`Failover`] asks for.
    pub labels: BTreeMap<String, String>,
}

/// What Istio does where nothing is said: the own zone, the own region, the rest.
pub(super) static NEAREST: LocalityBalancing =
    LocalityBalancing::Failover(Failover { labels: Vec::new(), regions: BTreeMap::new() });

impl LocalityBalancing {
    /// Kubernetes' `trafficDistribution`. `None`: it has another value.
    pub fn of_traffic_distribution(value: &str) -> Option<Self> {
        let keys: &[&str] = match value {
            "PreferClose" | "PreferSameZone" => &Locality::LABELS[..2],
            "PreferSameNode" => {
                let [region, zone, sub_zone] = Locality::LABELS;
                &[region, zone, sub_zone, HOSTNAME_LABEL]
            }
            _ => return None,
        };
        let label = |key: &&str| PreferredLabel { key: (*key).to_owned(), value: None };
        Some(Self::Failover(Failover { labels: keys.iter().map(label).collect(), ..Failover::default() }))
    }

    /// Keys of labels of the caller that it depends on, besides those of its locality.
    pub(super) fn asked_labels(&self) -> impl Iterator<Item = &str> {
        let labels = match self {
            Self::Failover(failover) => failover.labels.as_slice(),
            Self::Off | Self::Distribute(_) => &[],
        };
        let of_caller = labels.iter().filter(|label| label.value.is_none());
        of_caller.map(|label| label.key.as_str()).filter(|key| !Locality::LABELS.contains(key))
    }
}

impl Failover {
    /// Whether localities count: always, unless labels alone are said.
    pub fn is_by_locality(&self) -> bool {
        self.labels.is_empty() || !self.regions.is_empty()
    }
}

impl LocalityPattern {
    /// Whether it is one of them.
    pub fn has(&self, locality: &Locality) -> bool {
        let is = |wanted: &Option<String>, part: &String| wanted.as_ref().is_none_or(|wanted| wanted == part);
        is(&self.region, &locality.region)
            && is(&self.zone, &locality.zone)
            && is(&self.sub_zone, &locality.sub_zone)
    }

    /// Whether some locality may be one of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let may = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        may(&self.region, &other.region)
            && may(&self.zone, &other.zone)
            && may(&self.sub_zone, &other.sub_zone)
    }
}

impl Place {
    /// The value of one of its labels, or of what stands for one; empty when it has none.
    pub fn label(&self, key: &str) -> &str {
        let part = self.locality.label(key);
        part.or_else(|| self.labels.get(key).map(String::as_str)).unwrap_or_default()
    }
}

impl Locality {
    /// Labels of Nodes that say where they are.
    pub const LABELS: [&str; 3] =
        ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

    /// The part that stands for one of [`Locality::LABELS`]; `None` for any other label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let parts = [&self.region, &self.zone, &self.sub_zone];
        Self::LABELS.iter().zip(parts).find(|(label, _)| **label == key).map(|(_, part)| part.as_str())
    }

    /// What [`Locality::LABELS`] say.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Self {
        let [region, zone, sub_zone] = Self::LABELS.map(|key| labels.get(key).cloned().unwrap_or_default());
        Self { region, zone, sub_zone }
    }

    /// What a workload says of itself in the place of its Node (`istio-locality`).
    pub(super) fn of_own_label(labels: &BTreeMap<String, String>) -> Option<Self> {
        labels.get(LOCALITY_LABEL).map(|text| Self::of_parts(text.splitn(3, '.')))
    }

    /// `REGION/ZONE/SUBZONE`, of which the later ones may be left out.
    pub fn parse(text: &str) -> Self {
        Self::of_parts(text.splitn(3, '/'))
    }

    fn of_parts<'a>(mut parts: impl Iterator<Item = &'a str>) -> Self {
        let mut part = || parts.next().unwrap_or_default().to_owned();
        Self { region: part(), zone: part(), sub_zone: part() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_what_it_names() {
        let pattern = |parts: [Option<&str>; 3]| {
            let [region, zone, sub_zone] = parts.map(|part| part.map(str::to_owned));
            LocalityPattern { region, zone, sub_zone }
        };
        let place = Locality::parse("r/z/s");
        let region = pattern([Some("r"), None, None]);
        let other_zone = pattern([Some("r"), Some("y"), None]);
        assert!(pattern([None; 3]).has(&place) && region.has(&place) && !other_zone.has(&place));
        assert!(region.overlaps(&other_zone) && pattern([None; 3]).overlaps(&region));
        assert!(!pattern([Some("q"), None, None]).overlaps(&region));
    }

    #[test]
    fn a_label_stands_for_a_place() {
        let place = Place { locality: Locality::parse("r/z"), labels: [("n".into(), "1".into())].into() };
        assert_eq!(Locality::LABELS.map(|key| place.label(key)), ["r", "z", ""]);
        assert_eq!((place.label("n"), place.label("m")), ("1", ""));
        let labels = [("istio-locality".to_owned(), "a.b.c".to_owned())].into();
        assert_eq!(Locality::of_own_label(&labels), Some(Locality::parse("a/b/c")));
    }
}
