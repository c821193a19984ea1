//! What workers ask: how strongly each action and each point is on. Main writes, workers read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use super::{ConnectionLimit, OverloadSettings, ReducedTimeouts, ScaledTimers};
use crate::stats::{LoadShedPoint, OverloadAction, OverloadStats, Resource, Stats};

const ACTIONS: usize = OverloadAction::ALL.len();
const POINTS: usize = LoadShedPoint::ALL.len();

/// The level of something that is saturated.
const SATURATED: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub struct Overload {
    /// A bit for each action and, behind these, for each point that is not off.
    pressed: AtomicU32,
    /// How strongly each is on, as a share of [`SATURATED`].
    levels: [AtomicU32; ACTIONS + POINTS],
    /// Whether connections are accepted; `None`: nothing here ever stops that.
    accepts: Option<watch::Sender<bool>>,
    timers: ScaledTimers,
    limit: Option<Arc<ConnectionLimit>>,
    /// The limit is that of a monitor, which counts what it refuses.
    monitors_limit: bool,
    stats: Arc<Stats>,
}

/// Something is on.
#[derive(Debug, Clone, Copy)]
pub struct Pressed<'a> {
    overload: &'a Overload,
    which: u32,
}

impl Overload {
    /// With everything off.
    pub fn new(settings: &OverloadSettings, stats: Arc<Stats>) -> Self {
        let stops =
            settings.actions.iter().any(|(action, _)| *action == OverloadAction::StopAcceptingConnections);
        Self {
            pressed: AtomicU32::new(0),
            levels: Default::default(),
            accepts: stops.then(|| watch::Sender::new(true)),
            timers: settings.timers,
            limit: settings.max_connections.map(ConnectionLimit::new),
            monitors_limit: settings.monitors.iter().any(|(of, _)| *of == Resource::DownstreamConnections),
            stats,
        }
    }

    /// What is on, if anything is.
    pub fn pressed(&self) -> Option<Pressed<'_>> {
        let which = self.pressed.load(Ordering::Relaxed);
        (which != 0).then_some(Pressed { overload: self, which })
    }

    /// The limit of downstream connections, if there is one.
    pub fn limit(&self) -> Option<&Arc<ConnectionLimit>> {
        self.limit.as_ref()
    }

    /// There was no place for a connection. To Envoy that is a failure of the monitor.
    pub fn count_refused(&self) {
        if self.monitors_limit {
            self.stats().resource(Resource::DownstreamConnections).failed_updates.inc();
        }
    }

    /// Whether connections are accepted, for a worker that has to stop when they are not; `None`: they always are.
    pub fn accepts(&self) -> Option<watch::Receiver<bool>> {
        self.accepts.as_ref().map(watch::Sender::subscribe)
    }

    /// Timeouts at present.
    pub fn timeouts(&self) -> ReducedTimeouts {
        let level = self.levels[OverloadAction::ReduceTimeouts as usize].load(Ordering::Relaxed);
        ReducedTimeouts { timers: self.timers, level: f64::from(level) / f64::from(SATURATED) }
    }

    /// Actions and points that are on, with percent, as people are told.
    pub fn on(&self) -> Vec<(&'static str, u32)> {
        let actions = OverloadAction::ALL.iter().map(|action| action.name());
        let names = actions.chain(LoadShedPoint::ALL.iter().map(|point| point.name()));
        let levels = self.levels.iter().map(|level| level.load(Ordering::Relaxed));
        let on = names.zip(levels).filter(|(_, level)| *level > 0);
        on.map(|(name, level)| (name, percent(f64::from(level) / f64::from(SATURATED)))).collect()
    }

    /// How strongly an action is on, from 0 to 1.
    pub(super) fn set_action(&self, action: OverloadAction, level: f64) {
        self.set(action as usize, level);
        if let (OverloadAction::StopAcceptingConnections, Some(accepts)) = (action, &self.accepts) {
            accepts.send_if_modified(|accepts| {
                let before = std::mem::replace(accepts, level < 1.0);
                before != *accepts
            });
        }
    }

    /// How strongly a point is on, from 0 to 1.
    pub(super) fn set_point(&self, point: LoadShedPoint, level: f64) {
        self.set(ACTIONS + point as usize, level);
    }

    fn set(&self, index: usize, level: f64) {
        // Between off and saturated it is neither, however little is missing.
        let level = match level {
            level if level <= 0.0 => 0,
            level if level >= 1.0 => SATURATED,
            level => ((level * f64::from(SATURATED)) as u32).clamp(1, SATURATED - 1),
        };
        self.levels[index].store(level, Ordering::Relaxed);
        match level {
            0 => self.pressed.fetch_and(!(1 << index), Ordering::Relaxed),
            _ => self.pressed.fetch_or(1 << index, Ordering::Relaxed),
        };
    }

    pub(super) fn stats(&self) -> &OverloadStats {
        self.stats.overload()
    }
}

/// As statistics have it: 100 is saturated and nothing else.
pub(super) fn percent(level: f64) -> u32 {
    (level * 100.0) as u32
}

impl Pressed<'_> {
    /// Whether the action is to be done to this one: always when it is saturated, else as often as it is strong.
    pub fn does(self, action: OverloadAction) -> bool {
        self.draws(action as usize)
    }

    /// Whether load is to be shed at this point, which is counted.
    pub fn sheds(self, point: LoadShedPoint) -> bool {
        let sheds = self.draws(ACTIONS + point as usize);
        if sheds {
            self.overload.stats().point(point).shed_load_count.inc();
        }
        sheds
    }

    fn draws(self, index: usize) -> bool {
        if self.which & (1 << index) == 0 {
            return false;
        }
        let level = self.overload.levels[index].load(Ordering::Relaxed);
        level == SATURATED || fastrand::u32(..) < level
    }
}
