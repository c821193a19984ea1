//! The letter case of field names in HTTP/1: as they came, for clusters and listeners that keep it, or by a rule.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};

/// The names of a message as its sender wrote them, in order; an extension of requests and responses.
#[derive(Debug, Clone, Default)]
pub(super) struct NameCase(HeaderMap<Bytes>);

impl NameCase {
    pub(super) fn note(&mut self, name: &HeaderName, written: Bytes) {
        self.0.append(name.clone(), written);
    }

    /// How the n-th field of this name was written.
    fn written(&self, name: &HeaderName, nth: usize) -> Option<&Bytes> {
        self.0.get_all(name).iter().nth(nth)
    }
}

/// How names are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    /// As they came, where that is known.
    pub(super) kept: Option<&'a NameCase>,
    /// Else with a capital letter at the beginning and after each hyphen.
    pub(super) proper: bool,
}

impl Names<'_> {
    /// Writes the name of the n-th field with it.
    pub(super) fn write(self, out: &mut BytesMut, name: &HeaderName, nth: usize) {
        match self.kept.and_then(|kept| kept.written(name, nth)) {
            Some(written) => out.extend_from_slice(written),
            None if self.proper => write_proper(out, name.as_str()),
            None => out.extend_from_slice(name.as_str().as_bytes()),
        }
    }

    /// Whether names are not just written as they are kept here.
    pub(super) fn are_special(self) -> bool {
        self.kept.is_some() || self.proper
    }
}

fn write_proper(out: &mut BytesMut, name: &str) {
    let mut begins = true;
    for byte in name.bytes() {
        out.put_u8(if begins { byte.to_ascii_uppercase() } else { byte });
        begins = byte == b'-';
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HOST};

    use super::*;

    #[test]
    fn names_are_written_as_they_came_or_by_the_rule() {
        let mut kept = NameCase::default();
        kept.note(&ACCEPT, Bytes::from_static(b"ACCEPT"));
        kept.note(&ACCEPT, Bytes::from_static(b"aCCept"));
        let written = |kept, proper, name: &HeaderName, nth| {
            let mut out = BytesMut::new();
            Names { kept, proper }.write(&mut out, name, nth);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(written(Some(&kept), false, &ACCEPT, 0), "ACCEPT");
        assert_eq!(written(Some(&kept), true, &ACCEPT, 1), "aCCept");
        assert_eq!(written(Some(&kept), true, &ACCEPT, 2), "Accept");
        assert_eq!(written(Some(&kept), false, &HOST, 0), "host");
        assert_eq!(written(None, true, &HeaderName::from_static("x-a-1b"), 0), "X-A-1b");
    }
}
