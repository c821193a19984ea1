//! `CertificateValidationContext`: which peer certificates are accepted.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use super::certificate::{CertificateDetails, San, certificates_from_pem};
use crate::route::StringMatcher;

/// `SubjectAltNameMatcher.SanType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanType {
    /// `EMAIL`.
    Email,
    /// `DNS`.
    Dns,
    /// `URI`.
    Uri,
    /// `IP_ADDRESS`.
    Ip,
}

/// `SubjectAltNameMatcher`.
#[derive(Debug)]
pub struct SanMatcher {
    /// `san_type`.
    pub san_type: SanType,
    /// `matcher`.
    pub matcher: StringMatcher,
}

impl SanMatcher {
    /// Whether this name is of the type and matches. A DNS name in the certificate may be a wildcard (`*.example.com`): an exact
    /// matcher then takes any one label in its place.
    pub fn matches(&self, san: &San) -> bool {
        match (self.san_type, san) {
            (SanType::Dns, San::Dns(name)) => match &self.matcher {
                StringMatcher::Exact(wanted) => dns_name_matches(wanted, name),
                other => other.matches(name),
            },
            (SanType::Uri, San::Uri(name)) | (SanType::Email, San::Email(name)) => self.matcher.matches(name),
            (SanType::Ip, San::Ip(ip)) => self.matcher.matches(&ip.to_string()),
            _ => false,
        }
    }
}

fn dns_name_matches(wanted: &str, name: &str) -> bool {
    if wanted.eq_ignore_ascii_case(name) {
        return true;
    }
    let (Some(suffix), Some((label, rest))) = (name.strip_prefix("*."), wanted.split_once('.')) else {
        return false;
    };
    !label.is_empty() && rest.eq_ignore_ascii_case(suffix)
}

/// What a [`ValidationContext`] is made of.
#[derive(Debug, Default)]
pub struct ValidationOptions {
    /// `trusted_ca`, PEM, one or several certificates.
    pub trusted_ca: Option<Vec<u8>>,
    /// `match_typed_subject_alt_names`: one of them must match; empty: names are not checked.
    pub match_sans: Vec<SanMatcher>,
    /// `verify_certificate_hash`: SHA-256 of the DER certificate.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `verify_certificate_spki`: SHA-256 of the DER SubjectPublicKeyInfo.
    pub spki_hashes: Vec<[u8; 32]>,
    /// `allow_expired_certificate`.
    pub allow_expired: bool,
}

/// A compiled `CertificateValidationContext`.
#[derive(Debug, Default)]
pub struct ValidationContext {
    pub(super) roots: Vec<Arc<Root>>,
    pub(super) match_sans: Arc<[SanMatcher]>,
    /// A combined context checks the names of both its parts as one list.
    pub(super) more_match_sans: Arc<[SanMatcher]>,
    pub(super) certificate_hashes: Vec<[u8; 32]>,
    pub(super) spki_hashes: Vec<[u8; 32]>,
    pub(super) allow_expired: bool,
}

/// One certificate of `trusted_ca`.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) der: CertificateDer<'static>,
    pub(super) details: CertificateDetails,
}

impl ValidationContext {
    /// Compiles.
    ///
    /// # Errors
    /// `trusted_ca` is malformed or has no certificate.
    pub fn new(options: ValidationOptions) -> Result<Self, String> {
        let ValidationOptions { trusted_ca, match_sans, certificate_hashes, spki_hashes, allow_expired } =
            options;
        let mut roots = Vec::new();
        if let Some(pem) = trusted_ca {
            let fail = |e: String| format!("failed to load trusted CA certificates: {e}");
            for der in certificates_from_pem(&pem).map_err(fail)? {
                let details = CertificateDetails::parse(&der).map_err(fail)?;
                RootCertStore::empty().add(der.clone()).map_err(|e| fail(e.to_string()))?;
                roots.push(Arc::new(Root { der, details }));
            }
        }
        Ok(Self {
            roots,
            match_sans: match_sans.into(),
            more_match_sans: Arc::default(),
            certificate_hashes,
            spki_hashes,
            allow_expired,
        })
    }

    /// `CombinedCertificateValidationContext`: `dynamic` (from SDS) over `default`, as protobuf merges them: its roots replace,
    /// its lists are appended.
    pub fn combine(default: &Self, dynamic: &Self) -> Self {
        let concat = |a: &[[u8; 32]], b: &[[u8; 32]]| [a, b].concat();
        Self {
            roots: if dynamic.roots.is_empty() { default.roots.clone() } else { dynamic.roots.clone() },
            match_sans: default.match_sans.clone(),
            more_match_sans: dynamic.match_sans.clone(),
            certificate_hashes: concat(&default.certificate_hashes, &dynamic.certificate_hashes),
            spki_hashes: concat(&default.spki_hashes, &dynamic.spki_hashes),
            allow_expired: default.allow_expired || dynamic.allow_expired,
        }
    }

    /// Whether it can be used as it is.
    ///
    /// # Errors
    /// Names are to be matched but nothing is trusted: anybody could make a certificate with that name.
    pub fn check(&self) -> Result<(), String> {
        if self.roots.is_empty() && !(self.match_sans.is_empty() && self.more_match_sans.is_empty()) {
            return Err(
                "SAN-based verification of peer certificates without trusted CA is insecure and not allowed"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Whether an accepted certificate proves anything about its holder.
    pub(super) fn proves_identity(&self) -> bool {
        !self.roots.is_empty() || !self.certificate_hashes.is_empty() || !self.spki_hashes.is_empty()
    }

    pub(super) fn sans_match(&self, sans: &[San]) -> bool {
        let mut matchers = self.match_sans.iter().chain(self.more_match_sans.iter()).peekable();
        matchers.peek().is_none() || matchers.any(|m| sans.iter().any(|san| m.matches(san)))
    }

    /// Roots that are valid at `now`; the time does not matter with `allow_expired_certificate`.
    pub(super) fn roots_at(&self, now: SystemTime) -> impl Iterator<Item = &Root> {
        self.roots.iter().map(|root| &**root).filter(move |r| {
            self.allow_expired || (r.details.not_before <= now && now <= r.details.not_after)
        })
    }

    /// The trusted certificates as people read them.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDetails> {
        self.roots.iter().map(|root| &root.details)
    }
}

/// Reads `verify_certificate_hash`: SHA-256 as 64 hexadecimal digits, with or without colons.
///
/// # Errors
/// Anything else.
pub fn parse_certificate_hash(text: &str) -> Result<[u8; 32], String> {
    let invalid = || format!("invalid hex-encoded SHA-256 '{text}'");
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return Err(invalid());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(invalid);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(hash)
}

/// Reads `verify_certificate_spki`: SHA-256 in base64.
///
/// # Errors
/// Anything else.
pub fn parse_spki_hash(text: &str) -> Result<[u8; 32], String> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("invalid base64-encoded SHA-256 '{text}'"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_wildcard_certificate_name_stands_for_one_label() {
        let matcher =
            SanMatcher { san_type: SanType::Dns, matcher: StringMatcher::Exact("www.example.com".into()) };
        for (name, matches) in [
            ("www.example.com", true),
            ("WWW.example.com", true),
            ("*.example.com", true),
            ("*.com", false),
            ("example.com", false),
            ("*.www.example.com", false),
        ] {
            assert_eq!(matcher.matches(&San::Dns(name.into())), matches, "{name}");
        }
        assert!(!matcher.matches(&San::Uri("www.example.com".into())), "another type never matches");
    }

    #[test]
    fn hashes_are_read() {
        let plain = "df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a";
        let colons = plain
            .as_bytes()
            .chunks(2)
            .map(|c| std::str::from_utf8(c).unwrap().to_uppercase())
            .collect::<Vec<_>>()
            .join(":");
        let hash = parse_certificate_hash(plain).unwrap();
        assert_eq!(hash[..2], [0xdf, 0x6f]);
        assert_eq!(parse_certificate_hash(&colons).unwrap(), hash);
        assert!(parse_certificate_hash("df6f").is_err());
        assert_eq!(parse_spki_hash("NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=").unwrap()[0], 0x36);
        assert!(parse_spki_hash("NvqY").is_err());
    }

    #[test]
    fn names_without_a_trusted_ca_are_refused() {
        let matcher = SanMatcher {
            san_type: SanType::Uri,
            matcher: StringMatcher::Exact("spiffe://td/ns/a/sa/b".into()),
        };
        let options = ValidationOptions { match_sans: vec![matcher], ..ValidationOptions::default() };
        let context = ValidationContext::new(options).unwrap();
        assert!(context.check().unwrap_err().contains("without trusted CA"));
        assert!(ValidationContext::combine(&context, &ValidationContext::default()).check().is_err());
        assert!(ValidationContext::default().check().is_ok());
    }
}
