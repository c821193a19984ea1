//! The overload manager of a sidecar: late enough that it changes nothing where nothing would break, early enough that the kernel does not
//! end the process, or a request finds no descriptor for its upstream.

use outrigger_xds_api::resource;
use outrigger_xds_api::wire::envoy::config::overload::v3 as wire;
use outrigger_xds_api::wire::extensions::resource_monitors::fixed_heap;
use outrigger_xds_api::wire::protobuf;

use crate::stats::{OverloadAction, Resource};

/// Idle connections of clients are kept for no less than this.
const MINIMUM_IDLE_S: i64 = 5;

/// Writes it. `memory_limit`: bytes that the control group may use, if that is limited.
pub(super) fn overload_manager(memory_limit: Option<u64>) -> wire::OverloadManager {
    let heap = memory_limit.map(|_| Resource::FixedHeap);
    let descriptors = Resource::FileDescriptors;
    let all = || heap.into_iter().chain([descriptors]);
    // Memory that nobody uses and connections that nobody uses go first, then a growing share of the requests is refused; connections
    // wait in the kernel's queue while the rest of the descriptors is for upstreams.
    let mut actions = vec![
        wire::OverloadAction {
            typed_config: Some(resource::pack(&shorter_idle_timeout())),
            ..action(OverloadAction::ReduceTimeouts, all().map(|of| scaled(of, 0.80, 0.95)).collect())
        },
        action(OverloadAction::StopAcceptingConnections, vec![threshold(descriptors, 0.95)]),
    ];
    if let Some(heap) = heap {
        actions.push(action(OverloadAction::StopAcceptingRequests, vec![scaled(heap, 0.90, 0.98)]));
    }
    let heap_monitor = memory_limit.map(|max_heap_size_bytes| {
        let config =
            fixed_heap::v3::FixedHeapConfig { max_heap_size_bytes, max_heap_size_bytes_runtime: None };
        let config = wire::resource_monitor::ConfigType::TypedConfig(resource::pack(&config));
        wire::ResourceMonitor { name: Resource::FixedHeap.name().to_owned(), config_type: Some(config) }
    });
    let descriptor_monitor = wire::ResourceMonitor { name: descriptors.name().to_owned(), config_type: None };
    wire::OverloadManager {
        resource_monitors: heap_monitor.into_iter().chain([descriptor_monitor]).collect(),
        actions,
        ..Default::default()
    }
}

fn shorter_idle_timeout() -> wire::ScaleTimersOverloadActionConfig {
    use wire::scale_timers_overload_action_config::{ScaleTimer, TimerType, scale_timer::OverloadAdjust};
    let minimum = protobuf::Duration { seconds: MINIMUM_IDLE_S, nanos: 0 };
    wire::ScaleTimersOverloadActionConfig {
        timer_scale_factors: vec![ScaleTimer {
            timer: TimerType::HttpDownstreamConnectionIdle as i32,
            overload_adjust: Some(OverloadAdjust::MinTimeout(minimum)),
        }],
    }
}

fn action(action: OverloadAction, triggers: Vec<wire::Trigger>) -> wire::OverloadAction {
    wire::OverloadAction { name: action.name().to_owned(), triggers, typed_config: None }
}

fn scaled(of: Resource, scaling_threshold: f64, saturation_threshold: f64) -> wire::Trigger {
    let scaled = wire::ScaledTrigger { scaling_threshold, saturation_threshold };
    wire::Trigger {
        name: of.name().to_owned(),
        trigger_oneof: Some(wire::trigger::TriggerOneof::Scaled(scaled)),
    }
}

fn threshold(of: Resource, value: f64) -> wire::Trigger {
    let threshold = wire::ThresholdTrigger { value };
    wire::Trigger {
        name: of.name().to_owned(),
        trigger_oneof: Some(wire::trigger::TriggerOneof::Threshold(threshold)),
    }
}
