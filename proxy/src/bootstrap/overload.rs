//! `overload_manager`.

use outrigger_xds_api::wire::core::v3::RuntimeUInt64;
use outrigger_xds_api::wire::envoy::config::overload::v3 as wire;
use outrigger_xds_api::wire::extensions::resource_monitors;
use outrigger_xds_api::wire::protobuf::Any;
use prost::Name;

use crate::config::compile::cx::{CompileCx, Compiled, ignored};
use crate::config::compile::values::{duration, enumeration, type_name, unpack};
use crate::overload::{
    CpuMode, MinimumTimeout, Monitor, OverloadSettings, Paths, ScaledTimers, Trigger, Triggers,
};
use crate::stats::{LoadShedPoint, OverloadAction, Resource};

/// Compiles it. `max_connections` is what the runtime key says, which the monitor beats.
pub(super) fn compile(
    cx: &mut CompileCx<'_>,
    value: &wire::OverloadManager,
    max_connections: Option<u64>,
) -> Compiled<OverloadSettings> {
    let wire::OverloadManager {
        refresh_interval,
        resource_monitors,
        actions,
        loadshed_points,
        buffer_factory_config,
    } = value;
    // For the action that resets streams, which is refused.
    ignored!(cx; buffer_factory_config);
    let refresh_interval = match duration(cx, "refresh_interval", refresh_interval) {
        Some(interval) if interval.is_zero() => return Err(cx.refuse("refresh_interval", "must be positive")),
        Some(interval) => interval,
        None => OverloadSettings::REFRESH_INTERVAL,
    };
    let mut settings = OverloadSettings { refresh_interval, max_connections, ..OverloadSettings::default() };
    for (i, monitor) in resource_monitors.iter().enumerate() {
        cx.item("resource_monitors", i, |cx| {
            let Ok((resource, monitor)) = compile_monitor(cx, monitor, &mut settings.max_connections) else {
                return;
            };
            if settings.monitors.iter().any(|(other, _)| *other == resource) {
                cx.refuse("name", format!("Duplicate resource monitor {}", resource.name()));
            }
            settings.monitors.push((resource, monitor));
        });
    }
    let known: Vec<Resource> = settings.monitors.iter().map(|(resource, _)| *resource).collect();
    for (i, action) in actions.iter().enumerate() {
        cx.item("actions", i, |cx| {
            let Ok((action, triggers)) = compile_action(cx, action, &known, &mut settings.timers) else {
                return;
            };
            if settings.actions.iter().any(|(other, _)| *other == action) {
                cx.refuse("name", format!("Duplicate overload action {}", action.name()));
            }
            settings.actions.push((action, triggers));
        });
    }
    for (i, point) in loadshed_points.iter().enumerate() {
        cx.item("loadshed_points", i, |cx| {
            let wire::LoadShedPoint { name, triggers } = point;
            let triggers = compile_triggers(cx, triggers, &known, &format!("loadshed point {name}"));
            let Some(point) = LoadShedPoint::of_name(name) else {
                cx.refuse("name", format!("load shed point {name} is not supported"));
                return;
            };
            let Ok(triggers) = triggers else { return };
            if settings.points.iter().any(|(other, _)| *other == point) {
                cx.refuse("name", format!("Duplicate loadshed point {name}"));
            }
            settings.points.push((point, triggers));
        });
    }
    Ok(settings)
}

fn compile_monitor(
    cx: &mut CompileCx<'_>,
    value: &wire::ResourceMonitor,
    max_connections: &mut Option<u64>,
) -> Compiled<(Resource, Monitor)> {
    use resource_monitors::{
        cgroup_memory, cpu_utilization, downstream_connections, fixed_heap, injected_resource,
    };
    let wire::ResourceMonitor { name, config_type } = value;
    let paths = Paths::default();
    let Some(wire::resource_monitor::ConfigType::TypedConfig(config)) = config_type else {
        // Our own has nothing to be configured.
        return match Resource::of_name(name) {
            Some(Resource::FileDescriptors) => Ok((Resource::FileDescriptors, Monitor::descriptors(&paths))),
            Some(_) => Err(cx.refuse("typed_config", "value is required")),
            None => Err(cx.refuse("name", format!("resource monitor {name} is not supported"))),
        };
    };
    let is = |type_url: String| type_name(config) == type_url;
    let (resource, monitor) =
        cx.field("typed_config", |cx| {
            if is(fixed_heap::v3::FixedHeapConfig::full_name()) {
                let config = unpack::<fixed_heap::v3::FixedHeapConfig>(cx, config)?;
                Ok((Resource::FixedHeap, Monitor::fixed_heap(&paths, heap_size(cx, &config)?)))
            } else if is(cgroup_memory::v3::CgroupMemoryConfig::full_name()) {
                let cgroup_memory::v3::CgroupMemoryConfig { max_memory_bytes } = unpack(cx, config)?;
                Ok((Resource::CgroupMemory, Monitor::cgroup_memory(&paths, max_memory_bytes)))
            } else if is(downstream_connections::v3::DownstreamConnectionsConfig::full_name()) {
                let downstream_connections::v3::DownstreamConnectionsConfig {
                    max_active_downstream_connections,
                } = unpack(cx, config)?;
                let maximum =
                    u64::try_from(max_active_downstream_connections).ok().filter(|maximum| *maximum > 0);
                *max_connections = Some(maximum.ok_or_else(|| {
                    cx.refuse("max_active_downstream_connections", "value must be greater than 0")
                })?);
                Ok((Resource::DownstreamConnections, Monitor::Connections))
            } else if is(cpu_utilization::v3::CpuUtilizationConfig::full_name()) {
                use cpu_utilization::v3::cpu_utilization_config::UtilizationComputeStrategy as Strategy;
                let cpu_utilization::v3::CpuUtilizationConfig { mode } = unpack(cx, config)?;
                let mode = match enumeration::<Strategy>(cx, "mode", mode)? {
                    Strategy::Host => CpuMode::Host,
                    Strategy::Container => CpuMode::Container,
                };
                Ok((Resource::CpuUtilization, Monitor::cpu(&paths, mode)))
            } else if is(injected_resource::v3::InjectedResourceConfig::full_name()) {
                let injected_resource::v3::InjectedResourceConfig { filename } = unpack(cx, config)?;
                Ok((Resource::Injected, Monitor::Injected(filename.into())))
            } else {
                Err(cx.refuse("@type", format!("resource monitor {} is not supported", type_name(config))))
            }
        })?;
    // Triggers and statistics go by the name.
    if name != resource.name() {
        return Err(cx.refuse("name", format!("a monitor of this type has the name {}", resource.name())));
    }
    Ok((resource, monitor))
}

fn heap_size(
    cx: &mut CompileCx<'_>,
    value: &resource_monitors::fixed_heap::v3::FixedHeapConfig,
) -> Compiled<u64> {
    let resource_monitors::fixed_heap::v3::FixedHeapConfig {
        max_heap_size_bytes,
        max_heap_size_bytes_runtime,
    } = value;
    match (*max_heap_size_bytes, max_heap_size_bytes_runtime) {
        (0, None | Some(RuntimeUInt64 { default_value: 0, .. })) => {
            Err(cx.refuse("max_heap_size_bytes", "value must be greater than 0"))
        }
        // There is no runtime to say anything else.
        (0, Some(RuntimeUInt64 { default_value, runtime_key })) => {
            cx.field("max_heap_size_bytes_runtime", |cx| ignored!(cx; runtime_key));
            Ok(*default_value)
        }
        (maximum, None) => Ok(maximum),
        (_, Some(_)) => {
            let reason = "exactly one of max_heap_size_bytes or max_heap_size_bytes_runtime must be set";
            Err(cx.refuse("max_heap_size_bytes_runtime", reason))
        }
    }
}

fn compile_action(
    cx: &mut CompileCx<'_>,
    value: &wire::OverloadAction,
    known: &[Resource],
    timers: &mut ScaledTimers,
) -> Compiled<(OverloadAction, Triggers)> {
    let wire::OverloadAction { name, triggers, typed_config } = value;
    let triggers = compile_triggers(cx, triggers, known, &format!("overload action {name}"));
    let Some(action) = OverloadAction::of_name(name) else {
        return Err(cx.refuse("name", format!("overload action {name} is not supported")));
    };
    match (action, typed_config) {
        (OverloadAction::ReduceTimeouts, Some(config)) => {
            *timers = cx.field("typed_config", |cx| compile_timers(cx, config))?;
        }
        (OverloadAction::ReduceTimeouts, None) => {
            return Err(cx.refuse("typed_config", "value is required"));
        }
        // Memory that is free goes back to the system at once, so there is nothing to be tuned.
        (OverloadAction::ShrinkHeap, Some(config)) => cx.field("typed_config", |cx| {
            let wire::ShrinkHeapConfig { timer_interval, max_unfreed_memory_bytes } = unpack(cx, config)?;
            ignored!(cx; timer_interval, max_unfreed_memory_bytes);
            Ok(())
        })?,
        (_, Some(_)) => {
            return Err(cx.refuse(
                "typed_config",
                format!("Overload action \"{name}\" has an unexpected value for the typed_config field"),
            ));
        }
        (_, None) => {}
    }
    Ok((action, triggers?))
}

fn compile_triggers(
    cx: &mut CompileCx<'_>,
    triggers: &[wire::Trigger],
    known: &[Resource],
    owner: &str,
) -> Compiled<Triggers> {
    let mut seen: Vec<Resource> = Vec::new();
    let triggers = cx.each("triggers", triggers, |trigger, cx| {
        let wire::Trigger { name, trigger_oneof } = trigger;
        let Some(resource) = Resource::of_name(name).filter(|resource| known.contains(resource)) else {
            return Err(cx.refuse("name", format!("Unknown trigger resource {name} for {owner}")));
        };
        if seen.contains(&resource) {
            return Err(cx.refuse("name", format!("Duplicate trigger resource for {owner}")));
        }
        seen.push(resource);
        let trigger = match trigger_oneof {
            Some(wire::trigger::TriggerOneof::Threshold(wire::ThresholdTrigger { value })) => {
                Trigger::Threshold(*value)
            }
            Some(wire::trigger::TriggerOneof::Scaled(wire::ScaledTrigger {
                scaling_threshold,
                saturation_threshold,
            })) => {
                if scaling_threshold >= saturation_threshold {
                    let reason = "scaling_threshold must be less than saturation_threshold";
                    return Err(cx.refuse("scaled", reason));
                }
                Trigger::Scaled { from: *scaling_threshold, to: *saturation_threshold }
            }
            None => return Err(cx.refuse("", format!("action not set for trigger {name}"))),
        };
        Ok((resource, trigger))
    })?;
    Ok(Triggers::new(triggers))
}

fn compile_timers(cx: &mut CompileCx<'_>, config: &Any) -> Compiled<ScaledTimers> {
    use wire::scale_timers_overload_action_config::{ScaleTimer, TimerType, scale_timer::OverloadAdjust};
    let wire::ScaleTimersOverloadActionConfig { timer_scale_factors } = unpack(cx, config)?;
    let mut timers = ScaledTimers::default();
    cx.each("timer_scale_factors", &timer_scale_factors, |factor, cx| {
        let ScaleTimer { timer, overload_adjust } = factor;
        let minimum = match overload_adjust {
            Some(OverloadAdjust::MinTimeout(minimum)) => {
                let minimum = duration(cx, "min_timeout", &Some(*minimum));
                MinimumTimeout::Fixed(minimum.unwrap_or_default())
            }
            Some(OverloadAdjust::MinScale(percent)) => {
                if !(0.0..=100.0).contains(&percent.value) {
                    return Err(cx.refuse("min_scale.value", "value must be inside range [0, 100]"));
                }
                MinimumTimeout::Share(percent.value / 100.0)
            }
            None => return Err(cx.refuse("", "one of min_timeout or min_scale is required")),
        };
        let timer = enumeration::<TimerType>(cx, "timer", *timer)?;
        let place = match timer {
            TimerType::HttpDownstreamConnectionIdle => &mut timers.connection_idle,
            TimerType::HttpDownstreamConnectionMax => &mut timers.connection_max,
            TimerType::TransportSocketConnect => &mut timers.handshake,
            other => return Err(cx.refuse("timer", format!("{} is not supported", other.as_str_name()))),
        };
        if place.replace(minimum).is_some() {
            let reason = format!("Found duplicate entry for timer type {}", timer.as_str_name());
            return Err(cx.refuse("timer", reason));
        }
        Ok(())
    })?;
    Ok(timers)
}
