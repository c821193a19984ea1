//! The identity of a workload: a SPIFFE id in Istio's form.
//!
//! Invariant: every part is non-empty and free of `/`, so that the text form and the parts are one to one.

use std::fmt;

/// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`, the identity that a workload certificate carries
/// (SPIFFE-ID section 2; Istio's path form).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

/// The text is not a SPIFFE id in Istio's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
pub struct InvalidIdentity(String);

impl Identity {
    /// Builds the identity from its parts. Refuses a part that is empty or holds characters that a SPIFFE id
    /// does not allow.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidIdentity> {
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        let identity = Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        };
        if plain(trust_domain) && plain(namespace) && plain(service_account) {
            Ok(identity)
        } else {
            Err(InvalidIdentity(identity.to_string()))
        }
    }

    /// Reads the text form.
    pub fn parse(uri: &str) -> Result<Self, InvalidIdentity> {
        let invalid = || InvalidIdentity(uri.to_owned());
        let rest = uri.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [trust_domain, "ns", namespace, "sa", service_account] => {
                Self::new(trust_domain, namespace, service_account).map_err(|_| invalid())
            }
            _ => Err(invalid()),
        }
    }

    /// The trust domain, for example `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace of the service account.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn text_and_parts_are_one_to_one() {
        let identity = Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        assert_eq!(identity, Identity::new("cluster.local", "shop", "web").unwrap());
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(
            (identity.trust_domain(), identity.namespace(), identity.service_account()),
            ("cluster.local", "shop", "web")
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "https://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop",
            "spiffe://cluster.local/ns/shop/sa/web/extra",
            "spiffe://cluster.local/ns//sa/web",
            "spiffe:///ns/shop/sa/web",
            "spiffe://cluster.local/sa/web/ns/shop",
            "spiffe://cluster.local/ns/../sa/web",
            "spiffe://cluster.local/ns/sh%6Fp/sa/web",
        ] {
            assert!(Identity::parse(text).is_err(), "{text}");
        }
        assert!(Identity::new("cluster.local", "a/sa/b", "c").is_err());
    }
}
