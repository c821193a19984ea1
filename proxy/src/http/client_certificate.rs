//! `x-forwarded-client-cert`: what an upstream is told of the client's certificate. The text is the same for all requests of a
//! connection, so it is made once.

use std::cell::OnceCell;
use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::repeated;
use crate::transport_socket::TlsInfo;

/// The header.
pub(crate) const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// `forward_client_cert_details`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// `SANITIZE`: never.
    #[default]
    Sanitize,
    /// `FORWARD_ONLY`: what clients with a certificate say.
    ForwardOnly,
    /// `APPEND_FORWARD`: what they say, and their certificate.
    AppendForward(ClientCertDetails),
    /// `SANITIZE_SET`: their certificate.
    SanitizeSet(ClientCertDetails),
    /// `ALWAYS_FORWARD_ONLY`: what any client says.
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`: what beside the certificate's hash and our own names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `subject`.
    pub subject: bool,
    /// `cert`.
    pub cert: bool,
    /// `chain`.
    pub chain: bool,
    /// `dns`.
    pub dns: bool,
    /// `uri`.
    pub uri: bool,
    /// `issuer`.
    pub issuer: bool,
}

impl ForwardClientCert {
    /// Changes the header of a request; `made` keeps the connection's text.
    pub(crate) fn apply(
        self,
        headers: &mut HeaderMap,
        tls: Option<&TlsInfo>,
        made: &OnceCell<Option<HeaderValue>>,
    ) {
        let certified = tls.filter(|tls| tls.peer.is_some());
        let (details, appends) = match (self, certified) {
            (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => return,
            (ForwardClientCert::AppendForward(details), Some(tls)) => ((details, tls), true),
            (ForwardClientCert::SanitizeSet(details), Some(tls)) => ((details, tls), false),
            _ => {
                headers.remove(X_FORWARDED_CLIENT_CERT);
                return;
            }
        };
        if !appends {
            // Also where nothing can be said in its place: what the client says of itself proves nothing.
            headers.remove(X_FORWARDED_CLIENT_CERT);
        }
        if let Some(value) = made.get_or_init(|| details.0.value(details.1)).clone() {
            repeated::append_value(headers, &X_FORWARDED_CLIENT_CERT, b",", value);
        }
    }
}

impl ClientCertDetails {
    /// `By=...;Hash=...` and what else is wanted. `None`: a name in it is not allowed in a header.
    fn value(self, tls: &TlsInfo) -> Option<HeaderValue> {
        let mut text = String::new();
        let mut add = |key: &str, quote: &str, value: &str| {
            let separator = if text.is_empty() { "" } else { ";" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{key}={quote}{value}{quote}");
        };
        for uri in tls.local.iter().flat_map(|local| &local.printed().uris) {
            add("By", "", uri);
        }
        let peer = tls.peer.as_ref()?.printed();
        if let Some(hash) = peer.sha256.first() {
            add("Hash", "", hash);
        }
        if self.cert {
            add("Cert", "\"", &peer.pem);
        }
        if self.chain {
            add("Chain", "\"", &peer.chain_pem);
        }
        if self.subject {
            add("Subject", "\"", &peer.subject);
        }
        if self.uri {
            peer.uris.iter().for_each(|uri| add("URI", "", uri));
            if peer.uris.is_empty() {
                add("URI", "", "");
            }
        }
        if self.dns {
            peer.dns.iter().for_each(|name| add("DNS", "", name));
        }
        if self.issuer {
            add("Issuer", "\"", &peer.issuer);
        }
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::transport_socket::Certificates;

    /// A client that proves something which cannot be said in a header says nothing in its place.
    #[test]
    fn what_a_client_says_of_itself_does_not_stand_for_its_certificate() {
        let made = OnceCell::from(None);
        let peer = Certificates::new(&[CertificateDer::from(vec![0])]).map(Arc::new);
        let tls = TlsInfo { peer, ..TlsInfo::default() };
        let claimed = HeaderValue::from_static("URI=spiffe://cluster.local/ns/default/sa/admin");
        let left = |mode: ForwardClientCert| {
            let mut headers = HeaderMap::from_iter([(X_FORWARDED_CLIENT_CERT, claimed.clone())]);
            mode.apply(&mut headers, Some(&tls), &made);
            headers.contains_key(X_FORWARDED_CLIENT_CERT)
        };
        assert!(!left(ForwardClientCert::SanitizeSet(ClientCertDetails::default())));
        assert!(left(ForwardClientCert::AppendForward(ClientCertDetails::default())));
        assert!(!left(ForwardClientCert::Sanitize));
    }
}
