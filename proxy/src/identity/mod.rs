//! The workload's identity: a certificate that a certificate service issues for a key made here.
//!
//! Runs on the main runtime. The key never leaves the workload: it is in memory and, where there is a state directory, in a file of
//! this user alone; each renewal makes a new one. What is issued is published as the secrets `default` (certificate and key) and
//! `ROOTCA` (trusted roots), which TLS contexts read. When the service fails the last certificate stays in use, and asking goes on with
//! growing pauses.

mod flags;
mod request;
mod saved;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use self::flags::IdentityFlags;
pub use self::request::PrivateKey;

use self::request::Answer;
use crate::config::live::Live;
use crate::net::Target;
use crate::stats::Stats;
use crate::transport_socket::{CertificateDetails, TlsCertificate, ValidationContext};

/// The secret name of the workload's certificate.
pub const CERTIFICATE_SECRET: &str = "default";
/// The secret name of the trusted roots.
pub const ROOTS_SECRET: &str = "ROOTCA";

/// First pause after a failure; doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest pause after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Shortest time between two certificates, so that a service that issues old ones is not asked in a loop.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The wall clock is looked at this often: a machine that slept still renews in time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whom to ask for what.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// `--ca-address`: Istio's certificate service.
    pub ca: Arc<Target>,
    /// `--ca-root-cert`: PEM roots of the service's own certificate; `None`: plaintext, allowed to loopback addresses only.
    pub ca_root_cert: Option<PathBuf>,
    /// `--token-file`: the bearer token, read anew for each request.
    pub token_file: PathBuf,
    /// The SPIFFE URI to be certified, `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub principal: String,
    /// The lifetime asked for (`SECRET_TTL`, 24 h in Istio); the service may shorten it.
    pub lifetime: Duration,
    /// Where the identity is kept for the next start, private key included.
    pub state_dir: Option<PathBuf>,
    /// With less time left than this the workload is not ready; `None`: a twentieth of the certificate's lifetime.
    pub minimum_life: Option<Duration>,
}

/// What was issued last, as PEM, for whoever serves it on.
#[derive(Debug)]
pub struct Issued {
    /// How many certificates there have been so far, this one included.
    pub count: u64,
    /// The workload's certificate, then its issuers.
    pub certificate_chain: String,
    /// Its key.
    pub private_key: PrivateKey,
    /// The trusted roots.
    pub roots: String,
}

/// A running certificate client; dropped, it stops (what is published stays).
#[derive(Debug)]
pub struct IdentityHandle {
    /// The secret `default`: empty until the first certificate is there.
    pub certificate: Arc<Live<TlsCertificate>>,
    /// The secret `ROOTCA`: empty until the first certificate is there.
    pub roots: Arc<Live<ValidationContext>>,
    /// The identity that is asked for; a certificate for another one is refused.
    pub principal: Arc<str>,
    minimum_life: Option<Duration>,
    issued: watch::Receiver<Option<Arc<Issued>>>,
    task: JoinHandle<()>,
}

impl IdentityHandle {
    /// Ends when the first certificate is there.
    pub async fn ready(&self) {
        // The task, which holds the sender, ends only with this handle.
        let _ = self.issued.clone().wait_for(Option::is_some).await;
    }

    /// Why nobody should count on this workload much longer, if that is so.
    pub fn nears_its_end(&self) -> Option<String> {
        let certificate = self.certificate.get()?;
        let leaf = certificate.leaf();
        let lifetime = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
        let left = leaf.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        (left < self.minimum_life.unwrap_or(lifetime / 20)).then(|| match left.as_secs() {
            0 => "the certificate of the workload has expired".to_owned(),
            seconds => format!("the certificate of the workload expires in {seconds} s and is not renewed"),
        })
    }

    /// What was issued last, now and from now on; `None` until the first certificate is there.
    pub fn issued(&self) -> watch::Receiver<Option<Arc<Issued>>> {
        self.issued.clone()
    }
}

impl Drop for IdentityHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts asking.
///
/// # Errors
/// The options cannot work: plaintext to another machine, an identity that is no SPIFFE URI. An unreadable
/// file or an unreachable service is no error here: it may come later.
pub fn start(options: IdentityOptions, stats: Arc<Stats>) -> Result<IdentityHandle, String> {
    request::check(&options)?;
    let minimum_life = options.minimum_life;
    let certificate = Live::empty(CERTIFICATE_SECRET);
    let roots = Live::empty(ROOTS_SECRET);
    let (sender, issued) = watch::channel(None);
    let principal = options.principal.as_str().into();
    let task = tokio::spawn(keep(options, stats, certificate.clone(), roots.clone(), sender));
    Ok(IdentityHandle { certificate, roots, principal, minimum_life, issued, task })
}

async fn keep(
    options: IdentityOptions,
    stats: Arc<Stats>,
    certificate: Arc<Live<TlsCertificate>>,
    roots: Arc<Live<ValidationContext>>,
    issued: watch::Sender<Option<Arc<Issued>>>,
) {
    let publish = |answer: Answer, since: SystemTime| {
        let leaf = answer.certificate.leaf();
        let renew_at = renewal_time(leaf, since, fastrand::f64());
        let expiry = leaf.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        stats.server().identity_expiry_timestamp_seconds.set(expiry.as_secs().cast_signed());
        // The roots first: whoever sees the certificate can verify a peer of the same authority.
        roots.publish(Arc::new(answer.roots));
        certificate.publish(Arc::new(answer.certificate));
        let (certificate_chain, roots) = request::split(&answer.chain);
        issued.send_modify(|last| {
            let count = last.as_ref().map_or(0, |last| last.count) + 1;
            let private_key = answer.private_key;
            *last = Some(Arc::new(Issued { count, certificate_chain, private_key, roots }));
        });
        renew_at
    };
    let saved = options.state_dir.as_deref().and_then(|directory| saved::load(directory, &options.principal));
    if let Some(answer) = saved {
        tracing::info!(
            target: "identity",
            "certificate for {} from before the start, serial {}",
            options.principal,
            answer.certificate.leaf().serial
        );
        let issued = answer.certificate.leaf().not_before;
        wait_until(publish(answer, issued)).await;
    }
    let mut retry = FIRST_RETRY;
    loop {
        match request::certificate(&options).await {
            Ok(answer) => {
                retry = FIRST_RETRY;
                stats.server().identity_renewals_total.inc();
                tracing::info!(
                    target: "identity",
                    "certificate for {} issued, serial {}",
                    options.principal,
                    answer.certificate.leaf().serial
                );
                if let Some(directory) = &options.state_dir {
                    saved::save(directory, &options.principal, &answer);
                }
                // Its lifetime begins earlier, for the sake of clocks that are behind.
                wait_until(publish(answer, SystemTime::now())).await;
            }
            Err(reason) => {
                stats.server().identity_renewal_failures_total.inc();
                tracing::warn!(target: "identity", "no certificate for {}: {reason}", options.principal);
                sleep(retry.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

/// The half of what is left at `from`, give or take 1 % so that workloads that started together do not renew together. `random` is
/// uniform in 0..1.
fn renewal_time(leaf: &CertificateDetails, from: SystemTime, random: f64) -> SystemTime {
    let left = leaf.not_after.duration_since(from).unwrap_or_default();
    from + left.mul_f64(0.49 + 0.02 * random)
}

async fn wait_until(moment: SystemTime) {
    sleep(SHORTEST_WAIT).await;
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        if left.is_zero() {
            break;
        }
        sleep(left.min(LONGEST_WAIT)).await;
    }
}

#[cfg(test)]
mod tests;
