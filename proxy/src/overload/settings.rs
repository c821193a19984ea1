//! `envoy.config.overload.v3.OverloadManager`, compiled.

use std::time::Duration;

use super::{Monitor, ScaledTimers, Triggers};
use crate::stats::{LoadShedPoint, OverloadAction, Resource};

/// What is measured, and what follows from it.
#[derive(Debug)]
pub struct OverloadSettings {
    /// `refresh_interval`, default 1 s.
    pub refresh_interval: Duration,
    /// `resource_monitors`.
    pub monitors: Vec<(Resource, Monitor)>,
    /// `actions`.
    pub actions: Vec<(OverloadAction, Triggers)>,
    /// `loadshed_points`.
    pub points: Vec<(LoadShedPoint, Triggers)>,
    /// `typed_config` of the action `reduce_timeouts`.
    pub timers: ScaledTimers,
    /// `max_active_downstream_connections` of the monitor of connections, or the runtime key
    /// `overload.global_downstream_max_connections`.
    pub max_connections: Option<u64>,
}

impl OverloadSettings {
    /// Envoy's default `refresh_interval`.
    pub const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self {
            refresh_interval: Self::REFRESH_INTERVAL,
            monitors: Vec::new(),
            actions: Vec::new(),
            points: Vec::new(),
            timers: ScaledTimers::default(),
            max_connections: None,
        }
    }
}
