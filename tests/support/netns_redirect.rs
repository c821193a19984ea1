//! One machine in a network namespace whose outgoing connections iptables redirects to a proxy on it, IPv4 and IPv6, as a pod with
//! a sidecar has it. The namespace lives as long as the thread that runs the test in it.
//!
//! The proxy is the one whose group is [`PROXY_GROUP`]: its own connections are let out. Needs root.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::{fs, panic, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::proxy::Launch;
use crate::tools::{require_tool, skip};

/// Group of the proxy: what it opens is not redirected.
const PROXY_GROUP: &str = "1337";
/// Where the proxy listens, on all addresses.
pub const CAPTURE_PORT: u16 = 15001;
/// Addresses of the machine itself: upstreams listen on them.
pub const OWNED: [IpAddr; 2] = [ip4(10, 99, 0, 1), ip6(0x99, 1)];
/// Addresses that nobody has, of one "service".
pub const UNOWNED: [IpAddr; 2] = [ip4(10, 98, 0, 1), ip6(0x98, 1)];

const fn ip4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
}

const fn ip6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host))
}

/// Runs `test` on a thread of its own in a new namespace. Child processes and threads that it starts are in there too.
///
/// Without root or a tool the calling test is reported as skipped.
pub fn redirected(test: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        return skip("network namespaces need root");
    }
    let tools = ["ip", "iptables", "ip6tables", "setpriv"].map(require_tool);
    let [Some(ip), Some(iptables), Some(ip6tables), Some(_)] = tools else { return };
    let name = thread::current().name().unwrap_or("test").to_owned();
    let run = || {
        enter_new_namespace(&ip);
        set_up(&ip, &iptables, &ip6tables);
        test();
    };
    let outcome = thread::scope(|scope| {
        thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread").join()
    });
    if let Err(reason) = outcome {
        panic::resume_unwind(reason);
    }
}

/// Lets what the proxy opens pass.
#[must_use]
pub fn as_proxy(launch: Launch) -> Launch {
    let group = format!("--regid={PROXY_GROUP}");
    launch.under(&["setpriv", &group, "--clear-groups"].map(OsStr::new))
}

/// Moves the calling thread. The name is gone at once, so that nothing is left behind whatever happens.
fn enter_new_namespace(ip: &PathBuf) {
    let name = format!("ogr-{}-{:08x}", std::process::id(), fastrand::u32(..));
    run(Command::new(ip).args(["netns", "add", &name]));
    let namespace = fs::File::open(format!("/run/netns/{name}")).expect("a new namespace");
    run(Command::new(ip).args(["netns", "delete", &name]));
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
}

fn set_up(ip: &PathBuf, iptables: &PathBuf, ip6tables: &PathBuf) {
    let ip = |words: &str| run(Command::new(ip).args(words.split(' ')));
    ip("link set lo up");
    for (owned, unowned, iptables) in [(OWNED[0], UNOWNED[0], iptables), (OWNED[1], UNOWNED[1], ip6tables)] {
        let (owned_bits, net_bits) = if owned.is_ipv4() { (32, 16) } else { (128, 64) };
        ip(&format!(
            "address add {owned}/{owned_bits} dev lo{}",
            if owned.is_ipv4() { "" } else { " nodad" }
        ));
        // A route, so that connecting gets as far as the rules.
        let family = if owned.is_ipv4() { "-4" } else { "-6" };
        let net = match unowned {
            IpAddr::V4(_) => "10.98.0.0",
            IpAddr::V6(_) => "fd00:98::",
        };
        ip(&format!("{family} route add {net}/{net_bits} dev lo"));
        let rule = |words: &str| {
            let words = format!("-w -t nat -A OUTPUT -p tcp {words}");
            run(Command::new(iptables).args(words.split(' ')));
        };
        rule(&format!("-m owner --gid-owner {PROXY_GROUP} -j RETURN"));
        for captured in [format!("{owned}/{owned_bits}"), format!("{net}/{net_bits}")] {
            rule(&format!("-d {captured} -j REDIRECT --to-ports {CAPTURE_PORT}"));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
