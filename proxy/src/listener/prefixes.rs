//! Longest prefix match over IP addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use super::sorted_map::SortedMap;

/// A map from IP prefixes. Looking up costs one search for each prefix length in use.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    v4: ByLength<T>,
    v6: ByLength<T>,
}

type ByLength<T> = SortedMap<u8, SortedMap<IpNet, T>>;

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { v4: ByLength::default(), v6: ByLength::default() }
    }
}

impl<T: Default> Prefixes<T> {
    /// The value of exactly this prefix; host bits do not matter.
    pub(super) fn entry(&mut self, prefix: IpNet) -> &mut T {
        let prefix = prefix.trunc();
        let lengths = if prefix.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        lengths.entry(prefix.prefix_len()).entry(prefix)
    }
}

impl<T> Prefixes<T> {
    /// The value of the longest prefix that has `ip` in it.
    pub(super) fn longest(&self, ip: IpAddr) -> Option<&T> {
        let lengths = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().rev().find_map(|(length, values)| values.get(&IpNet::new(ip, *length).ok()?.trunc()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut prefixes = Prefixes::<&str>::default();
        for text in ["0.0.0.0/0", "10.1.2.3/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32"] {
            *prefixes.entry(text.parse().unwrap()) = text;
        }
        for (ip, prefix) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.9.9", "10.1.0.0/16"),
            ("10.9.9.9", "10.1.2.3/8"),
            ("11.0.0.1", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::/32"),
            ("::1", "::/0"),
        ] {
            assert_eq!(prefixes.longest(ip.parse().unwrap()), Some(&prefix), "{ip}");
        }
        assert_eq!(Prefixes::<()>::default().longest("10.1.2.3".parse().unwrap()), None);
    }
}
