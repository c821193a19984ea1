//! Virtual host look-up by authority: hash maps, so the cost does not grow with the number of domains.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

/// Domains of a route configuration → index of the virtual host, by Envoy's precedence.
#[derive(Debug, Default)]
pub struct DomainIndex {
    exact: FxHashMap<Box<str>, usize>,
    /// `*.example.com`, keyed by what follows the star; longest first.
    suffixes: Vec<(usize, FxHashMap<Box<str>, usize>)>,
    /// `example.*`, keyed by what precedes the star; longest first.
    prefixes: Vec<(usize, FxHashMap<Box<str>, usize>)>,
    any: Option<usize>,
}

impl DomainIndex {
    /// Builds the index from the domains of each virtual host, in order.
    ///
    /// # Errors
    /// A duplicate or malformed domain; the text is Envoy's.
    pub fn build<'a, D>(virtual_hosts: impl IntoIterator<Item = D>) -> Result<Self, String>
    where
        D: IntoIterator<Item = &'a str>,
    {
        let mut index = Self::default();
        for (i, domains) in virtual_hosts.into_iter().enumerate() {
            for domain in domains {
                index.add(&domain.to_ascii_lowercase(), i)?;
            }
        }
        for wildcards in [&mut index.suffixes, &mut index.prefixes] {
            wildcards.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        }
        Ok(index)
    }

    fn add(&mut self, domain: &str, virtual_host: usize) -> Result<(), String> {
        if domain == "*" {
            if self.any.replace(virtual_host).is_some() {
                return Err("Only a single wildcard domain is permitted".into());
            }
            return Ok(());
        }
        let (map, key) = if let Some(suffix) = domain.strip_prefix('*') {
            (Self::of_length(&mut self.suffixes, suffix.len()), suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            (Self::of_length(&mut self.prefixes, prefix.len()), prefix)
        } else {
            (&mut self.exact, domain)
        };
        match map.insert(key.into(), virtual_host) {
            None => Ok(()),
            Some(_) => Err(format!(
                "Only unique values for domains are permitted. Duplicate entry of domain {domain}"
            )),
        }
    }

    fn of_length(
        wildcards: &mut Vec<(usize, FxHashMap<Box<str>, usize>)>,
        len: usize,
    ) -> &mut FxHashMap<Box<str>, usize> {
        let at = wildcards.iter().position(|(l, _)| *l == len).unwrap_or_else(|| {
            wildcards.push((len, FxHashMap::default()));
            wildcards.len() - 1
        });
        &mut wildcards[at].1
    }

    /// Index of the virtual host for `authority`; host names compare without case.
    pub fn find(&self, authority: &str, ignore_port: bool) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let authority = if ignore_port { without_port(authority) } else { authority };
        let host: Cow<'_, str> = if authority.bytes().any(|b| b.is_ascii_uppercase()) {
            authority.to_ascii_lowercase().into()
        } else {
            authority.into()
        };
        if let Some(i) = self.exact.get(&*host) {
            return Some(*i);
        }
        let suffix = |len: usize| host.get(host.len() - len..);
        let prefix = |len: usize| host.get(..len);
        longest(&self.suffixes, host.len(), suffix)
            .or_else(|| longest(&self.prefixes, host.len(), prefix))
            .or(self.any)
    }
}

/// The star stands for at least one character, so only wildcards shorter than the host can match.
fn longest<'h>(
    wildcards: &[(usize, FxHashMap<Box<str>, usize>)],
    host_len: usize,
    part: impl Fn(usize) -> Option<&'h str>,
) -> Option<usize> {
    wildcards
        .iter()
        .filter(|(len, _)| *len < host_len)
        .find_map(|(len, map)| part(*len).and_then(|p| map.get(p)).copied())
}

/// `host:port` → `host`, `[v6]:port` → `[v6]`; anything else is left alone.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon)
            if authority[colon + 1..].bytes().all(|b| b.is_ascii_digit())
                && (!authority[..colon].contains(':') || authority[..colon].ends_with(']')) =>
        {
            &authority[..colon]
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn index(domains: &[&[&'static str]]) -> DomainIndex {
        DomainIndex::build(domains.iter().map(|d| d.iter().copied())).unwrap()
    }

    #[test]
    fn precedence_is_exact_suffix_prefix_any() {
        let i = index(&[&["*"], &["www.*"], &["*.example.com"], &["*.a.example.com"], &["www.example.com"]]);
        for (host, expected) in [
            ("www.example.com", 4),
            ("WWW.Example.COM", 4),
            ("x.a.example.com", 3),
            ("x.example.com", 2),
            (".example.com", 0),
            ("www.other", 1),
            ("www.", 0),
            ("other", 0),
            ("", 0),
        ] {
            assert_eq!(i.find(host, false), Some(expected), "{host}");
        }
    }

    #[test]
    fn ports_count_unless_ignored() {
        let i = index(&[&["a"], &["a:80"]]);
        assert_eq!(i.find("a:80", false), Some(1));
        assert_eq!(i.find("a:81", false), None);
        assert_eq!(i.find("a:81", true), Some(0));
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("::1"), "::1");
    }

    #[test]
    fn duplicates_are_refused() {
        assert!(DomainIndex::build([["a"], ["A"]]).unwrap_err().contains("Duplicate entry of domain a"));
        assert!(DomainIndex::build([["*"], ["*"]]).is_err());
        assert!(DomainIndex::build([["*.x"], ["*.x"]]).is_err());
    }
}
