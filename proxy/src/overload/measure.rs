//! The measuring, from time to time, on main.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::state::percent;
use super::{Monitor, Overload, OverloadSettings, Triggers};
use crate::stats::Resource;

/// Measures until it is dropped. Nothing is measured while nothing is configured.
pub async fn measure(settings: OverloadSettings, overload: Arc<Overload>) {
    let every = settings.refresh_interval;
    let mut measuring = Measuring::new(settings, overload);
    if measuring.monitors.is_empty() {
        return;
    }
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Instant> = None;
    loop {
        let now = tick.tick().await;
        if let Some(last) = last {
            let delay = now - last;
            measuring.overload.stats().refresh_interval_delay().observe_duration(delay);
            // What main had no time for.
            let missed = (delay.as_secs_f64() / every.as_secs_f64()) as u64;
            measuring.skip(missed.saturating_sub(1));
        }
        last = Some(now);
        measuring.refresh();
    }
}

pub(super) struct Measuring {
    monitors: Vec<(Resource, Monitor)>,
    /// Actions, then points.
    effects: Vec<(Effect, Triggers)>,
    overload: Arc<Overload>,
}

#[derive(Debug, Clone, Copy)]
enum Effect {
    Action(crate::stats::OverloadAction),
    Point(crate::stats::LoadShedPoint),
}

impl Measuring {
    pub(super) fn new(settings: OverloadSettings, overload: Arc<Overload>) -> Self {
        let stats = overload.stats();
        // Shown from now on, at zero.
        for (resource, _) in &settings.monitors {
            stats.resource(*resource).pressure.set(0);
        }
        for (action, _) in &settings.actions {
            stats.action(*action).active.set(0);
            stats.action(*action).scale_percent.set(0);
        }
        for (point, _) in &settings.points {
            stats.point(*point).scale_percent.set(0);
        }
        let actions =
            settings.actions.into_iter().map(|(action, triggers)| (Effect::Action(action), triggers));
        let points = settings.points.into_iter().map(|(point, triggers)| (Effect::Point(point), triggers));
        Self { monitors: settings.monitors, effects: actions.chain(points).collect(), overload }
    }

    /// Measures everything once.
    pub(super) fn refresh(&mut self) {
        for (resource, monitor) in &mut self.monitors {
            let stats = self.overload.stats().resource(*resource);
            match monitor.pressure(self.overload.limit().map(|limit| &**limit)) {
                Ok(pressure) => {
                    stats.pressure.set((pressure * 100.0) as i64);
                    self.effects.iter_mut().for_each(|(_, triggers)| triggers.hear(*resource, pressure));
                }
                Err(error) => {
                    stats.failed_updates.inc();
                    tracing::debug!(target: "overload", "{} cannot be measured: {error}", resource.name());
                }
            }
        }
        for (effect, triggers) in &self.effects {
            effect.apply(&self.overload, triggers);
        }
    }

    fn skip(&self, times: u64) {
        for (resource, _) in &self.monitors {
            self.overload.stats().resource(*resource).skipped_updates.inc_by(times);
        }
    }
}

impl Effect {
    fn apply(self, overload: &Overload, triggers: &Triggers) {
        let level = triggers.level();
        let stats = overload.stats();
        let (name, gauge) = match self {
            Effect::Action(action) => {
                overload.set_action(action, level);
                stats.action(action).active.set(i64::from(level >= 1.0));
                (action.name(), &stats.action(action).scale_percent)
            }
            Effect::Point(point) => {
                overload.set_point(point, level);
                (point.name(), &stats.point(point).scale_percent)
            }
        };
        let (before, now) = (gauge.get(), i64::from(percent(level)));
        gauge.set(now);
        let because = triggers.strongest().map_or("", Resource::name);
        match (before, now) {
            (100, 100) | (0, 0) => {}
            (_, 100) => tracing::warn!(target: "overload", "{name} is saturated, because of {because}"),
            (0, now) => tracing::warn!(target: "overload", "{name} begins ({now} %), because of {because}"),
            (_, 0) => tracing::info!(target: "overload", "{name} is over"),
            _ => {}
        }
    }
}
