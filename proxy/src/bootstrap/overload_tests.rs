//! Accept and reject tables of `overload_manager`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::{Bootstrap, Document, NodeFlags, compile_bootstrap};
use crate::config::compile::{CompileCx, Invalid};
use crate::config::testing::inputs;
use crate::overload::{MinimumTimeout, OverloadSettings, Trigger, Triggers};
use crate::stats::{LoadShedPoint, OverloadAction, Resource};

fn compile(yaml: &str) -> Result<Bootstrap, Invalid> {
    let mut document = Document::default();
    document.merge("test.yaml", yaml).unwrap();
    compile_bootstrap(document.message.clone(), &NodeFlags::default(), CompileCx::new(&mut inputs(), true))
}

fn overload(yaml: &str) -> OverloadSettings {
    compile(&format!("overload_manager: {yaml}")).unwrap().overload
}

fn monitor(name: &str, message: &str, fields: &str) -> String {
    format!(
        "{{name: envoy.resource_monitors.{name}, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.resource_monitors.{message}{fields}}}}}"
    )
}

fn heap() -> String {
    monitor("fixed_heap", "fixed_heap.v3.FixedHeapConfig", ", max_heap_size_bytes: 1000")
}

const BY_HEAP: &str = "triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}]";

#[test]
fn all_of_it() {
    let connections = monitor(
        "global_downstream_max_connections",
        "downstream_connections.v3.DownstreamConnectionsConfig",
        ", max_active_downstream_connections: 7",
    );
    let others = [
        monitor("cgroup_memory", "cgroup_memory.v3.CgroupMemoryConfig", ""),
        monitor("cpu_utilization", "cpu_utilization.v3.CpuUtilizationConfig", ", mode: CONTAINER"),
        monitor("injected_resource", "injected_resource.v3.InjectedResourceConfig", ", filename: /x"),
        "{name: outrigger.resource_monitors.file_descriptors}".to_owned(),
    ]
    .join(", ");
    let settings = overload(&format!(
        "{{refresh_interval: 0.25s, resource_monitors: [{}, {connections}, {others}], actions: [\
         {{name: envoy.overload_actions.stop_accepting_requests, {BY_HEAP}}}, \
         {{name: envoy.overload_actions.reduce_timeouts, triggers: [{{name: envoy.resource_monitors.fixed_heap, \
         scaled: {{scaling_threshold: 0.8, saturation_threshold: 0.9}}}}], typed_config: {{\"@type\": \
         type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig, timer_scale_factors: [\
         {{timer: HTTP_DOWNSTREAM_CONNECTION_IDLE, min_timeout: 2s}}, \
         {{timer: TRANSPORT_SOCKET_CONNECT, min_scale: {{value: 10}}}}]}}}}], \
         loadshed_points: [{{name: envoy.load_shed_points.tcp_listener_accept, {BY_HEAP}}}]}}",
        heap()
    ));
    assert_eq!(settings.refresh_interval, Duration::from_millis(250));
    let resources: Vec<Resource> = settings.monitors.iter().map(|(resource, _)| *resource).collect();
    let mut all = Resource::ALL.to_vec();
    all.swap(1, 2);
    assert_eq!(resources, all);
    assert_eq!(settings.max_connections, Some(7));
    let threshold = Triggers::new([(Resource::FixedHeap, Trigger::Threshold(0.9))]);
    let scaled = Triggers::new([(Resource::FixedHeap, Trigger::Scaled { from: 0.8, to: 0.9 })]);
    assert_eq!(
        settings.actions,
        [
            (OverloadAction::StopAcceptingRequests, threshold.clone()),
            (OverloadAction::ReduceTimeouts, scaled)
        ]
    );
    assert_eq!(settings.points, [(LoadShedPoint::TcpListenerAccept, threshold)]);
    assert_eq!(settings.timers.connection_idle, Some(MinimumTimeout::Fixed(Duration::from_secs(2))));
    assert_eq!(settings.timers.handshake, Some(MinimumTimeout::Share(0.1)));
    assert_eq!(settings.timers.connection_max, None);
}

#[test]
fn the_number_of_connections_by_the_runtime_key() {
    let layer = |value: &str| {
        format!(
            "layered_runtime: {{layers: [{{name: s, static_layer: \
             {{overload: {{global_downstream_max_connections: {value}}}}}}}]}}"
        )
    };
    let of = |yaml: &str| compile(yaml).unwrap().overload.max_connections;
    assert_eq!(of(&layer("50000")), Some(50_000));
    assert_eq!(of(&layer("2147483647")), None);
    assert_eq!(of("admin: {}"), None);
    // The monitor wins.
    let connections = monitor(
        "global_downstream_max_connections",
        "downstream_connections.v3.DownstreamConnectionsConfig",
        ", max_active_downstream_connections: 7",
    );
    let both = format!("{}\noverload_manager: {{resource_monitors: [{connections}]}}", layer("50000"));
    assert_eq!(of(&both), Some(7));
}

#[test]
fn refuses() {
    let heap = heap();
    let with = |rest: &str| format!("{{resource_monitors: [{heap}], {rest}}}");
    let action =
        |name: &str, rest: &str| with(&format!("actions: [{{name: envoy.overload_actions.{name}, {rest}}}]"));
    let timers = |timers: &str| {
        action(
            "reduce_timeouts",
            &format!(
                "{BY_HEAP}, typed_config: {{\"@type\": \
                 type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig, \
                 timer_scale_factors: [{timers}]}}"
            ),
        )
    };
    for (yaml, path, reason) in [
        (
            "{resource_monitors: [{name: x}]}".to_owned(),
            "resource_monitors[0].name",
            "resource monitor x is not supported",
        ),
        (
            format!("{{resource_monitors: [{heap}, {heap}]}}"),
            "resource_monitors[1].name",
            "Duplicate resource monitor envoy.resource_monitors.fixed_heap",
        ),
        (
            format!("{{resource_monitors: [{}]}}", heap.replace("monitors.fixed_heap,", "monitors.mine,")),
            "resource_monitors[0].name",
            "a monitor of this type has the name envoy.resource_monitors.fixed_heap",
        ),
        (
            format!("{{resource_monitors: [{}]}}", heap.replace(": 1000", ": 0")),
            "resource_monitors[0].typed_config.max_heap_size_bytes",
            "value must be greater than 0",
        ),
        (
            "{resource_monitors: [{name: envoy.resource_monitors.fixed_heap}]}".to_owned(),
            "resource_monitors[0].typed_config",
            "value is required",
        ),
        (with("refresh_interval: 0s"), "refresh_interval", "must be positive"),
        (
            action("reset_high_memory_stream", BY_HEAP),
            "actions[0].name",
            "overload action envoy.overload_actions.reset_high_memory_stream is not supported",
        ),
        (
            action(
                "stop_accepting_requests",
                "triggers: [{name: envoy.resource_monitors.cpu_utilization, threshold: {value: 1}}]",
            ),
            "actions[0].triggers[0].name",
            "Unknown trigger resource envoy.resource_monitors.cpu_utilization for overload action \
             envoy.overload_actions.stop_accepting_requests",
        ),
        (
            action(
                "stop_accepting_requests",
                "triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 1}}, \
                 {name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.5}}]",
            ),
            "actions[0].triggers[1].name",
            "Duplicate trigger resource for overload action envoy.overload_actions.stop_accepting_requests",
        ),
        (
            action(
                "stop_accepting_requests",
                "triggers: [{name: envoy.resource_monitors.fixed_heap, \
                 scaled: {scaling_threshold: 0.9, saturation_threshold: 0.9}}]",
            ),
            "actions[0].triggers[0].scaled",
            "scaling_threshold must be less than saturation_threshold",
        ),
        (
            action(
                "disable_http_keepalive",
                &format!("{BY_HEAP}, typed_config: {{\"@type\": type.googleapis.com/google.protobuf.Empty}}"),
            ),
            "actions[0].typed_config",
            "Overload action \"envoy.overload_actions.disable_http_keepalive\" has an unexpected value for the typed_config field",
        ),
        (action("reduce_timeouts", BY_HEAP), "actions[0].typed_config", "value is required"),
        (
            timers("{timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_timeout: 2s}"),
            "actions[0].typed_config.timer_scale_factors[0].timer",
            "HTTP_DOWNSTREAM_STREAM_IDLE is not supported",
        ),
        (
            timers(
                "{timer: HTTP_DOWNSTREAM_CONNECTION_MAX, min_timeout: 2s}, {timer: HTTP_DOWNSTREAM_CONNECTION_MAX, min_timeout: 3s}",
            ),
            "actions[0].typed_config.timer_scale_factors[1].timer",
            "Found duplicate entry for timer type HTTP_DOWNSTREAM_CONNECTION_MAX",
        ),
        (
            with(&format!(
                "loadshed_points: [{{name: envoy.load_shed_points.http1_server_abort_dispatch, {BY_HEAP}}}]"
            )),
            "loadshed_points[0].name",
            "load shed point envoy.load_shed_points.http1_server_abort_dispatch is not supported",
        ),
    ] {
        let invalid = compile(&format!("overload_manager: {yaml}")).unwrap_err();
        let problems: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, [format!("overload_manager.{path}: {reason}")], "{yaml}");
    }
}
