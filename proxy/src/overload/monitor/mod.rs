//! What is measured: each monitor reads a file or two and says which share of its resource is used.

pub(super) mod cgroup;
mod cpu;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use cpu::CpuMode;

use super::{ConnectionLimit, descriptors};
use cpu::Cpu;

/// A resource that is measured.
#[derive(Debug)]
pub enum Monitor {
    /// Memory of the process that is its own (`RssAnon`: heap and stacks, which only swapping would take away) against a number of bytes.
    FixedHeap {
        /// `max_heap_size_bytes`.
        maximum: u64,
        /// `/proc/self/status`.
        status: PathBuf,
    },
    /// What the control group is charged for against its limit; 0 without one.
    CgroupMemory {
        /// Where the two numbers are.
        files: cgroup::Memory,
        /// `max_memory_bytes`; 0: only the group's own limit counts.
        maximum: u64,
    },
    /// The limit itself knows.
    Connections,
    /// CPU time, smoothed.
    Cpu(Cpu),
    /// A number in this file.
    Injected(PathBuf),
    /// Open descriptors; `/proc/self/fd`.
    Descriptors(PathBuf),
}

/// Where a process finds what the kernel says of it. Tests have others.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroup: "/sys/fs/cgroup".into() }
    }
}

impl Monitor {
    /// `envoy.resource_monitors.fixed_heap`.
    pub fn fixed_heap(paths: &Paths, maximum: u64) -> Self {
        Self::FixedHeap { maximum, status: paths.proc.join("self/status") }
    }

    /// `envoy.resource_monitors.cgroup_memory`.
    pub fn cgroup_memory(paths: &Paths, maximum: u64) -> Self {
        Self::CgroupMemory { files: cgroup::Memory::find(paths), maximum }
    }

    /// `envoy.resource_monitors.cpu_utilization`.
    pub fn cpu(paths: &Paths, mode: CpuMode) -> Self {
        Self::Cpu(Cpu::new(paths, mode))
    }

    /// Our own.
    pub fn descriptors(paths: &Paths) -> Self {
        Self::Descriptors(paths.proc.join("self/fd"))
    }

    /// The share of the resource that is used: 0 = nothing, 1 = all; more where more is used than there should be.
    ///
    /// # Errors
    /// A file is missing or says something unexpected.
    pub fn pressure(&mut self, limit: Option<&ConnectionLimit>) -> io::Result<f64> {
        match self {
            Self::FixedHeap { maximum, status } => Ok(own_memory(status)? as f64 / *maximum as f64),
            Self::CgroupMemory { files, maximum } => {
                let limit = match (files.limit()?, *maximum) {
                    (None, _) => return Ok(0.0),
                    (Some(limit), 0) => limit,
                    (Some(limit), maximum) => limit.min(maximum),
                };
                Ok(files.usage()? as f64 / limit as f64)
            }
            Self::Connections => Ok(limit.map_or(0.0, ConnectionLimit::pressure)),
            Self::Cpu(cpu) => cpu.pressure(std::time::Instant::now()),
            Self::Injected(path) => {
                let pressure: f64 = number(path)?;
                match (0.0..=1.0).contains(&pressure) {
                    true => Ok(pressure),
                    false => Err(unexpected(path, "pressure out of range")),
                }
            }
            Self::Descriptors(folder) => descriptors::pressure(folder),
        }
    }
}

/// Bytes of anonymous memory.
fn own_memory(status: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| unexpected(status, "no RssAnon"))
}

/// The number that is all of a file.
fn number<N: std::str::FromStr>(path: &Path) -> io::Result<N> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| unexpected(path, "not a number"))
}

fn unexpected(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
