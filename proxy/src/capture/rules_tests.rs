//! What becomes of a connection, by a reader of the rules that knows no packet filter.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::options::options;
use super::*;

/// The first packet of a connection.
#[derive(Debug, Clone, Copy)]
struct Packet {
    from: &'static str,
    to: &'static str,
    port: u16,
    interface: &'static str,
    user: u32,
    group: u32,
}

/// From outside to a port of the pod.
fn incoming(port: u16) -> Packet {
    Packet { from: "10.9.9.9", to: "10.1.1.1", port, interface: "eth0", user: u32::MAX, group: u32::MAX }
}

/// From the application to somewhere outside.
fn outgoing(to: &'static str, port: u16) -> Packet {
    Packet { from: "10.1.1.1", to, port, interface: "eth0", user: 1000, group: 1000 }
}

impl Packet {
    fn by(self, user: u32, group: u32) -> Self {
        Packet { user, group, ..self }
    }

    fn through(self, interface: &'static str) -> Self {
        Packet { interface, ..self }
    }

    fn from(self, from: &'static str) -> Self {
        Packet { from, ..self }
    }

    fn meets(&self, condition: &Match, incoming: bool) -> bool {
        let (from, to): (IpAddr, IpAddr) = (self.from.parse().unwrap(), self.to.parse().unwrap());
        match condition {
            Match::InInterface(name) => incoming && self.interface == name,
            Match::OutInterface(name) => !incoming && self.interface == name,
            Match::Source(net) => net.contains(&from),
            Match::Destination(net) => net.contains(&to),
            Match::DestinationNot(net) => !net.contains(&to),
            Match::Port(port) => self.port == *port,
            Match::User(user) => self.user == *user,
            Match::Group(group) => self.group == *group,
        }
    }
}

/// Where the rules send it; `None`: where it wanted to go.
fn decide(flags: &[&str], packet: Packet, incoming: bool) -> Option<u16> {
    let rules = Rules::new(&options(flags));
    let family = Family::of(packet.to.parse().unwrap());
    let first = |chain: &[Rule], from: usize| {
        let fits = |rule: &Rule| {
            rule.is_for(family) && rule.matches.iter().all(|condition| packet.meets(condition, incoming))
        };
        (from..chain.len()).find(|at| fits(&chain[*at])).map(|at| (at, chain[at].verdict))
    };
    let inbound = || match first(&rules.inbound, 0) {
        Some((_, Verdict::Redirect(port))) => Some(port),
        _ => None,
    };
    if incoming {
        return inbound();
    }
    let mut from = 0;
    loop {
        match first(&rules.outbound, from) {
            None | Some((_, Verdict::Return)) => return None,
            Some((_, Verdict::Redirect(port))) => return Some(port),
            Some((at, Verdict::Inbound)) => match inbound() {
                Some(port) => return Some(port),
                None => from = at + 1,
            },
        }
    }
}

fn goes_in(flags: &[&str], port: u16) -> Option<u16> {
    decide(flags, incoming(port), true)
}

fn goes_out(flags: &[&str], packet: Packet) -> Option<u16> {
    decide(flags, packet, false)
}

const V6: &str = "2001:db8::7";

#[test]
fn by_default_all_is_captured_but_the_ports_of_the_sidecar() {
    for port in [1, 80, 8080, 15001, 65535] {
        assert_eq!(goes_in(&[], port), Some(15006), "{port}");
    }
    for port in [15006, 15020, 15021, 15090] {
        assert_eq!(goes_in(&[], port), None, "{port}");
    }
    for to in ["10.2.2.2", "93.184.216.34", V6] {
        assert_eq!(goes_out(&[], outgoing(to, 443)), Some(15001), "{to}");
    }
}

#[test]
fn other_ports_of_the_sidecar_are_meant() {
    let flags = ["--inbound-port", "25006", "--outbound-port", "25001"];
    assert_eq!((goes_in(&flags, 80), goes_in(&flags, 25006)), (Some(25006), None));
    assert_eq!(goes_in(&flags, 15006), Some(25006));
    assert_eq!(goes_out(&flags, outgoing("10.2.2.2", 80)), Some(25001));
}

#[test]
fn inbound_ports_can_be_chosen() {
    let excluded = ["--exclude-inbound-ports", "22,23"];
    assert_eq!(
        (goes_in(&excluded, 22), goes_in(&excluded, 23), goes_in(&excluded, 24)),
        (None, None, Some(15006))
    );
    let included = ["--include-inbound-ports", "80,81", "--exclude-inbound-ports", "81"];
    assert_eq!(
        (goes_in(&included, 80), goes_in(&included, 81), goes_in(&included, 82)),
        (Some(15006), None, None)
    );
    assert_eq!(goes_in(&["--include-inbound-ports", ""], 80), None);
    assert_eq!(goes_in(&["--include-inbound-ports", "15021"], 15021), None);
}

#[test]
fn outbound_ranges_and_ports_can_be_chosen() {
    let ranges = ["--include-outbound-ip-ranges", "10.0.0.0/8,2001:db8::/32"];
    assert_eq!(goes_out(&ranges, outgoing("10.2.2.2", 80)), Some(15001));
    assert_eq!(goes_out(&ranges, outgoing(V6, 80)), Some(15001));
    assert_eq!(goes_out(&ranges, outgoing("11.2.2.2", 80)), None);
    let ports = ["--include-outbound-ip-ranges", "", "--include-outbound-ports", "80"];
    assert_eq!(goes_out(&ports, outgoing("10.2.2.2", 80)), Some(15001));
    assert_eq!(goes_out(&ports, outgoing(V6, 80)), Some(15001));
    assert_eq!(goes_out(&ports, outgoing("10.2.2.2", 81)), None);
    let excluded =
        ["--exclude-outbound-ip-ranges", "10.0.0.0/8,2001:db8::/32", "--exclude-outbound-ports", "443"];
    assert_eq!(goes_out(&excluded, outgoing("10.2.2.2", 80)), None);
    assert_eq!(goes_out(&excluded, outgoing(V6, 80)), None);
    assert_eq!(goes_out(&excluded, outgoing("11.2.2.2", 443)), None);
    assert_eq!(goes_out(&excluded, outgoing("11.2.2.2", 80)), Some(15001));
    // An excluded range is excluded for included ports too.
    let both = ["--include-outbound-ports", "80", "--exclude-outbound-ip-ranges", "10.0.0.0/8"];
    assert_eq!(goes_out(&both, outgoing("10.2.2.2", 80)), None);
}

#[test]
fn an_excluded_interface_is_left_alone_both_ways() {
    let flags = ["--exclude-interfaces", "net1"];
    assert_eq!(decide(&flags, incoming(80).through("net1"), true), None);
    assert_eq!(decide(&flags, incoming(80), true), Some(15006));
    assert_eq!(goes_out(&flags, outgoing("10.2.2.2", 80).through("net1")), None);
    assert_eq!(goes_out(&flags, outgoing("10.2.2.2", 80)), Some(15001));
}

#[test]
fn what_the_sidecar_sends_is_not_captured_again() {
    assert_eq!(goes_out(&[], outgoing("10.2.2.2", 80).by(1337, 1337)), None);
    assert_eq!(goes_out(&[], outgoing("10.2.2.2", 80).by(1337, 0)), None);
    assert_eq!(goes_out(&[], outgoing(V6, 80).by(0, 1337)), None);
    let other = ["--proxy-uid", "2102", "--proxy-gid", "2103"];
    assert_eq!(goes_out(&other, outgoing("10.2.2.2", 80).by(2102, 5)), None);
    assert_eq!(goes_out(&other, outgoing("10.2.2.2", 80).by(5, 2103)), None);
    assert_eq!(goes_out(&other, outgoing("10.2.2.2", 80).by(1337, 1337)), Some(15001));
}

#[test]
fn a_pod_that_calls_itself_passes_its_sidecar_twice_and_no_more() {
    let own = |port| outgoing("10.1.1.1", port).through("lo");
    // The application to its service's address: to the sidecar, as any call.
    assert_eq!(goes_out(&[], outgoing("10.96.0.1", 80)), Some(15001));
    // The sidecar, which chose this pod as the endpoint: to its own inbound listener, unless that is what it dials.
    assert_eq!(goes_out(&[], own(8080).by(1337, 1337)), Some(15006));
    assert_eq!(goes_out(&[], own(15006).by(1337, 1337)), None);
    // An excluded port is excluded for this caller too.
    assert_eq!(goes_out(&["--exclude-inbound-ports", "8080"], own(8080).by(1337, 1337)), None);
    // The sidecar to the application: not once more.
    for (from, to) in [("127.0.0.6", "10.1.1.1"), ("::6", V6), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let packet = outgoing(to, 8080).from(from).through("lo").by(1337, 1337);
        assert_eq!(goes_out(&[], packet), None, "{from} {to}");
    }
}

#[test]
fn an_application_reaches_itself_directly() {
    for to in ["127.0.0.1", "127.8.8.8", "10.1.1.1", "::1", V6] {
        assert_eq!(goes_out(&[], outgoing(to, 8080).through("lo")), None, "{to}");
    }
}

#[test]
fn inbound_capture_can_be_proven_from_inside() {
    for (user, group) in [(0, 0), (1000, 1000), (1337, 1337)] {
        for to in ["127.0.0.6", "::6"] {
            let probe = outgoing(to, 8080)
                .through("lo")
                .from(if to == "::6" { "::1" } else { "127.0.0.1" })
                .by(user, group);
            assert_eq!(goes_out(&[], probe), Some(15006), "{to} by {user}");
            assert_eq!(goes_out(&["--include-inbound-ports", "80"], probe), None);
        }
    }
}

#[test]
fn the_fingerprint_follows_the_rules() {
    let comment = |flags: &[&str]| Rules::new(&options(flags)).hook_comment();
    assert_eq!(comment(&[]), comment(&[]));
    assert_ne!(comment(&[]), comment(&["--exclude-inbound-ports", "22"]));
    // The packet filters quote and shorten what is not plain and short.
    let flags =
        ["--exclude-interfaces", "a", "--exclude-outbound-ports", "1", "--include-outbound-ports", "1"];
    let rules = Rules::new(&options(&flags));
    for rule in rules.inbound.iter().chain(&rules.outbound) {
        let comment = rules.comment(rule.why);
        assert!(comment.len() < 120 && !comment.contains(['"', '\'', '\\', '$']), "{comment}");
    }
}
