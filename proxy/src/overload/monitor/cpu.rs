//! CPU time that was used between two measurements, of the time that there was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Paths, cgroup, number, unexpected};

/// Envoy's: a measurement counts for so much of the pressure, and the past for the rest.
const SMOOTHING: f64 = 0.05;

/// `CpuUtilizationConfig.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuMode {
    /// All CPUs of the machine.
    Host,
    /// The control group, of its quota or of the CPUs that it may use.
    Container,
}

/// See the module.
#[derive(Debug)]
pub struct Cpu {
    source: Source,
    last: Option<(Times, Instant)>,
    pressure: f64,
}

#[derive(Debug)]
enum Source {
    /// `/proc/stat`.
    Host(PathBuf),
    /// `cpu.stat`, `cpu.max` and `cpuset.cpus.effective` of version 2, in this folder.
    GroupV2(PathBuf),
    /// `cpuacct.usage` and `cpu.shares` of version 1.
    GroupV1 { usage: PathBuf, shares: PathBuf },
}

/// So far. Of the machine in ticks; of a group in seconds, and what was available to it is known from the clock.
#[derive(Debug, Clone, Copy)]
struct Times {
    used: f64,
    available: f64,
}

impl Cpu {
    pub(super) fn new(paths: &Paths, mode: CpuMode) -> Self {
        let source = match mode {
            CpuMode::Host => Source::Host(paths.proc.join("stat")),
            CpuMode::Container => {
                let folder = cgroup::folder(paths, "cpu", "cpu.stat", "cpu.shares");
                match folder.join("cpu.shares").exists() {
                    true => Source::GroupV1 {
                        usage: cgroup::folder(paths, "cpuacct", "cpu.stat", "cpuacct.usage")
                            .join("cpuacct.usage"),
                        shares: folder.join("cpu.shares"),
                    },
                    false => Source::GroupV2(folder),
                }
            }
        };
        Self { source, last: None, pressure: 0.0 }
    }

    /// The first measurement has nothing before it, and is 0.
    pub(in crate::overload) fn pressure(&mut self, now: Instant) -> io::Result<f64> {
        let (times, cores) = self.source.read()?;
        let Some((last, at)) = self.last.replace((times, now)) else { return Ok(0.0) };
        let available = match cores {
            None => times.available - last.available,
            Some(cores) => now.saturating_duration_since(at).as_secs_f64() * cores,
        };
        let used = times.used - last.used;
        if available <= 0.0 || used < 0.0 {
            return Err(io::Error::other("time does not go on"));
        }
        self.pressure = (used / available).min(1.0) * SMOOTHING + self.pressure * (1.0 - SMOOTHING);
        Ok(self.pressure)
    }
}

impl Source {
    /// Times, for groups in seconds with the CPUs that there are.
    fn read(&self) -> io::Result<(Times, Option<f64>)> {
        match self {
            Self::Host(stat) => Ok((host(stat, &fs::read_to_string(stat)?)?, None)),
            Self::GroupV2(folder) => {
                let stat = folder.join("cpu.stat");
                let text = fs::read_to_string(&stat)?;
                let usage =
                    text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
                let usage = usage.ok_or_else(|| unexpected(&stat, "no usage_usec"))?;
                Ok((Times { used: usage as f64 / 1e6, available: 0.0 }, Some(cores(folder)?)))
            }
            Self::GroupV1 { usage, shares } => {
                let (nanoseconds, shares): (u64, u64) = (number(usage)?, number(shares)?);
                // As Envoy: 1024 shares are what Kubernetes makes of a CPU, near enough.
                Ok((Times { used: nanoseconds as f64 / 1e9, available: 0.0 }, Some(shares as f64 / 1000.0)))
            }
        }
    }
}

/// `user nice system idle` of the first line, in ticks of all CPUs.
fn host(path: &Path, text: &str) -> io::Result<Times> {
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields: Option<Vec<u64>> =
        line.and_then(|line| line.split_whitespace().take(4).map(|field| field.parse().ok()).collect());
    match fields.as_deref() {
        Some([user, nice, system, idle]) => {
            let used = (user + nice + system) as f64;
            Ok(Times { used, available: used + *idle as f64 })
        }
        _ => Err(unexpected(path, "not the times of a CPU")),
    }
}

/// The quota, and no more than the CPUs that the group may use.
fn cores(folder: &Path) -> io::Result<f64> {
    let max = folder.join("cpu.max");
    let text = fs::read_to_string(&max)?;
    let quota = match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["max", ..] => None,
        [quota, period] => match (quota.parse::<f64>(), period.parse::<f64>()) {
            (Ok(quota), Ok(period)) if period > 0.0 => Some(quota / period),
            _ => return Err(unexpected(&max, "not a quota")),
        },
        _ => return Err(unexpected(&max, "not a quota")),
    };
    // A group without the controller has all CPUs.
    let cpus = match fs::read_to_string(folder.join("cpuset.cpus.effective")) {
        Ok(text) => count(&text).ok_or_else(|| unexpected(folder, "not a list of CPUs"))?,
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    } as f64;
    Ok(quota.map_or(cpus, |quota| quota.min(cpus)))
}

/// `0-2,4` is four.
fn count(list: &str) -> Option<usize> {
    let one = |part: &str| -> Option<usize> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last >= first).then(|| last - first + 1)
    };
    list.trim().split(',').map(one).sum()
}
