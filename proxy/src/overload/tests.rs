//! Pressure to action, monitors on files of their own, and what workers see of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::measure::Measuring;
use super::*;
use crate::stats::{LoadShedPoint, OverloadAction, Resource, Stats};

#[test]
fn triggers_by_pressure() {
    let scaled = Trigger::Scaled { from: 0.85, to: 0.95 };
    for (trigger, pressure, expected) in [
        (Trigger::Threshold(0.9), 0.0, 0.0),
        (Trigger::Threshold(0.9), 0.899, 0.0),
        (Trigger::Threshold(0.9), 0.9, 1.0),
        (Trigger::Threshold(0.9), 3.0, 1.0),
        (Trigger::Threshold(0.0), 0.0, 1.0),
        (scaled, 0.5, 0.0),
        (scaled, 0.85, 0.0),
        (scaled, 0.90, 0.5),
        (scaled, 0.92, 0.7),
        (scaled, 0.95, 1.0),
        (scaled, 1.5, 1.0),
    ] {
        let level = trigger.level(pressure);
        assert!((level - expected).abs() < 1e-9, "{trigger:?} at {pressure}: {level}");
    }
}

#[test]
fn the_strongest_trigger_counts() {
    let (heap, cpu) = (Resource::FixedHeap, Resource::CpuUtilization);
    let mut triggers =
        Triggers::new([(heap, Trigger::Threshold(0.9)), (cpu, Trigger::Scaled { from: 0.0, to: 1.0 })]);
    for (resource, pressure, level, strongest) in [
        (cpu, 0.4, 0.4, cpu),
        (heap, 0.8, 0.4, cpu),
        (heap, 0.9, 1.0, heap),
        (cpu, 0.1, 1.0, heap),
        (heap, 0.2, 0.1, cpu),
        // Of others it has not asked.
        (Resource::Injected, 1.0, 0.1, cpu),
    ] {
        triggers.hear(resource, pressure);
        assert_eq!(
            (triggers.level(), triggers.strongest()),
            (level, Some(strongest)),
            "{resource:?} {pressure}"
        );
    }
}

/// A folder with files, as `/proc` and `/sys/fs/cgroup`.
fn paths(files: &[(&str, &str)]) -> (tempfile::TempDir, Paths) {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths { proc: folder.path().join("proc"), cgroup: folder.path().join("cgroup") };
    write(folder.path(), files);
    (folder, paths)
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn settings(monitors: Vec<(Resource, Monitor)>) -> OverloadSettings {
    OverloadSettings { monitors, ..OverloadSettings::default() }
}

#[test]
fn memory_of_the_process() {
    let (folder, paths) = paths(&[("proc/self/status", "VmRSS:\t 999 kB\nRssAnon:\t    512 kB\n")]);
    let mut monitor = Monitor::fixed_heap(&paths, 1 << 20);
    assert_eq!(monitor.pressure(None).unwrap(), 0.5);
    write(folder.path(), &[("proc/self/status", "VmRSS: 1 kB\n")]);
    assert!(monitor.pressure(None).unwrap_err().to_string().contains("RssAnon"));
    let real = Monitor::fixed_heap(&Paths::default(), 1 << 20).pressure(None).unwrap();
    assert!(real > 0.5, "{real}");
}

#[test]
fn memory_of_the_control_group() {
    // (files, max_memory_bytes, pressure, limit)
    type Row<'a> = (&'a [(&'a str, &'a str)], u64, Option<f64>, Option<u64>);
    let own = ("proc/self/cgroup", "0::/pod/proxy\n");
    let v1 = ("proc/self/cgroup", "12:cpu,cpuacct:/a\n9:memory:/pod\n");
    let rows: &[Row<'_>] = &[
        // Seen from inside the container the group is the root.
        (
            &[own, ("cgroup/memory.current", "300\n"), ("cgroup/memory.max", "1000\n")],
            0,
            Some(0.3),
            Some(1000),
        ),
        (
            &[
                own,
                ("cgroup/pod/proxy/memory.current", "700\n"),
                ("cgroup/pod/proxy/memory.max", "1000\n"),
                ("cgroup/memory.current", "1\n"),
                ("cgroup/memory.max", "max\n"),
            ],
            0,
            Some(0.7),
            Some(1000),
        ),
        (
            &[own, ("cgroup/memory.current", "300\n"), ("cgroup/memory.max", "1000\n")],
            600,
            Some(0.5),
            Some(1000),
        ),
        (
            &[own, ("cgroup/memory.current", "300\n"), ("cgroup/memory.max", "1000\n")],
            6000,
            Some(0.3),
            Some(1000),
        ),
        (&[own, ("cgroup/memory.current", "300\n"), ("cgroup/memory.max", "max\n")], 600, Some(0.0), None),
        (
            &[
                v1,
                ("cgroup/memory/pod/memory.usage_in_bytes", "250\n"),
                ("cgroup/memory/pod/memory.limit_in_bytes", "500\n"),
            ],
            0,
            Some(0.5),
            Some(500),
        ),
        (
            &[
                v1,
                ("cgroup/memory/memory.usage_in_bytes", "250\n"),
                ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
            0,
            Some(0.0),
            None,
        ),
        (&[own, ("cgroup/memory.current", "300\n"), ("cgroup/memory.max", "soon\n")], 0, None, None),
        (&[], 0, None, None),
    ];
    for (files, maximum, pressure, limit) in rows {
        let (_folder, paths) = paths(files);
        let mut monitor = Monitor::cgroup_memory(&paths, *maximum);
        assert_eq!(monitor.pressure(None).ok(), *pressure, "{files:?}");
        assert_eq!(memory_limit(&paths), *limit, "{files:?}");
    }
}

/// The pressure after the files have changed once, without smoothing.
fn cpu(mode: CpuMode, before: &[(&str, &str)], after: &[(&str, &str)], elapsed: Duration) -> Option<f64> {
    let (folder, paths) = paths(before);
    let Monitor::Cpu(mut cpu) = Monitor::cpu(&paths, mode) else { panic!() };
    let start = Instant::now();
    match cpu.pressure(start) {
        Ok(first) => assert_eq!(first, 0.0),
        Err(_) => return None,
    }
    write(folder.path(), after);
    cpu.pressure(start + elapsed).ok().map(|smooth| (smooth / 0.05 * 1e6).round() / 1e6)
}

#[test]
fn cpu_of_the_machine() {
    let stat = |line| [("proc/stat", line)];
    let host = |before, after| cpu(CpuMode::Host, &stat(before), &stat(after), Duration::from_secs(1));
    assert_eq!(host("cpu  100 0 100 800 50 1 1\ncpu0 1 1 1 1\n", "cpu  150 10 140 900 90 2 2\n"), Some(0.5));
    assert_eq!(host("cpu  0 0 0 0\n", "cpu  10 0 0 0\n"), Some(1.0));
    assert_eq!(host("cpu  0 0 0 7\n", "cpu  0 0 0 7\n"), None, "no time has passed");
    assert_eq!(host("cpu0 1 1 1 1\n", "cpu0 1 1 1 1\n"), None);
    assert_eq!(host("cpu  1 2 x 4\n", "cpu  1 2 x 4\n"), None);
}

#[test]
fn cpu_of_the_control_group() {
    let own = ("proc/self/cgroup", "0::/\n");
    let at = |usage, max, cpus| {
        [own, ("cgroup/cpu.stat", usage), ("cgroup/cpu.max", max), ("cgroup/cpuset.cpus.effective", cpus)]
    };
    let (zero, second) = ("usage_usec 0\nuser_usec 0\n", "usage_usec 1000000\n");
    for (max, cpus, expected) in [
        ("max 100000\n", "0-3\n", Some(0.125)),
        ("max 100000\n", "0-1,7\n", Some(0.166667)),
        ("max 100000\n", "2\n", Some(0.5)),
        ("100000 100000\n", "0-3\n", Some(0.5)),
        // No more than all of it.
        ("10000 100000\n", "0-3\n", Some(1.0)),
        // The quota of more CPUs than there are is no quota.
        ("800000 100000\n", "0-3\n", Some(0.125)),
        ("100000 0\n", "0\n", None),
        ("max 100000\n", "all\n", None),
    ] {
        let pressure =
            cpu(CpuMode::Container, &at(zero, max, cpus), &at(second, max, cpus), Duration::from_secs(2));
        assert_eq!(pressure, expected, "{max:?} {cpus:?}");
    }
    let v1 = |usage| {
        [
            ("proc/self/cgroup", "4:cpu,cpuacct:/pod\n"),
            ("cgroup/cpu/cpu.shares", "2000\n"),
            ("cgroup/cpuacct/cpuacct.usage", usage),
        ]
    };
    let pressure = cpu(CpuMode::Container, &v1("0\n"), &v1("1000000000\n"), Duration::from_secs(2));
    assert_eq!(pressure, Some(0.25));
}

#[test]
fn connections_are_limited_and_measured() {
    let limit = ConnectionLimit::new(4);
    let places: Vec<Place> = (0..4).map(|_| limit.take().unwrap()).collect();
    assert!(limit.take().is_none());
    assert_eq!(Monitor::Connections.pressure(Some(&limit)).unwrap(), 1.0);
    let one_more = limit.take_anyway();
    assert_eq!(limit.pressure(), 1.25);
    drop((places, one_more));
    assert_eq!(limit.pressure(), 0.0);
    assert!(limit.take().is_some());
}

/// An overload manager that a file drives.
struct Driven {
    folder: tempfile::TempDir,
    measuring: Measuring,
    overload: Arc<Overload>,
    stats: Arc<Stats>,
}

impl Driven {
    fn new(actions: Vec<(OverloadAction, Triggers)>, points: Vec<(LoadShedPoint, Triggers)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let monitor = Monitor::Injected(folder.path().join("pressure"));
        let settings = OverloadSettings { actions, points, ..settings(vec![(Resource::Injected, monitor)]) };
        let stats = Stats::new();
        let overload = Arc::new(Overload::new(&settings, stats.clone()));
        let measuring = Measuring::new(settings, overload.clone());
        Self { folder, measuring, overload, stats }
    }

    fn press(&mut self, pressure: &str) {
        write(self.folder.path(), &[("pressure", pressure)]);
        self.measuring.refresh();
    }

    fn value(&self, name: &str) -> String {
        let page = self.stats.text(&Default::default());
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("overload.{name}: ")));
        line.unwrap_or_else(|| panic!("{name}: {page}")).to_owned()
    }
}

fn of_injected(trigger: Trigger) -> Triggers {
    Triggers::new([(Resource::Injected, trigger)])
}

#[test]
fn actions_follow_the_pressure() {
    let stop = OverloadAction::StopAcceptingRequests;
    let mut driven =
        Driven::new(vec![(stop, of_injected(Trigger::Scaled { from: 0.5, to: 0.9 }))], Vec::new());
    let name = |what: &str| format!("{}.{what}", stop.name());
    assert!(driven.overload.pressed().is_none());
    for (pressure, percent, active) in [("0.5", "0", "0"), ("0.75", "62", "0"), ("0.9\n", "100", "1")] {
        driven.press(pressure);
        assert_eq!(driven.value(&name("scale_percent")), percent, "{pressure}");
        assert_eq!(driven.value(&name("active")), active, "{pressure}");
        let does = |overload: &Overload| overload.pressed().is_some_and(|pressed| pressed.does(stop));
        let done = (0..1000).filter(|_| does(&driven.overload)).count();
        match percent {
            "0" => assert_eq!(done, 0),
            "100" => assert_eq!(done, 1000),
            _ => assert!((450..800).contains(&done), "{done}"),
        }
    }
    assert_eq!(driven.value("envoy.resource_monitors.injected_resource.pressure"), "90");
    assert_eq!(driven.overload.on(), [(stop.name(), 100)]);
    // What cannot be measured changes nothing, and is counted.
    for broken in ["", "much", "1.5", "-1"] {
        driven.press(broken);
        assert_eq!(driven.overload.on(), [(stop.name(), 100)], "{broken}");
    }
    assert_eq!(driven.value("envoy.resource_monitors.injected_resource.failed_updates"), "4");
    driven.press("0.1");
    assert!(driven.overload.pressed().is_none() && driven.overload.on().is_empty());
}

#[test]
fn points_count_what_they_shed() {
    let (accept, codec) = (LoadShedPoint::TcpListenerAccept, LoadShedPoint::CreatingCodec);
    let points =
        vec![(accept, of_injected(Trigger::Threshold(0.5))), (codec, of_injected(Trigger::Threshold(0.9)))];
    let mut driven = Driven::new(Vec::new(), points);
    driven.press("0.6");
    let pressed = driven.overload.pressed().unwrap();
    assert!(pressed.sheds(accept) && pressed.sheds(accept) && !pressed.sheds(codec));
    assert_eq!(driven.value(&format!("{}.shed_load_count", accept.name())), "2");
    assert_eq!(driven.value(&format!("{}.shed_load_count", codec.name())), "0");
    assert_eq!(driven.value(&format!("{}.scale_percent", accept.name())), "100");
}

#[test]
fn accepting_stops_when_saturated_only() {
    let stop = OverloadAction::StopAcceptingConnections;
    let mut driven =
        Driven::new(vec![(stop, of_injected(Trigger::Scaled { from: 0.5, to: 0.9 }))], Vec::new());
    let accepts = driven.overload.accepts().unwrap();
    for (pressure, expected) in [("0.8", true), ("1", false), ("0.8", true)] {
        driven.press(pressure);
        assert_eq!(*accepts.borrow(), expected, "{pressure}");
    }
    let without = Overload::new(&OverloadSettings::default(), Stats::new());
    assert!(without.accepts().is_none() && without.limit().is_none());
}

#[test]
fn timeouts_become_shorter() {
    let timers = ScaledTimers {
        connection_idle: Some(MinimumTimeout::Fixed(Duration::from_secs(2))),
        connection_max: Some(MinimumTimeout::Share(0.1)),
        handshake: None,
    };
    // Envoy's own example: 2 s + (600 s - 2 s) * 30 %.
    let at = |level| ReducedTimeouts { timers, level };
    let ten_minutes = Duration::from_secs(600);
    for (level, idle_ms, max_ms) in [(0.0, 600_000, 600_000), (0.7, 181_400, 222_000), (1.0, 2_000, 60_000)] {
        assert_eq!(at(level).connection_idle(ten_minutes).as_millis(), idle_ms, "{level}");
        assert_eq!(at(level).connection_max(ten_minutes).as_millis(), max_ms, "{level}");
        assert_eq!(at(level).handshake(ten_minutes), ten_minutes);
    }
    let one = Duration::from_secs(1);
    assert_eq!(at(1.0).connection_idle(one), one, "a minimum makes nothing longer");
}

#[tokio::test(start_paused = true)]
async fn the_resources_are_measured_from_time_to_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pressure");
    let stop = OverloadAction::StopAcceptingRequests;
    let settings = OverloadSettings {
        actions: vec![(stop, of_injected(Trigger::Threshold(0.9)))],
        ..settings(vec![(Resource::Injected, Monitor::Injected(file.clone()))])
    };
    fs::write(&file, "1").unwrap();
    let overload = Arc::new(Overload::new(&settings, Stats::new()));
    let measuring = tokio::spawn(measure(settings, overload.clone()));
    tokio::task::yield_now().await;
    assert!(overload.pressed().is_some(), "at once");
    fs::write(&file, "0").unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(overload.pressed().is_some());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(overload.pressed().is_none());
    measuring.abort();
}
