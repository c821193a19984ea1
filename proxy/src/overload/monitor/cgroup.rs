//! The control group of the process, version 2 or 1: where its files are, and what they say.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Paths, number, unexpected};

/// What version 1 says in place of no limit is a number of pages near 2^63.
const NO_LIMIT: u64 = 1 << 62;

/// Memory of a group.
#[derive(Debug)]
pub struct Memory {
    usage: PathBuf,
    limit: PathBuf,
}

impl Memory {
    /// Of the group of this process.
    pub(super) fn find(paths: &Paths) -> Self {
        let folder = folder(paths, "memory", "memory.current", "memory.usage_in_bytes");
        match folder.join("memory.usage_in_bytes").exists() {
            true => Self {
                usage: folder.join("memory.usage_in_bytes"),
                limit: folder.join("memory.limit_in_bytes"),
            },
            false => Self { usage: folder.join("memory.current"), limit: folder.join("memory.max") },
        }
    }

    /// Bytes that the group is charged for.
    pub(super) fn usage(&self) -> io::Result<u64> {
        number(&self.usage)
    }

    /// Bytes that it may be charged for; `None`: no limit.
    pub(super) fn limit(&self) -> io::Result<Option<u64>> {
        let text = fs::read_to_string(&self.limit)?;
        match text.trim() {
            "max" | "-1" => Ok(None),
            text => match text.parse::<u64>() {
                Ok(limit) if limit >= NO_LIMIT => Ok(None),
                Ok(limit) if limit > 0 => Ok(Some(limit)),
                _ => Err(unexpected(&self.limit, "not a number of bytes")),
            },
        }
    }
}

/// Bytes that the control group of this process may use; `None`: no limit, or none that can be read.
pub fn memory_limit(paths: &Paths) -> Option<u64> {
    Memory::find(paths).limit().ok().flatten()
}

/// The folder of the process's group for a controller. Inside a container the group is mounted at the root, whatever its path outside.
/// `v2` and `v1` are files that it has in these versions.
pub(super) fn folder(paths: &Paths, controller: &str, v2: &str, v1: &str) -> PathBuf {
    let groups = fs::read_to_string(paths.proc.join("self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (paths.cgroup.clone(), v2),
            some if some.split(',').any(|one| one == controller) => (paths.cgroup.join(controller), v1),
            _ => continue,
        };
        for path in [path.trim_start_matches('/'), ""] {
            let folder = root.join(path);
            if folder.join(file).exists() {
                return folder;
            }
        }
    }
    match paths.cgroup.join(controller).join(v1).exists() {
        true => paths.cgroup.join(controller),
        false => paths.cgroup.clone(),
    }
}
