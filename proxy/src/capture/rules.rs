//! The rules themselves, in no packet filter's language: two chains of the nat table, for TCP only. Every new connection is
//! decided once; the first rule that matches decides.
//!
//! They mean what Istio's mean (tools/istio-iptables), with one difference: what the sidecar sends to its own pod goes through
//! the very chain that judges connections from outside, so a pod that calls itself is treated like any other caller.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::options::{CaptureOptions, Interface, LOOPBACK_V4, Port, Range, Selection};

/// Ports of the sidecar that are for the kubelet, for Prometheus and for people, besides the inbound listener's own.
pub const OWN_PORTS: [u16; 3] = [15020, 15021, 15090];

/// Source of what the sidecar sends to its own application (Istio's `InboundPassthroughBindIpv4`).
pub const TO_APPLICATION_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6: an address that the capture gives to the loopback interface.
pub const TO_APPLICATION_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Which packets a rule can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A condition; a rule's conditions all have to hold. The protocol is TCP in every rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It came in here.
    InInterface(String),
    /// It goes out here.
    OutInterface(String),
    /// It comes from here.
    Source(IpNet),
    /// It goes there.
    Destination(IpNet),
    /// It goes elsewhere.
    DestinationNot(IpNet),
    /// To this port.
    Port(u16),
    /// A process of this user sent it.
    User(u32),
    /// A process of this group sent it.
    Group(u32),
}

impl Match {
    fn family(&self) -> Option<Family> {
        match self {
            Match::Source(net) | Match::Destination(net) | Match::DestinationNot(net) => {
                Some(Family::of(net.addr()))
            }
            _ => None,
        }
    }
}

/// What happens to a connection that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not captured by this chain.
    Return,
    /// It goes to this local port instead.
    Redirect(u16),
    /// The inbound chain decides; where it returns the next rule is next.
    Inbound,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Why it is there, for those who list the rules. No quotes, at most 80 bytes.
    pub why: &'static str,
    /// When it applies.
    pub matches: Vec<Match>,
    /// What it does.
    pub verdict: Verdict,
}

impl Rule {
    /// Whether packets of this family can match it.
    pub fn is_for(&self, family: Family) -> bool {
        self.matches.iter().filter_map(Match::family).all(|own| own == family)
    }
}

/// All rules of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Meets what comes into the pod (hook prerouting).
    pub inbound: Vec<Rule>,
    /// Meets what the pod sends (hook output).
    pub outbound: Vec<Rule>,
    fingerprint: String,
}

impl Rules {
    /// The rules for these options.
    pub fn new(options: &CaptureOptions) -> Self {
        let (inbound, outbound) = (inbound(options), outbound(options));
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!("{inbound:?}{outbound:?}").as_bytes(),
        );
        let fingerprint = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { inbound, outbound, fingerprint }
    }

    /// What is written beside a rule: whose it is, of which set, and why. A set that is complete and in order by its comments is
    /// right.
    pub fn comment(&self, why: &str) -> String {
        format!("outrigger {}: {why}", self.fingerprint)
    }

    /// Comment of the two rules that lead into the chains.
    pub fn hook_comment(&self) -> String {
        self.comment("all TCP")
    }

    /// How many rules there are, for people.
    pub fn count(&self) -> usize {
        self.inbound.len() + self.outbound.len()
    }
}

fn rule(why: &'static str, matches: impl Into<Vec<Match>>, verdict: Verdict) -> Rule {
    Rule { why, matches: matches.into(), verdict }
}

fn loopback() -> Match {
    Match::OutInterface("lo".to_owned())
}

fn inbound(options: &CaptureOptions) -> Vec<Rule> {
    let mut rules = Vec::new();
    for Interface(name) in &options.exclude_interfaces.0 {
        rules.push(rule("excluded interface", [Match::InInterface(name.clone())], Verdict::Return));
    }
    // Peers dial the inbound listener itself: it needs no redirection.
    for port in [options.inbound_port].into_iter().chain(OWN_PORTS) {
        rules.push(rule("port of the sidecar", [Match::Port(port)], Verdict::Return));
    }
    for Port(port) in &options.exclude_inbound_ports.0 {
        rules.push(rule("excluded inbound port", [Match::Port(*port)], Verdict::Return));
    }
    let redirect = Verdict::Redirect(options.inbound_port);
    match &options.include_inbound_ports {
        Selection::All => rules.push(rule("inbound", [], redirect)),
        Selection::Some(ports) => rules.extend(
            ports.iter().map(|Port(port)| rule("included inbound port", [Match::Port(*port)], redirect)),
        ),
    }
    rules
}

fn outbound(options: &CaptureOptions) -> Vec<Rule> {
    let mut rules = Vec::new();
    for Interface(name) in &options.exclude_interfaces.0 {
        rules.push(rule("excluded interface", [Match::OutInterface(name.clone())], Verdict::Return));
    }
    // Before the calls of a pod to itself, as in Istio.
    for Port(port) in &options.exclude_outbound_ports.0 {
        rules.push(rule("excluded outbound port", [Match::Port(*port)], Verdict::Return));
    }
    let to_application =
        [IpNet::from(IpAddr::from(TO_APPLICATION_V4)), IpAddr::from(TO_APPLICATION_V6).into()];
    for address in to_application {
        let why = "sidecar to its application";
        rules.push(rule(why, [loopback(), Match::Source(address)], Verdict::Return));
    }
    // Nobody listens there, so that capture can be proven by anyone in the pod, whatever its user.
    for address in to_application {
        let why = "proof of inbound capture";
        rules.push(rule(why, [loopback(), Match::Destination(address)], Verdict::Inbound));
    }
    for net in [IpNet::from(LOOPBACK_V4), IpAddr::from(Ipv6Addr::LOCALHOST).into()] {
        let matches = [loopback(), Match::DestinationNot(net), Match::User(options.proxy_uid)];
        rules.push(rule("sidecar to its own pod: a pod calls itself", matches, Verdict::Inbound));
    }
    rules.push(rule("application to itself", [loopback()], Verdict::Return));
    rules.push(rule("sent by the sidecar", [Match::User(options.proxy_uid)], Verdict::Return));
    rules.push(rule("sent by the sidecar", [Match::Group(options.proxy_gid)], Verdict::Return));
    for Range(range) in &options.exclude_outbound_ip_ranges.0 {
        rules.push(rule("excluded outbound range", [Match::Destination(*range)], Verdict::Return));
    }
    let redirect = Verdict::Redirect(options.outbound_port);
    match &options.include_outbound_ports {
        Selection::All => rules.push(rule("outbound", [], redirect)),
        Selection::Some(ports) => rules.extend(
            ports.iter().map(|Port(port)| rule("included outbound port", [Match::Port(*port)], redirect)),
        ),
    }
    match &options.include_outbound_ip_ranges {
        Selection::All => rules.push(rule("outbound", [], redirect)),
        Selection::Some(ranges) => rules.extend(
            ranges
                .iter()
                .map(|Range(range)| rule("included outbound range", [Match::Destination(*range)], redirect)),
        ),
    }
    rules
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
