//! From the pressure on resources to how strongly an action is on: pure.

use crate::stats::Resource;

/// When the pressure on one resource (0 = none, 1 = all of it is used) turns an action on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trigger {
    /// `threshold`: saturated from this pressure on, else off.
    Threshold(f64),
    /// `scaled`: off up to `from`, saturated from `to` on, the share of the way between them.
    Scaled {
        /// `scaling_threshold`.
        from: f64,
        /// `saturation_threshold`, above `from`.
        to: f64,
    },
}

impl Trigger {
    /// How strongly an action is on under this pressure: 0 = off, 1 = saturated.
    pub fn level(self, pressure: f64) -> f64 {
        match self {
            Trigger::Threshold(value) if pressure >= value => 1.0,
            Trigger::Threshold(_) => 0.0,
            Trigger::Scaled { from, .. } if pressure <= from => 0.0,
            Trigger::Scaled { to, .. } if pressure >= to => 1.0,
            Trigger::Scaled { from, to } => (pressure - from) / (to - from),
        }
    }
}

/// All triggers of an action, at most one a resource: the strongest counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Triggers(Vec<(Resource, Trigger, f64)>);

impl Triggers {
    /// Triggers that have heard of no pressure yet.
    pub fn new(triggers: impl IntoIterator<Item = (Resource, Trigger)>) -> Self {
        Self(triggers.into_iter().map(|(resource, trigger)| (resource, trigger, 0.0)).collect())
    }

    /// Takes a measurement. A resource that could not be measured keeps what it had.
    pub fn hear(&mut self, resource: Resource, pressure: f64) {
        for (of, trigger, level) in &mut self.0 {
            if *of == resource {
                *level = trigger.level(pressure);
            }
        }
    }

    /// The level of the strongest.
    pub fn level(&self) -> f64 {
        self.0.iter().map(|(_, _, level)| *level).fold(0.0, f64::max)
    }

    /// Whose pressure it is: the resource of the strongest.
    pub fn strongest(&self) -> Option<Resource> {
        self.0.iter().max_by(|a, b| a.2.total_cmp(&b.2)).map(|(resource, ..)| *resource)
    }
}
