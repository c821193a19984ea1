//! Active health checks: each host of a cluster is asked again and again whether it is well, and takes requests only while it says so.
//!
//! `settings`: what a cluster asks for. `checker`: which hosts are checked, and that all of them were before the cluster serves.
//! `session`: one host, check after check. `decide`: what a check's outcome means by the thresholds; pure. `pace`: when the next one is
//! due; pure. `probe`: one check, by `http`, `grpc` or `tcp` over a `connection` of its own. `payload`: bytes that are sent and expected.
//! `event_log`: the file of events.
//!
//! Runs on main. What is found is written to the host's [`ActiveHealth`](crate::cluster::ActiveHealth), where workers read it. A room
//! beside `cluster`, because a check speaks HTTP, and clusters know nothing of that.

mod checker;
mod connection;
mod decide;
mod event_log;
mod grpc;
mod http;
mod pace;
mod payload;
mod probe;
mod session;
mod settings;
mod tcp;

pub use checker::{Checker, Start, Starts, channel};
pub use event_log::EventLog;
pub use payload::Payload;
pub use session::run;
pub use settings::{GrpcCheck, HealthCheck, HttpCheck, Intervals, Kind, TcpCheck, Thresholds, Version};
