//! `tls` of a traffic policy.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::{Refusal, names};
use crate::model::{ClientTls, TlsOrigination};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Spec {
    mode: String,
    client_certificate: Option<String>,
    private_key: Option<String>,
    ca_certificates: Option<String>,
    ca_crl: Option<IgnoredAny>,
    credential_name: Option<IgnoredAny>,
    subject_alt_names: Vec<String>,
    sni: Option<String>,
    insecure_skip_verify: Option<bool>,
}

/// Reads it; `policy` is the path of the policy. Mutual TLS of the mesh is what happens wherever it can: saying so forbids
/// plaintext. `DISABLE` forbids TLS.
pub(super) fn client_tls(spec: Spec, policy: &str) -> Result<ClientTls, Refusal> {
    let at = |name: &str| format!("{policy}.tls.{name}");
    let refuse = |name: &str, reason: &str| Err(Refusal::new(at(name), reason));
    let has_more = spec.client_certificate.is_some()
        || spec.private_key.is_some()
        || spec.ca_certificates.is_some()
        || spec.sni.is_some()
        || spec.insecure_skip_verify.is_some()
        || !spec.subject_alt_names.is_empty();
    if spec.credential_name.is_some() {
        return refuse(
            "credentialName",
            "is not supported: a sidecar has no Secrets of the cluster; name files of the sidecar",
        );
    }
    if spec.ca_crl.is_some() {
        return refuse("caCrl", "is not supported: the server's certificate is not looked up in a list");
    }
    match spec.mode.as_str() {
        "ISTIO_MUTUAL" | "DISABLE" if has_more => {
            refuse("mode", "is DISABLE or ISTIO_MUTUAL, which nothing else can be said of")
        }
        "ISTIO_MUTUAL" => Ok(ClientTls::Mutual),
        "DISABLE" => Ok(ClientTls::Plaintext),
        "SIMPLE" | "MUTUAL" => origination(spec, at).map(|tls| ClientTls::Origination(Arc::new(tls))),
        other => {
            let reason = format!("{other:?} is none of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL");
            Err(Refusal::new(at("mode"), reason))
        }
    }
}

fn origination(spec: Spec, at: impl Fn(&str) -> String) -> Result<TlsOrigination, Refusal> {
    let refuse = |name: &str, reason: &str| Err(Refusal::new(at(name), reason));
    let certificate = match (spec.mode.as_str(), spec.client_certificate, spec.private_key) {
        ("MUTUAL", Some(certificate), Some(key)) => Some((certificate, key)),
        ("MUTUAL", None, _) => return refuse("clientCertificate", "must name a file: mode is MUTUAL"),
        ("MUTUAL", _, None) => return refuse("privateKey", "must name a file: mode is MUTUAL"),
        (_, None, None) => None,
        (_, Some(_), _) => return refuse("clientCertificate", "is for mode MUTUAL only"),
        (_, None, Some(_)) => return refuse("privateKey", "is for mode MUTUAL only"),
    };
    let roots = match (spec.insecure_skip_verify, spec.ca_certificates) {
        (Some(true), None) if spec.subject_alt_names.is_empty() => None,
        (Some(true), None) => {
            return refuse("subjectAltNames", "cannot be verified: insecureSkipVerify is true");
        }
        (Some(true), Some(_)) => return refuse("caCertificates", "has no use: insecureSkipVerify is true"),
        (_, Some(file)) if file.starts_with('/') => Some(file),
        (_, Some(_)) => return refuse("caCertificates", "must be the whole path of a file of the sidecar"),
        (_, None) => {
            let reason = "must name a file of the sidecar that has the roots: its image has none of its own. Without \
                          verification: insecureSkipVerify: true";
            return refuse("caCertificates", reason);
        }
    };
    if let Some(sni) = &spec.sni {
        names::subdomain(&at("sni"), sni)?;
    }
    Ok(TlsOrigination { certificate, roots, server_names: spec.subject_alt_names, sni: spec.sni })
}
