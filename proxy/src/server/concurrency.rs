//! How many workers: as many as there is CPU to use.

use std::fs;

/// The CPU quota of the control group, rounded up, at most the CPUs that the process may run on; at least 1.
pub fn default_concurrency() -> usize {
    let allowed = allowed_cpus().unwrap_or(1);
    match quota() {
        Some(quota) => allowed.min(quota).max(1),
        None => allowed.max(1),
    }
}

/// CPUs in the affinity mask.
fn allowed_cpus() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"))?;
    Some(count_bits(mask))
}

fn count_bits(mask: &str) -> usize {
    mask.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit.count_ones() as usize).sum()
}

/// Of the process's own control group, version 2 or 1.
fn quota() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        // Inside a container the group is mounted at the root, whatever its path outside.
        for path in [path, ""] {
            let path = path.trim_end_matches('/');
            let quota = if controllers.is_empty() {
                fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.max"))
                    .ok()
                    .and_then(|text| parse_max(&text))
            } else if controllers.split(',').any(|c| c == "cpu") {
                let read = |file| fs::read_to_string(format!("/sys/fs/cgroup/cpu{path}/{file}")).ok();
                read("cpu.cfs_quota_us")
                    .zip(read("cpu.cfs_period_us"))
                    .and_then(|(quota, period)| parse_max(&format!("{} {}", quota.trim(), period.trim())))
            } else {
                None
            };
            if quota.is_some() {
                return quota;
            }
        }
    }
    None
}

/// `QUOTA PERIOD` in microseconds; `max` or -1 is no limit.
fn parse_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up() {
        assert_eq!(parse_max("150000 100000\n"), Some(2));
        assert_eq!(parse_max("50000 100000"), Some(1));
        assert_eq!(parse_max("400000 100000"), Some(4));
        assert_eq!(parse_max("max 100000"), None);
        assert_eq!(parse_max("-1 100000"), None);
        assert_eq!(parse_max("garbage"), None);
    }

    #[test]
    fn a_mask_is_counted() {
        assert_eq!(count_bits("\t3"), 2);
        assert_eq!(count_bits("ffffffff,00000001"), 33);
    }

    #[test]
    fn there_is_always_a_worker() {
        assert!(default_concurrency() >= 1);
    }
}
