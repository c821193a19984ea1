//! `/certs`: the public facts of certificates in use.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// One TLS context's certificates.
#[derive(Debug, Clone, Default)]
pub struct CertificateEntry {
    /// What peers are checked against.
    pub ca: Vec<CertificateDetails>,
    /// What we show to peers.
    pub chain: Vec<CertificateDetails>,
}

/// Public facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Where it came from: a file, `<inline>`, or the name of a secret.
    pub path: String,
    /// Hexadecimal, lower case.
    pub serial_number: String,
    /// Distinguished name of the subject.
    pub subject: String,
    /// `("uri" | "dns" | "ip_address", value)`.
    pub subject_alt_names: Vec<(&'static str, String)>,
    /// Seconds since 1970.
    pub valid_from_unix_s: i64,
    /// Seconds since 1970.
    pub expiration_unix_s: i64,
}

impl CertificateDetails {
    /// Reads a certificate; `None` when it is not one.
    pub fn from_der(path: &str, der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let subject_alt_names = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(("uri", (*uri).to_owned())),
                GeneralName::DNSName(dns) => Some(("dns", (*dns).to_owned())),
                GeneralName::IPAddress(bytes) => Some(("ip_address", ip(bytes)?)),
                _ => None,
            })
            .collect();
        Some(Self {
            path: path.to_owned(),
            serial_number: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            subject: certificate.subject().to_string(),
            subject_alt_names,
            valid_from_unix_s: certificate.validity().not_before.timestamp(),
            expiration_unix_s: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whole days from `now` until it expires; 0 when it has.
    pub fn days_until_expiration(&self, now: SystemTime) -> u64 {
        let now_s =
            now.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        u64::try_from(self.expiration_unix_s - now_s).unwrap_or(0) / 86_400
    }

    fn json(&self, now: SystemTime) -> Value {
        let names: Vec<Value> =
            self.subject_alt_names.iter().map(|(kind, name)| json!({ *kind: name })).collect();
        json!({
            "path": self.path,
            "serial_number": self.serial_number,
            "subject": self.subject,
            "subject_alt_names": names,
            "days_until_expiration": self.days_until_expiration(now).to_string(),
            "valid_from": rfc3339(self.valid_from_unix_s),
            "expiration_time": rfc3339(self.expiration_unix_s),
        })
    }
}

fn ip(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
        _ => None,
    }
}

fn rfc3339(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// `envoy.admin.v3.Certificates`.
pub(super) fn json(entries: &[CertificateEntry], now: SystemTime) -> Value {
    let list = |certificates: &[CertificateDetails]| -> Vec<Value> {
        certificates.iter().map(|c| c.json(now)).collect()
    };
    let entries: Vec<Value> =
        entries.iter().map(|e| json!({"ca_cert": list(&e.ca), "cert_chain": list(&e.chain)})).collect();
    json!({ "certificates": entries })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn public_facts_of_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["reviews.local".to_owned(), "10.0.0.9".to_owned()]).unwrap();
        let uri = "spiffe://cluster.local/ns/default/sa/reviews";
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "reviews");
        params.not_before = rcgen::date_time_ymd(2026, 11, 20);
        params.not_after = rcgen::date_time_ymd(2026, 11, 30);
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x0a, 0xbc]));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let details = CertificateDetails::from_der("<inline>", &der).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_795_239_037);
        assert_eq!(
            json(&[CertificateEntry { ca: vec![], chain: vec![details.clone()] }], now),
            json!({"certificates": [{"ca_cert": [], "cert_chain": [{
                "path": "<inline>",
                "serial_number": "0abc",
                "subject": "CN=reviews",
                "subject_alt_names": [{"dns": "reviews.local"}, {"ip_address": "10.0.0.9"}, {"uri": uri}],
                "days_until_expiration": "8",
                "valid_from": "2026-11-20T00:00:00Z",
                "expiration_time": "2026-11-30T00:00:00Z",
            }]}]})
        );
        assert_eq!(details.days_until_expiration(now + Duration::from_secs(30 * 86_400)), 0);
        assert_eq!(CertificateDetails::from_der("x", b"not a certificate"), None);
    }
}
