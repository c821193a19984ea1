//! Fingerprints of ClientHellos, by which programs are told apart: JA3, and JA4 as Envoy makes it. Made only where `tls_inspector` is
//! asked for them.

use std::fmt::Write as _;

use aws_lc_rs::digest;

use super::tls_inspector::Reader;
use crate::stream_info::TlsFingerprints;

/// Which ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprinting {
    /// `enable_ja3_fingerprinting`.
    pub ja3: bool,
    /// `enable_ja4_fingerprinting`.
    pub ja4: bool,
}

const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// How much of a SHA-256 JA4 takes, in digits.
const JA4_DIGITS: usize = 12;

/// What a ClientHello says, without the values that are there to be ignored (GREASE, RFC 8701), but for those among groups: JA3 in Envoy
/// has these.
#[derive(Debug, Default)]
struct Said<'a> {
    version: u16,
    suites: Vec<u16>,
    extensions: Vec<u16>,
    groups: Vec<u16>,
    point_formats: &'a [u8],
    signature_algorithms: Vec<u16>,
    first_protocol: &'a [u8],
    versions: Vec<u16>,
}

/// The fingerprints of a ClientHello, the body of its message. `None`: none is wanted, or it is malformed.
pub(super) fn of(hello: &[u8], wanted: Fingerprinting) -> Option<Box<TlsFingerprints>> {
    if wanted == Fingerprinting::default() {
        return None;
    }
    let said = Said::read(hello)?;
    let ja3 = wanted.ja3.then(|| format!("{:x}", md5::compute(said.ja3())).into());
    Some(Box::new(TlsFingerprints { ja3, ja4: wanted.ja4.then(|| said.ja4().into()) }))
}

impl<'a> Said<'a> {
    fn read(hello: &'a [u8]) -> Option<Self> {
        let mut hello = Reader(hello);
        let version = hello.u16()? as u16;
        hello.take(32)?;
        hello.vec8()?;
        let mut said = Self { version, suites: numbers(hello.vec16()?), ..Self::default() };
        hello.vec8()?;
        if hello.0.is_empty() {
            return Some(said);
        }
        let mut extensions = Reader(hello.vec16()?);
        while !extensions.0.is_empty() {
            let (kind, content) = (extensions.u16()? as u16, extensions.vec16()?);
            if !is_grease(kind) {
                said.extensions.push(kind);
            }
            let mut content = Reader(content);
            match kind {
                GROUPS => said.groups = pairs(content.vec16()?).collect(),
                POINT_FORMATS => said.point_formats = content.vec8()?,
                SIGNATURE_ALGORITHMS => said.signature_algorithms = numbers(content.vec16()?),
                ALPN => said.first_protocol = Reader(content.vec16()?).vec8()?,
                SUPPORTED_VERSIONS => said.versions = numbers(content.vec8()?),
                _ => {}
            }
        }
        Some(said)
    }

    /// Version, suites, extensions, groups and point formats, each a list of decimal numbers.
    fn ja3(&self) -> String {
        let formats: Vec<u16> = self.point_formats.iter().map(|format| u16::from(*format)).collect();
        let lists = [&self.suites, &self.extensions, &self.groups, &formats];
        lists.iter().fold(self.version.to_string(), |text, list| {
            let numbers: Vec<String> = list.iter().map(u16::to_string).collect();
            text + "," + &numbers.join("-")
        })
    }

    /// What can be read at a glance, a digest of the suites, and one of the extensions with the signature algorithms.
    fn ja4(&self) -> String {
        let newest = self.versions.iter().copied().max().unwrap_or(self.version);
        let version = match newest {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let name = if self.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let (suites, extensions) = (self.suites.len().min(99), self.extensions.len().min(99));
        let protocol = protocol_ends(self.first_protocol);
        let told_elsewhere = |kind: &&u16| **kind != SERVER_NAME && **kind != ALPN;
        let mut listed = sorted(self.extensions.iter().filter(told_elsewhere));
        if !self.signature_algorithms.is_empty() {
            listed = listed + "_" + &hexadecimal(&self.signature_algorithms);
        }
        let (suite_digest, extension_digest) = (short_digest(&sorted(&self.suites)), short_digest(&listed));
        format!("t{version}{name}{suites:02}{extensions:02}{protocol}_{suite_digest}_{extension_digest}")
    }
}

/// RFC 8701: both bytes are alike, and end in `a`.
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Numbers of two bytes; an odd byte at the end is none.
fn pairs(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// The same without GREASE.
fn numbers(bytes: &[u8]) -> Vec<u16> {
    pairs(bytes).filter(|value| !is_grease(*value)).collect()
}

fn hexadecimal(values: &[u16]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:04x}")).collect();
    values.join(",")
}

fn sorted<'a>(values: impl IntoIterator<Item = &'a u16>) -> String {
    let mut values: Vec<u16> = values.into_iter().copied().collect();
    values.sort_unstable();
    hexadecimal(&values)
}

/// The first and the last character of a protocol's name; of bytes that are no letters or digits, hexadecimal ones.
fn protocol_ends(name: &[u8]) -> String {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return "00".into() };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)].iter().collect();
    }
    format!("{:x}{:x}", first >> 4, last & 0xf)
}

fn short_digest(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(JA4_DIGITS);
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref()[..JA4_DIGITS / 2].iter().fold(String::new(), |mut text, byte| {
        // Writing to memory does not fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_ignored_is() {
        assert!(is_grease(0x0a0a) && is_grease(0xfafa));
        assert!(!is_grease(0x0a1a) && !is_grease(0x1301) && !is_grease(0x000a));
        assert_eq!(numbers(&[0x1a, 0x1a, 0x13, 0x01, 0x13]), [0x1301]);
    }

    #[test]
    fn names_of_protocols() {
        for (name, ends) in
            [(&b""[..], "00"), (b"h2", "h2"), (b"http/1.1", "h1"), (b"x", "xx"), (b"\xab\xcd", "ad")]
        {
            assert_eq!(protocol_ends(name), ends);
        }
    }

    #[test]
    fn half_a_hello_has_none() {
        let hello = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 0x01, 1, 0]].concat();
        let both = Fingerprinting { ja3: true, ja4: true };
        assert!(of(&hello, both).is_some());
        assert!(of(&hello, Fingerprinting::default()).is_none());
        for length in 0..hello.len() {
            assert!(of(&hello[..length], both).is_none(), "{length}");
        }
    }
}
