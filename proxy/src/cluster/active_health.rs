//! What active health checks say of a host. Main writes, workers read; a worker may only pass on that the host wants no more requests.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::net::Address;

/// One thing that is said of a host. The names are those of `/clusters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum HealthFlag {
    /// `failed_active_hc`: its checks fail, or there was none yet. No request goes there.
    Failed = 1,
    /// `degraded_active_hc`: the answer to its last check had `x-envoy-degraded`.
    Degraded = 1 << 1,
    /// `pending_dynamic_removal`: discovery has it no more; it stays while its checks pass.
    PendingRemoval = 1 << 2,
    /// `pending_active_hc`: there was no check yet, and it is not to count among the hosts until then.
    PendingFirstCheck = 1 << 3,
    /// `excluded_via_immediate_hc_fail`: it has asked to be left alone, and does not count among the hosts.
    Excluded = 1 << 4,
    /// `active_hc_timeout`: its last check took too long.
    TimedOut = 1 << 5,
    /// It is being checked: not shown, but known to workers.
    Checked = 1 << 6,
}

/// The health of one host.
#[derive(Debug, Default)]
pub struct ActiveHealth {
    flags: AtomicU32,
    failed_by_itself: Notify,
}

impl ActiveHealth {
    /// Whether this is said of it.
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag as u32 != 0
    }

    /// Says it, or takes it back. Whether that is a change.
    pub fn set(&self, flag: HealthFlag, value: bool) -> bool {
        let bit = flag as u32;
        let before = match value {
            true => self.flags.fetch_or(bit, Ordering::Relaxed),
            false => self.flags.fetch_and(!bit, Ordering::Relaxed),
        };
        (before & bit != 0) != value
    }

    /// Nothing is said of it any more.
    pub fn clear(&self) {
        self.flags.store(0, Ordering::Relaxed);
    }

    /// The host has answered a request with `x-envoy-immediate-health-check-fail`. Counts only while it is checked.
    pub fn fail_at_once(&self) {
        if self.has(HealthFlag::Checked) {
            self.set(HealthFlag::Excluded, true);
            self.failed_by_itself.notify_one();
        }
    }

    /// Waits until it has done so.
    pub async fn has_failed_by_itself(&self) {
        self.failed_by_itself.notified().await;
    }
}

/// `Endpoint.health_check_config`: where and how the host is checked, unless as the cluster says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckTarget {
    /// `address`; `None`: that of the host.
    pub address: Option<Address>,
    /// `port_value`; `None`: that of the address.
    pub port: Option<u16>,
    /// `hostname`, for `host` and `:authority`.
    pub hostname: Option<Box<str>>,
    /// `disable_active_health_check`: it is not checked, and healthy.
    pub disabled: bool,
}

impl CheckTarget {
    /// Where a host with this address is checked.
    pub fn address_of(&self, host: &Address) -> Address {
        match (self.address.as_ref().unwrap_or(host), self.port) {
            (Address::Ip(ip), Some(port)) => Address::Ip((ip.ip(), port).into()),
            (address, _) => address.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_are_set_and_taken_back() {
        let health = ActiveHealth::default();
        assert!(health.set(HealthFlag::Failed, true) && !health.set(HealthFlag::Failed, true));
        assert!(health.has(HealthFlag::Failed) && !health.has(HealthFlag::TimedOut));
        health.fail_at_once();
        assert!(!health.has(HealthFlag::Excluded), "nobody checks it");
        assert!(health.set(HealthFlag::Failed, false) && !health.has(HealthFlag::Failed));
    }

    #[test]
    fn a_check_goes_where_the_endpoint_says() {
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let host = ip("10.0.0.1:80");
        let at = |address: Option<&str>, port| {
            CheckTarget { address: address.map(ip), port, ..CheckTarget::default() }.address_of(&host)
        };
        assert_eq!(at(None, None), host);
        assert_eq!(at(None, Some(81)), ip("10.0.0.1:81"));
        assert_eq!(at(Some("10.0.0.2:82"), None), ip("10.0.0.2:82"));
        assert_eq!(at(Some("10.0.0.2:82"), Some(83)), ip("10.0.0.2:83"));
    }
}
