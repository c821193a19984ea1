//! `envoy.overload_actions.reduce_timeouts`: how long a timeout is under pressure.

use std::time::Duration;

/// What is left of a timeout when the action is saturated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinimumTimeout {
    /// `min_timeout`.
    Fixed(Duration),
    /// `min_scale`, as a share (0 to 1) of what the timeout is else.
    Share(f64),
}

/// `timer_scale_factors`; a timeout that has none stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ScaledTimers {
    /// `HTTP_DOWNSTREAM_CONNECTION_IDLE`.
    pub connection_idle: Option<MinimumTimeout>,
    /// `HTTP_DOWNSTREAM_CONNECTION_MAX`.
    pub connection_max: Option<MinimumTimeout>,
    /// `TRANSPORT_SOCKET_CONNECT`, of handshakes that begin.
    pub handshake: Option<MinimumTimeout>,
}

/// Timeouts at present.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReducedTimeouts {
    /// What is reduced.
    pub timers: ScaledTimers,
    /// How strongly, from 0 to 1.
    pub level: f64,
}

impl ReducedTimeouts {
    /// Idle connections.
    pub fn connection_idle(&self, timeout: Duration) -> Duration {
        self.reduced(self.timers.connection_idle, timeout)
    }

    /// Connections.
    pub fn connection_max(&self, timeout: Duration) -> Duration {
        self.reduced(self.timers.connection_max, timeout)
    }

    /// Handshakes.
    pub fn handshake(&self, timeout: Duration) -> Duration {
        self.reduced(self.timers.handshake, timeout)
    }

    fn reduced(&self, minimum: Option<MinimumTimeout>, timeout: Duration) -> Duration {
        let minimum = match minimum {
            None => return timeout,
            Some(MinimumTimeout::Fixed(minimum)) => minimum.min(timeout),
            Some(MinimumTimeout::Share(share)) => timeout.mul_f64(share),
        };
        minimum + (timeout - minimum).mul_f64(1.0 - self.level)
    }
}
