//! Which of a Pod's traffic is captured: Istio's port and address lists, checked, as flags of `outrigger-proxy capture`.

use ipnet::IpNet;
use serde::Deserialize;

use crate::api::Refusal;

/// Which traffic is captured, in Istio's notation: `*`, or a list with commas.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Capture {
    /// Ports whose inbound traffic is captured. Default: `*`.
    pub include_inbound_ports: String,
    /// Ports whose inbound traffic is not captured. Default: none.
    pub exclude_inbound_ports: String,
    /// Ports whose outbound traffic is captured whatever its address. Default: none.
    pub include_outbound_ports: String,
    /// Ports whose outbound traffic is not captured. Default: none.
    pub exclude_outbound_ports: String,
    /// Address ranges (CIDR) to which outbound traffic is captured. Default: `*`.
    #[serde(rename = "includeOutboundIPRanges")]
    pub include_outbound_ip_ranges: String,
    /// Address ranges (CIDR) to which outbound traffic is not captured. Default: none.
    #[serde(rename = "excludeOutboundIPRanges")]
    pub exclude_outbound_ip_ranges: String,
    /// Network interfaces whose traffic is not captured. Default: none.
    pub exclude_interfaces: String,
}

impl Default for Capture {
    fn default() -> Self {
        let (all, none) = (|| "*".to_owned(), String::new);
        Self {
            include_inbound_ports: all(),
            exclude_inbound_ports: none(),
            include_outbound_ports: none(),
            exclude_outbound_ports: none(),
            include_outbound_ip_ranges: all(),
            exclude_outbound_ip_ranges: none(),
            exclude_interfaces: none(),
        }
    }
}

impl Capture {
    /// # Errors
    /// The first list that cannot be read.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (field, checked) in [
            ("includeInboundPorts", all_or(&self.include_inbound_ports, ports)),
            ("excludeInboundPorts", ports(&self.exclude_inbound_ports)),
            ("includeOutboundPorts", all_or(&self.include_outbound_ports, ports)),
            ("excludeOutboundPorts", ports(&self.exclude_outbound_ports)),
            ("includeOutboundIPRanges", all_or(&self.include_outbound_ip_ranges, ranges)),
            ("excludeOutboundIPRanges", ranges(&self.exclude_outbound_ip_ranges)),
            ("excludeInterfaces", interfaces(&self.exclude_interfaces)),
        ] {
            checked.map_err(|reason| Refusal::new(field, reason))?;
        }
        Ok(())
    }

    /// The flags that differ from the command's own defaults.
    pub(super) fn flags(&self) -> Vec<String> {
        let default = Self::default();
        let pairs = [
            ("include-inbound-ports", &self.include_inbound_ports, &default.include_inbound_ports),
            ("exclude-inbound-ports", &self.exclude_inbound_ports, &default.exclude_inbound_ports),
            ("include-outbound-ports", &self.include_outbound_ports, &default.include_outbound_ports),
            ("exclude-outbound-ports", &self.exclude_outbound_ports, &default.exclude_outbound_ports),
            (
                "include-outbound-ip-ranges",
                &self.include_outbound_ip_ranges,
                &default.include_outbound_ip_ranges,
            ),
            (
                "exclude-outbound-ip-ranges",
                &self.exclude_outbound_ip_ranges,
                &default.exclude_outbound_ip_ranges,
            ),
            ("exclude-interfaces", &self.exclude_interfaces, &default.exclude_interfaces),
        ];
        let changed = pairs.into_iter().filter(|(_, value, default)| value != default);
        changed.map(|(flag, value, _)| format!("--{flag}={}", without_spaces(value))).collect()
    }
}

fn without_spaces(list: &str) -> String {
    list.chars().filter(|c| !c.is_whitespace()).collect()
}

fn all_or(text: &str, check: fn(&str) -> Result<(), String>) -> Result<(), String> {
    if text.trim() == "*" { Ok(()) } else { check(text) }
}

fn elements(text: &str) -> impl Iterator<Item = &str> {
    let all = text.split(',').map(str::trim);
    // An empty text is an empty list, but an empty element of a longer one is a mistake.
    all.filter(move |_| !text.trim().is_empty())
}

fn ports(text: &str) -> Result<(), String> {
    match elements(text).find(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        None => Ok(()),
        Some(wrong) => Err(format!("{wrong:?} is not a port (1 to 65535); a list is written 80,443")),
    }
}

fn ranges(text: &str) -> Result<(), String> {
    for text in elements(text) {
        let range: IpNet = text
            .parse()
            .map_err(|_| format!("{text:?} is not an address range such as 10.0.0.0/8 or fd00::/8"))?;
        if range.addr().is_loopback() {
            return Err(format!("{text:?}: loopback is never captured; an empty list means none"));
        }
    }
    Ok(())
}

fn interfaces(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
    // IFNAMSIZ, without the final zero.
    match elements(text).find(|name| !(1..=15).contains(&name.len()) || !name.chars().all(allowed)) {
        None => Ok(()),
        Some(wrong) => Err(format!("{wrong:?} is not the name of a network interface")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for good in ["", " ", "80", "80, 443", "65535"] {
            assert_eq!(ports(good), Ok(()), "{good:?}");
        }
        for bad in ["0", "65536", "http", "80,", ",", "80 443", "*", "-1"] {
            assert!(ports(bad).is_err(), "{bad:?}");
        }
        for good in ["", "10.0.0.0/8", "10.0.0.0/8,fd00::/8", "0.0.0.0/0"] {
            assert_eq!(ranges(good), Ok(()), "{good:?}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "*", "10.0.0.0/8;", "host/8", "127.0.0.1/32", "::1/128"] {
            assert!(ranges(bad).is_err(), "{bad:?}");
        }
        assert_eq!(interfaces("eth0,docker0"), Ok(()));
        assert!(interfaces("eth0 --undo").is_err() && interfaces("a-very-long-interface").is_err());
    }

    #[test]
    fn only_what_differs_becomes_a_flag() {
        assert_eq!(Capture::default().flags(), Vec::<String>::new());
        let capture = Capture {
            include_inbound_ports: String::new(),
            exclude_outbound_ports: "3306, 5432".to_owned(),
            ..Capture::default()
        };
        assert_eq!(capture.flags(), ["--include-inbound-ports=", "--exclude-outbound-ports=3306,5432"]);
    }
}
