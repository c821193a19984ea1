//! `overload.*`: what the overload manager measures and does. Envoy has the names of monitors, actions and points in the metrics' names,
//! so each that there is has its own; only those that the bootstrap configures are shown.

use std::sync::{Arc, OnceLock};

use super::scope::{Family, Metric, Scope};
use super::{Counter, Gauge, Histogram};

/// Declares the kinds of one list of the overload manager.
macro_rules! kinds {
    ($(#[$doc:meta])* $kind:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $kind {
            /// All that there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in Envoy's configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The one of this name.
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }
    };
}

/// Declares what there is of each kind, and the families of its metrics: three of each resource, two of each action and each point.
macro_rules! overload {
    (
        resources { $($(#[$resource_doc:meta])* $resource:ident = $resource_name:literal,)* }
        actions { $($(#[$action_doc:meta])* $action:ident = $action_name:literal,)* }
        points { $($(#[$point_doc:meta])* $point:ident = $point_name:literal,)* }
    ) => {
        kinds! {
            /// A resource that is measured (`resource_monitors`).
            Resource { $($(#[$resource_doc])* $resource = $resource_name,)* }
        }
        kinds! {
            /// What is done under pressure (`actions`).
            OverloadAction { $($(#[$action_doc])* $action = $action_name,)* }
        }
        kinds! {
            /// Where load is shed (`loadshed_points`).
            LoadShedPoint { $($(#[$point_doc])* $point = $point_name,)* }
        }

        const FAMILIES: &[Family<OverloadStats>] = &[
            Family {
                name: "refresh_interval_delay",
                help: "Milliseconds from one measurement of the resources to the next.",
                get: |stats| stats.delay.get().map(Metric::Histogram),
            },
            $(
                Family {
                    name: concat!($resource_name, ".pressure"),
                    help: "Pressure on the resource, percent.",
                    get: |stats| Some(Metric::Gauge(&stats.resources[Resource::$resource as usize].get()?.pressure)),
                },
                Family {
                    name: concat!($resource_name, ".failed_updates"),
                    help: "Measurements of the resource that failed.",
                    get: |stats| {
                        Some(Metric::Counter(&stats.resources[Resource::$resource as usize].get()?.failed_updates))
                    },
                },
                Family {
                    name: concat!($resource_name, ".skipped_updates"),
                    help: "Measurements of the resource that did not take place because the process was busy.",
                    get: |stats| {
                        Some(Metric::Counter(&stats.resources[Resource::$resource as usize].get()?.skipped_updates))
                    },
                },
            )*
            $(
                Family {
                    name: concat!($action_name, ".active"),
                    help: "1 while the action is saturated.",
                    get: |stats| Some(Metric::Gauge(&stats.actions[OverloadAction::$action as usize].get()?.active)),
                },
                Family {
                    name: concat!($action_name, ".scale_percent"),
                    help: "How far the action is from idle (0) to saturated (100), percent.",
                    get: |stats| {
                        Some(Metric::Gauge(&stats.actions[OverloadAction::$action as usize].get()?.scale_percent))
                    },
                },
            )*
            $(
                Family {
                    name: concat!($point_name, ".scale_percent"),
                    help: "Which share of the load is shed at the point, percent.",
                    get: |stats| {
                        Some(Metric::Gauge(&stats.points[LoadShedPoint::$point as usize].get()?.scale_percent))
                    },
                },
                Family {
                    name: concat!($point_name, ".shed_load_count"),
                    help: "How often load was shed at the point.",
                    get: |stats| {
                        Some(Metric::Counter(&stats.points[LoadShedPoint::$point as usize].get()?.shed_load_count))
                    },
                },
            )*
        ];
    };
}

overload! {
    resources {
        /// Memory of the process against a fixed size.
        FixedHeap = "envoy.resource_monitors.fixed_heap",
        /// Memory of the control group against its limit.
        CgroupMemory = "envoy.resource_monitors.cgroup_memory",
        /// Downstream connections against a number.
        DownstreamConnections = "envoy.resource_monitors.global_downstream_max_connections",
        /// CPU time of the machine or of the control group.
        CpuUtilization = "envoy.resource_monitors.cpu_utilization",
        /// A number in a file, for tests.
        Injected = "envoy.resource_monitors.injected_resource",
        /// Open file descriptors against `RLIMIT_NOFILE`. Our own.
        FileDescriptors = "outrigger.resource_monitors.file_descriptors",
    }
    actions {
        /// Requests are answered with 503.
        StopAcceptingRequests = "envoy.overload_actions.stop_accepting_requests",
        /// Connections end with their next response.
        DisableHttpKeepalive = "envoy.overload_actions.disable_http_keepalive",
        /// Connections stay in the kernel's queue.
        StopAcceptingConnections = "envoy.overload_actions.stop_accepting_connections",
        /// Connections are closed as soon as they are there.
        RejectIncomingConnections = "envoy.overload_actions.reject_incoming_connections",
        /// Memory that is free goes back to the system.
        ShrinkHeap = "envoy.overload_actions.shrink_heap",
        /// Timeouts become shorter.
        ReduceTimeouts = "envoy.overload_actions.reduce_timeouts",
    }
    points {
        /// A new connection is closed.
        TcpListenerAccept = "envoy.load_shed_points.tcp_listener_accept",
        /// A connection with its first bytes is closed.
        CreatingCodec = "envoy.load_shed_points.hcm_ondata_creating_codec",
        /// A request is answered with 503.
        DecodeHeaders = "envoy.load_shed_points.http_connection_manager_decode_headers",
        /// A connection takes no further requests.
        Http2GoAway = "envoy.load_shed_points.http2_server_go_away_on_dispatch",
    }
}

/// Of one resource.
#[derive(Debug, Default)]
pub struct ResourceStats {
    /// Percent.
    pub pressure: Gauge,
    /// Measurements that failed.
    pub failed_updates: Counter,
    /// Measurements that did not take place because main was busy.
    pub skipped_updates: Counter,
}

/// Of one action.
#[derive(Debug, Default)]
pub struct ActionStats {
    /// 1 = saturated.
    pub active: Gauge,
    /// 100 = saturated.
    pub scale_percent: Gauge,
}

/// Of one point.
#[derive(Debug, Default)]
pub struct PointStats {
    /// 100 = saturated.
    pub scale_percent: Gauge,
    /// How often load was shed there.
    pub shed_load_count: Counter,
}

const RESOURCES: usize = Resource::ALL.len();
const ACTIONS: usize = OverloadAction::ALL.len();
const POINTS: usize = LoadShedPoint::ALL.len();

/// Statistics of the overload manager.
#[derive(Debug, Default)]
pub struct OverloadStats {
    labels: Box<[Arc<str>]>,
    resources: [OnceLock<ResourceStats>; RESOURCES],
    actions: [OnceLock<ActionStats>; ACTIONS],
    points: [OnceLock<PointStats>; POINTS],
    delay: OnceLock<Histogram>,
}

impl OverloadStats {
    /// Of one resource; it is shown from now on.
    pub fn resource(&self, resource: Resource) -> &ResourceStats {
        self.resources[resource as usize].get_or_init(ResourceStats::default)
    }

    /// Of one action; it is shown from now on.
    pub fn action(&self, action: OverloadAction) -> &ActionStats {
        self.actions[action as usize].get_or_init(ActionStats::default)
    }

    /// Of one point; it is shown from now on.
    pub fn point(&self, point: LoadShedPoint) -> &PointStats {
        self.points[point as usize].get_or_init(PointStats::default)
    }

    /// Milliseconds from one measurement to the next; shown from now on.
    pub fn refresh_interval_delay(&self) -> &Histogram {
        self.delay.get_or_init(Histogram::default)
    }
}

impl Scope for OverloadStats {
    const GROUP: &'static str = "overload";
    const LABELS: &'static [&'static str] = &[];
    const FAMILIES: &'static [Family<Self>] = FAMILIES;

    fn new(labels: Box<[Arc<str>]>) -> Self {
        Self { labels, ..Self::default() }
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Selection, Stats};

    #[test]
    fn every_kind_has_families_under_its_name() {
        let stats = Stats::new();
        assert!(!stats.text(&Selection::default()).contains("overload."), "nothing is configured");
        let overload = stats.overload();
        Resource::ALL.iter().for_each(|kind| overload.resource(*kind).pressure.set(7));
        OverloadAction::ALL.iter().for_each(|kind| overload.action(*kind).scale_percent.set(8));
        LoadShedPoint::ALL.iter().for_each(|kind| overload.point(*kind).shed_load_count.inc());
        let page = stats.text(&Selection::default());
        let has = |line: String| assert!(page.contains(&line), "{line} in {page}");
        Resource::ALL.iter().for_each(|kind| has(format!("overload.{}.pressure: 7\n", kind.name())));
        OverloadAction::ALL
            .iter()
            .for_each(|kind| has(format!("overload.{}.scale_percent: 8\n", kind.name())));
        LoadShedPoint::ALL
            .iter()
            .for_each(|kind| has(format!("overload.{}.shed_load_count: 1\n", kind.name())));
        let prometheus = stats.prometheus(&Selection::default());
        assert!(
            prometheus.contains("\nenvoy_overload_envoy_resource_monitors_fixed_heap_pressure 7\n"),
            "{prometheus}"
        );
    }
}
