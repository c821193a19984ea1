//! The file of ejections and returns: `cluster_manager.outlier_detection.event_log_path` of the bootstrap, one JSON object a line
//! (`envoy.data.cluster.v3.OutlierDetectionEvent`).

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::eject::Why;
use super::monitor::History;
use crate::cluster::Host;

/// An open event log.
pub struct EventLog(Box<dyn Fn(Vec<u8>) + Send + Sync>);

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventLog")
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    detector: &'static str,
    timestamp: String,
    /// Seconds since it came back (of an ejection) or went out (of a return). A 64-bit number is a string in protobuf's JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    secs_since_last_action: Option<String>,
    cluster_name: &'a str,
    upstream_url: String,
    action: &'static str,
    num_ejections: u32,
    enforced: bool,
    #[serde(flatten)]
    samples: Option<Samples>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the field names of the message")]
enum Samples {
    EjectConsecutiveEvent {},
    EjectSuccessRateEvent {
        host_success_rate: u32,
        cluster_average_success_rate: u32,
        cluster_success_rate_ejection_threshold: u32,
    },
    EjectFailurePercentageEvent {
        host_success_rate: u32,
    },
}

impl EventLog {
    /// Hands each line to `write`.
    pub fn new(write: impl Fn(Vec<u8>) + Send + Sync + 'static) -> Self {
        Self(Box::new(write))
    }

    pub(super) fn ejected(&self, cluster: &str, host: &Host, why: &Why, enforced: bool, history: &History) {
        let detector = why.detector().name();
        self.write(
            cluster,
            host,
            detector,
            "EJECT",
            enforced,
            Some(Samples::of(why)),
            history,
            history.last_return,
        );
    }

    pub(super) fn returned(&self, cluster: &str, host: &Host, history: &History) {
        // Envoy leaves the type at its default.
        self.write(cluster, host, "CONSECUTIVE_5XX", "UNEJECT", false, None, history, history.last_ejection);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of the message")]
    fn write(
        &self,
        cluster: &str,
        host: &Host,
        detector: &'static str,
        action: &'static str,
        enforced: bool,
        samples: Option<Samples>,
        history: &History,
        last: Option<Instant>,
    ) {
        let line = Line {
            detector,
            cluster_name: cluster,
            upstream_url: host.address.to_string(),
            action,
            num_ejections: history.ejections,
            enforced,
            samples,
            timestamp: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            secs_since_last_action: last.map(|last| last.elapsed().as_secs().to_string()),
        };
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            (self.0)(text);
        }
    }
}

impl Samples {
    fn of(why: &Why) -> Self {
        match *why {
            Why::SuccessRate { rate, average, threshold, .. } => Self::EjectSuccessRateEvent {
                host_success_rate: rate as u32,
                cluster_average_success_rate: average as u32,
                cluster_success_rate_ejection_threshold: threshold as u32,
            },
            Why::FailurePercentage { rate, .. } => {
                Self::EjectFailurePercentageEvent { host_success_rate: rate as u32 }
            }
            _ => Self::EjectConsecutiveEvent {},
        }
    }
}
