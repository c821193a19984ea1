//! The control plane's own TLS certificate: in memory only, renewed before it expires.
//!
//! Invariant: a renewal swaps what the next handshake sees; connections that are open are not touched. The
//! renewal task runs on the main runtime.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::{CertificateAuthority, SignError};

/// The names that a client may use for the control plane beside its addresses, unless `--serving-name` says others.
pub const DNS_NAMES: [&str; 3] =
    ["outrigger-control-plane", "outrigger-control-plane.outrigger-system.svc", "localhost"];

/// After a failed renewal the next attempt comes after this long.
const RETRY: Duration = Duration::from_secs(30);

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The CA did not sign it.
    #[error("the control plane's own certificate: {0}")]
    Sign(#[from] SignError),
    /// rustls does not take the key.
    #[error("the control plane's own certificate: {0}")]
    Key(#[from] rustls::Error),
}

/// The certificate that TLS listeners present.
pub struct ServingCertificate {
    authority: Arc<CertificateAuthority>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// Issues the first certificate, for `dns_names` and `addresses`. Returns it with its expiry.
    pub fn issue(
        authority: Arc<CertificateAuthority>,
        dns_names: Vec<String>,
        addresses: Vec<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<(Arc<Self>, OffsetDateTime), ServingError> {
        let (key, not_after) = certified(&authority, &dns_names, &addresses, now)?;
        Ok((
            Arc::new(Self { authority, dns_names, addresses, current: ArcSwap::from_pointee(key) }),
            not_after,
        ))
    }

    /// Issues a new certificate, used by every handshake from now on; returns its expiry.
    pub fn renew(&self, now: OffsetDateTime) -> Result<OffsetDateTime, ServingError> {
        let (key, not_after) = certified(&self.authority, &self.dns_names, &self.addresses, now)?;
        self.current.store(Arc::new(key));
        Ok(not_after)
    }

    /// Renews at half of each certificate's life, for ever.
    pub async fn keep_fresh(self: Arc<Self>, mut not_after: OffsetDateTime) {
        loop {
            let left = Duration::try_from(not_after - OffsetDateTime::now_utc()).unwrap_or_default();
            tokio::time::sleep((left / 2).max(Duration::from_secs(1))).await;
            match self.renew(OffsetDateTime::now_utc()) {
                Ok(renewed) => not_after = renewed,
                Err(error) => {
                    tracing::error!(%error, "the serving certificate was not renewed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate")
            .field("dns_names", &self.dns_names)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

fn certified(
    authority: &CertificateAuthority,
    dns_names: &[String],
    addresses: &[IpAddr],
    now: OffsetDateTime,
) -> Result<(CertifiedKey, OffsetDateTime), ServingError> {
    let (issued, key) = authority.sign_serving(dns_names, addresses, now)?;
    let mut chain = issued.chain;
    // A client brings its own root; sending ours proves nothing.
    chain.pop();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((CertifiedKey::new(chain, any_supported_type(&der)?), issued.not_after))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::ca::root::Root;

    #[test]
    fn a_renewal_replaces_the_certificate_and_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let root = Root::open_or_create(dir.path(), "cluster.local", now).unwrap();
        let ttl = Duration::from_secs(3600);
        let authority = Arc::new(CertificateAuthority::new(root, None, "cluster.local", ttl).unwrap());
        let (names, addresses) = (vec!["control.mesh.svc".to_owned()], vec![[127, 0, 0, 1].into()]);
        let (serving, not_after) = ServingCertificate::issue(authority, names, addresses, now).unwrap();
        let before = serving.current.load_full();
        let renewed = serving.renew(now + ttl / 2).unwrap();
        let after = serving.current.load_full();
        assert_eq!(renewed - not_after, time::Duration::try_from(ttl / 2).unwrap());
        assert_ne!(before.cert, after.cert);
        assert_eq!(after.cert.len(), 1, "the leaf alone, without the root");
        for leaf in [&before, &after] {
            let is_for = |name: &str| leaf.cert[0].windows(name.len()).any(|part| part == name.as_bytes());
            assert!(is_for("control.mesh.svc") && !is_for(DNS_NAMES[1]));
        }
    }
}
