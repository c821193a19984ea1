//! The overload manager (`Bootstrap.overload_manager`): resources are measured on main, the pressure on them decides how strongly each
//! action and each point is on (`decide`, pure), and workers ask the [`Overload`] that they share with main: one relaxed load for a
//! connection or a request while there is nothing to do.

mod decide;
mod descriptors;
mod limit;
mod measure;
mod monitor;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod timers;

pub use decide::{Trigger, Triggers};
pub use descriptors::raise_limit as raise_descriptor_limit;
pub use limit::{ConnectionLimit, Place};
pub use measure::measure;
pub use monitor::cgroup::memory_limit;
pub use monitor::{CpuMode, Monitor, Paths};
pub use settings::OverloadSettings;
pub use state::{Overload, Pressed};
pub use timers::{MinimumTimeout, ReducedTimeouts, ScaledTimers};
