//! The flags of whoever needs the workload's certificate: a sidecar, and the server of its secrets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::IdentityOptions;
use crate::net::{DnsOptions, HostPort, Target};

/// Who the workload is, and how it proves that. Each flag is also an environment variable.
#[derive(Debug, Clone, Args)]
pub struct IdentityFlags {
    /// DNS servers, search domains and ndots for names of the control plane, as resolv.conf(5) says
    #[arg(long, env = "OUTRIGGER_RESOLV_CONF", value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Port of these DNS servers
    #[arg(long, env = "OUTRIGGER_DNS_PORT", value_name = "PORT", default_value_t = 53)]
    pub dns_port: u16,
    /// Roots that the control plane's certificate must lead to; without it plaintext, to loopback only
    #[arg(long, env = "OUTRIGGER_CA_ROOT_CERT", value_name = "FILE")]
    pub ca_root_cert: Option<PathBuf>,
    /// Bearer token that proves the workload's service account, read again for each use
    #[arg(
        long,
        env = "OUTRIGGER_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    pub token_file: PathBuf,
    /// Directory for what is needed to start without the control plane, mode 0700: the identity, the private key with it, and a
    /// sidecar's last good configuration. In a pod it is to be in memory
    #[arg(long, env = "OUTRIGGER_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How long the certificate is asked to live, for example 24h or 1h30m; the control plane may shorten it
    #[arg(long, env = "SECRET_TTL", value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    pub certificate_lifetime: Duration,
    /// The pod's namespace
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// The pod's service account
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    /// SPIFFE trust domain
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
}

impl IdentityFlags {
    /// The SPIFFE identity, `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn principal(&self) -> String {
        let Self { trust_domain, pod_namespace, service_account, .. } = self;
        format!("spiffe://{trust_domain}/ns/{pod_namespace}/sa/{service_account}")
    }

    /// What to ask the certificate service at `ca` for.
    pub fn options(&self, ca: &HostPort) -> IdentityOptions {
        IdentityOptions {
            ca: Arc::new(self.target(ca)),
            ca_root_cert: self.ca_root_cert.clone(),
            token_file: self.token_file.clone(),
            principal: self.principal(),
            lifetime: self.certificate_lifetime,
            state_dir: self.state_dir.clone(),
            minimum_life: None,
        }
    }

    /// A server of the control plane, with the way to look its name up.
    pub fn target(&self, at: &HostPort) -> Target {
        Target::new(at.clone(), self.dns())
    }

    /// How the system looks names up.
    pub fn dns(&self) -> DnsOptions {
        DnsOptions { resolv_conf: self.resolv_conf.clone(), port: self.dns_port }
    }
}

/// A duration as Go writes it, in hours, minutes and seconds.
fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration; write whole hours, minutes and seconds, for example 1h30m");
    let (mut rest, mut seconds) = (text, 0_u64);
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()) {
        let unit = match rest.as_bytes()[end] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(wrong()),
        };
        let count = rest[..end].parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
        seconds = count.and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() || seconds == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lifetimes() {
        for (text, seconds) in [("24h0m0s", 86_400), ("1h30m", 5_400), ("40s", 40)] {
            assert_eq!(lifetime(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in [
            "",
            "24",
            "0s",
            "h",
            "1d",
            "1.5h",
            "-1h",
            "1h30",
            "99999999999999999999s",
            "9999999999999999h",
            "1hé",
        ] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
