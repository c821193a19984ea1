//! `/certs`: the public facts of certificates in use.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::rfc3339;
use crate::transport_socket::{CertificateDetails, San};

/// The certificates of one TLS context.
#[derive(Debug, Clone, Default)]
pub struct CertificateEntry {
    /// Where `ca` came from: a file, `<inline>`, or the name of a secret.
    pub ca_path: String,
    /// What peers are checked against.
    pub ca: Vec<CertificateDetails>,
    /// Where `chain` came from.
    pub chain_path: String,
    /// What we show to peers, the leaf first.
    pub chain: Vec<CertificateDetails>,
}

/// Whole days from `now` until the certificate expires; 0 when it has.
pub(super) fn days_until_expiration(certificate: &CertificateDetails, now: SystemTime) -> u64 {
    certificate.not_after.duration_since(now).map_or(0, |left| left.as_secs() / 86_400)
}

fn certificate_json(path: &str, certificate: &CertificateDetails, now: SystemTime) -> Value {
    let names: Vec<Value> = certificate
        .sans
        .iter()
        .filter_map(|san| match san {
            San::Dns(name) => Some(json!({"dns": &**name})),
            San::Uri(uri) => Some(json!({"uri": &**uri})),
            San::Ip(ip) => Some(json!({"ip_address": ip.to_string()})),
            // `SubjectAlternateName` has no field for it.
            San::Email(_) => None,
        })
        .collect();
    json!({
        "path": path,
        "serial_number": certificate.serial,
        "subject_alt_names": names,
        "days_until_expiration": days_until_expiration(certificate, now).to_string(),
        "valid_from": rfc3339(certificate.not_before),
        "expiration_time": rfc3339(certificate.not_after),
    })
}

/// `envoy.admin.v3.Certificates`.
pub(super) fn json(entries: &[CertificateEntry], now: SystemTime) -> Value {
    let list = |path: &str, certificates: &[CertificateDetails]| -> Vec<Value> {
        certificates.iter().map(|certificate| certificate_json(path, certificate, now)).collect()
    };
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| json!({"ca_cert": list(&entry.ca_path, &entry.ca), "cert_chain": list(&entry.chain_path, &entry.chain)}))
        .collect();
    json!({ "certificates": entries })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn public_facts_of_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["reviews.local".to_owned(), "10.0.0.9".to_owned()]).unwrap();
        let uri = "spiffe://cluster.local/ns/default/sa/reviews";
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        params.not_before = rcgen::date_time_ymd(2026, 11, 20);
        params.not_after = rcgen::date_time_ymd(2026, 11, 30);
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x1a, 0xbc]));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let details = CertificateDetails::parse(&der).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_795_239_037);
        let entry = CertificateEntry {
            chain_path: "<inline>".into(),
            chain: vec![details.clone()],
            ..CertificateEntry::default()
        };
        assert_eq!(
            json(&[entry], now),
            json!({"certificates": [{"ca_cert": [], "cert_chain": [{
                "path": "<inline>",
                "serial_number": "1abc",
                "subject_alt_names": [{"dns": "reviews.local"}, {"ip_address": "10.0.0.9"}, {"uri": uri}],
                "days_until_expiration": "8",
                "valid_from": "2026-11-20T00:00:00Z",
                "expiration_time": "2026-11-30T00:00:00Z",
            }]}]})
        );
        assert_eq!(days_until_expiration(&details, now + Duration::from_secs(30 * 86_400)), 0);
    }
}
