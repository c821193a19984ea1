//! What to capture: the flags of `outrigger-proxy capture`, in the sense of Istio's `traffic.sidecar.istio.io/*` annotations.

use std::net::IpAddr;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use ipnet::{IpNet, Ipv4Net};

/// Flags of `outrigger-proxy capture`. What describes the capture is an environment variable too.
#[derive(Debug, Clone, Args)]
pub struct CaptureFlags {
    /// What is to be captured, and for whom
    #[command(flatten)]
    pub options: CaptureOptions,
    /// How to program the system's packet filter: the first of these that works
    #[arg(
        long,
        env = "OUTRIGGER_CAPTURE_BACKEND",
        value_enum,
        value_delimiter = ',',
        value_name = "BACKENDS",
        default_value = "auto"
    )]
    pub backend: Vec<BackendChoice>,
    /// Connect through the rules before saying that all is well
    #[arg(
        long,
        env = "OUTRIGGER_PROVE",
        action = ArgAction::Set,
        value_name = "BOOL",
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub prove: bool,
    /// Change nothing: say whether the rules are as they should be, and prove it
    #[arg(long, conflicts_with_all = ["undo", "dry_run"])]
    pub check: bool,
    /// Remove all that an earlier run made, in whichever packet filter
    #[arg(long)]
    pub undo: bool,
    /// Change nothing: print the commands and their input (for netlink those that would do the same)
    #[arg(long)]
    pub dry_run: bool,
}

/// What is to be captured. The lists are separated by commas; `*` means all, nothing means none.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CaptureOptions {
    /// Port of the sidecar that takes captured inbound connections
    #[arg(long, env = "OUTRIGGER_INBOUND_PORT", default_value_t = 15006, value_name = "PORT")]
    pub inbound_port: u16,
    /// Port of the sidecar that takes captured outbound connections
    #[arg(long, env = "OUTRIGGER_OUTBOUND_PORT", default_value_t = 15001, value_name = "PORT")]
    pub outbound_port: u16,
    /// Inbound ports to capture
    #[arg(long, env = "OUTRIGGER_INCLUDE_INBOUND_PORTS", default_value = "*", value_name = "PORTS")]
    pub include_inbound_ports: Selection<Port>,
    /// Inbound ports not to capture
    #[arg(long, env = "OUTRIGGER_EXCLUDE_INBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub exclude_inbound_ports: List<Port>,
    /// Outbound ports to capture whatever the address
    #[arg(long, env = "OUTRIGGER_INCLUDE_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub include_outbound_ports: Selection<Port>,
    /// Outbound ports not to capture
    #[arg(long, env = "OUTRIGGER_EXCLUDE_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub exclude_outbound_ports: List<Port>,
    /// Outbound addresses to capture, IPv4 and IPv6
    #[arg(long, env = "OUTRIGGER_INCLUDE_OUTBOUND_IP_RANGES", default_value = "*", value_name = "RANGES")]
    pub include_outbound_ip_ranges: Selection<Range>,
    /// Outbound addresses not to capture, IPv4 and IPv6
    #[arg(long, env = "OUTRIGGER_EXCLUDE_OUTBOUND_IP_RANGES", default_value = "", value_name = "RANGES")]
    pub exclude_outbound_ip_ranges: List<Range>,
    /// Network interfaces whose traffic is not captured, in neither direction
    #[arg(long, env = "OUTRIGGER_EXCLUDE_INTERFACES", default_value = "", value_name = "NAMES")]
    pub exclude_interfaces: List<Interface>,
    /// User of the sidecar: what it sends is not captured again
    #[arg(long, env = "PROXY_UID", default_value_t = 1337, value_name = "UID")]
    pub proxy_uid: u32,
    /// Group of the sidecar: what it sends is not captured again
    #[arg(long, env = "PROXY_GID", default_value_t = 1337, value_name = "GID")]
    pub proxy_gid: u32,
}

/// `--backend`. Several are tried in the order of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// All of these.
    Auto,
    /// The kernel's nf_tables without any program.
    Netlink,
    /// `nft`
    Nftables,
    /// `iptables` and `ip6tables` of the kernel's nf_tables.
    IptablesNft,
    /// `iptables` and `ip6tables` of the kernel's ip_tables.
    IptablesLegacy,
}

/// `*`, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    /// `*`
    All,
    /// These; empty means none.
    Some(Vec<T>),
}

impl<T> Selection<T> {
    /// Nothing is selected.
    pub fn is_none(&self) -> bool {
        matches!(self, Selection::Some(list) if list.is_empty())
    }
}

impl<T: FromStr<Err = String>> FromStr for Selection<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "*" => Ok(Selection::All),
            text => text.parse().map(|List(list)| Selection::Some(list)),
        }
    }
}

/// A list separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err = String>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(List)
    }
}

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub u16);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(port) if port != 0 => Ok(Port(port)),
            _ => Err(format!("'{text}' is not a port (1 to 65535)")),
        }
    }
}

/// Addresses: CIDR notation, or one address. Never loopback: what an application sends to itself there is not the mesh's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range(pub IpNet);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| format!("'{text}' is not a range of addresses (like 10.0.0.0/8 or fd00::/8)"))?;
        if range.addr().is_loopback() {
            return Err(format!("'{text}': loopback is never captured"));
        }
        Ok(Range(range.trunc()))
    }
}

/// Name of a network interface (at most 15 bytes, `IFNAMSIZ`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface(pub String);

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.@:".contains(c);
        if text.is_empty() || text.len() > 15 || !text.chars().all(plain) {
            return Err(format!("'{text}' is not the name of a network interface"));
        }
        Ok(Interface(text.to_owned()))
    }
}

/// What is loopback for IPv4; for IPv6 it is `::1` alone.
pub const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);

impl CaptureOptions {
    /// What the flags cannot say one by one.
    ///
    /// # Errors
    /// Names the flags that contradict each other.
    pub fn validate(&self) -> Result<(), String> {
        if self.inbound_port == 0 || self.outbound_port == 0 {
            return Err("--inbound-port and --outbound-port cannot be 0".to_owned());
        }
        if self.inbound_port == self.outbound_port {
            return Err(format!("--inbound-port and --outbound-port are both {}", self.inbound_port));
        }
        if self.proxy_uid == 0 {
            return Err("--proxy-uid 0: nothing that runs as root would be captured".to_owned());
        }
        if self.proxy_gid == 0 {
            return Err("--proxy-gid 0: nothing that runs in root's group would be captured".to_owned());
        }
        Ok(())
    }

    /// Whether some outbound traffic is captured.
    pub fn captures_outbound(&self) -> bool {
        !self.include_outbound_ports.is_none() || !self.include_outbound_ip_ranges.is_none()
    }

    /// Whether some inbound traffic is captured.
    pub fn captures_inbound(&self) -> bool {
        !self.include_inbound_ports.is_none()
    }
}

/// The options of a command line without flags.
#[cfg(test)]
pub(super) fn options(flags: &[&str]) -> CaptureOptions {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: CaptureOptions,
    }
    let line = std::iter::once("capture").chain(flags.iter().copied());
    <Line as clap::Parser>::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn lists_are_read_as_istio_writes_them() {
        assert_eq!("*".parse(), Ok(Selection::<Port>::All));
        assert_eq!("".parse(), Ok(Selection::<Port>::Some(vec![])));
        assert_eq!("80, 443,".parse(), Ok(Selection::Some(vec![Port(80), Port(443)])));
        let ranges: List<Range> = "10.1.2.3/8,fd00::/8,192.0.2.7".parse().unwrap();
        assert_eq!(
            ranges.0.iter().map(|r| r.0.to_string()).collect::<Vec<_>>(),
            ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]
        );
    }

    #[test]
    fn bad_values_are_told() {
        let port = |text: &str| text.parse::<Selection<Port>>().unwrap_err();
        assert_eq!(port("80,x"), "'x' is not a port (1 to 65535)");
        assert_eq!(port("*,80"), "'*' is not a port (1 to 65535)");
        assert_eq!(port("0"), "'0' is not a port (1 to 65535)");
        let range = |text: &str| text.parse::<List<Range>>().unwrap_err();
        assert!(range("10.0.0.0/33").contains("10.0.0.0/33"));
        assert!(range("*").contains("not a range"));
        assert!(range("127.0.0.1/32").contains("never captured"));
        assert!("eth0; drop".parse::<List<Interface>>().unwrap_err().contains("not the name"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(options(&[]).validate(), Ok(()));
        assert!(options(&["--inbound-port", "15001"]).validate().unwrap_err().contains("both 15001"));
        assert!(options(&["--proxy-uid", "0"]).validate().is_err());
        assert!(options(&["--proxy-gid", "0"]).validate().is_err());
    }
}
