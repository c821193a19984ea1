//! A pod whose connections iptables redirects to a proxy in it, IPv4 and IPv6: as a sidecar has it, with nothing but the
//! redirection, so that a real Envoy can be in the sidecar's place. Both directions are redirected to one port.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netns::{NetPod, Network};
use crate::proxy::Launch;
use crate::tools::require_tool;

/// Group of the proxy: its own connections are let out.
const PROXY_GROUP: &str = "1337";
/// Where the proxy listens, on all addresses.
pub const CAPTURE_PORT: u16 = 15001;
/// Addresses of the pod itself, on which upstreams can listen.
pub const OWNED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1))];
/// Addresses that nobody has, as those of a service.
pub const UNOWNED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 98, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 1))];

/// Who is around the test.
#[derive(Debug)]
pub struct Pods {
    /// Addresses by which the caller reaches the pod of the test.
    pub callee: [IpAddr; 2],
    caller: NetPod,
}

impl Pods {
    /// Does something in another pod, without a proxy.
    pub fn in_caller<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.caller.enter(0, f)
    }
}

/// Runs `test` in such a pod. Child processes and threads that it starts are in there too.
///
/// Without root or a tool the calling test is reported as skipped.
pub fn redirected(test: impl FnOnce(&Pods) + Send) {
    let Some(mut network) = Network::new() else { return };
    let tools = ["iptables", "ip6tables", "setpriv"].map(require_tool);
    let [Some(iptables), Some(ip6tables), Some(_)] = tools else { return };
    let pod = network.pod();
    for (family, iptables) in [iptables, ip6tables].iter().enumerate() {
        let (owned, unowned) = (OWNED[family], UNOWNED[family]);
        pod.ip(&format!("address add {owned} dev lo"));
        // To nobody at all: a packet to it is lost, not refused.
        pod.ip(&format!("route add {unowned} dev lo"));
        let rule = |words: &str| {
            pod.sh(&format!("{} -w -t nat -A {words}", iptables.display()));
        };
        rule(&format!("OUTPUT -p tcp -m owner --gid-owner {PROXY_GROUP} -j RETURN"));
        for captured in [owned, unowned] {
            rule(&format!("OUTPUT -p tcp -d {captured} -j REDIRECT --to-ports {CAPTURE_PORT}"));
        }
        rule(&format!("PREROUTING -p tcp -j REDIRECT --to-ports {CAPTURE_PORT}"));
    }
    let pods = Pods { callee: pod.ips(), caller: network.pod() };
    pod.enter(0, || test(&pods));
}

/// Lets what the proxy opens pass.
#[must_use]
pub fn as_proxy(launch: Launch) -> Launch {
    let group = format!("--regid={PROXY_GROUP}");
    launch.under(&["setpriv", &group, "--clear-groups"].map(OsStr::new))
}
