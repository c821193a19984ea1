//! Starts the admission webhooks: their settings, their certificate, their task.

use std::fs;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Options, StartError, grpc, pipeline};
use crate::api::Refusal;
use crate::ca::CertificateAuthority;
use crate::ca::serving::ServingCertificate;
use crate::inject::settings::InjectionSettings;
use crate::metrics::Metrics;
use crate::webhook::{self, Webhooks};

pub(super) fn serve(
    listener: TcpListener,
    options: &Options,
    injection: InjectionSettings,
    authority: Arc<CertificateAuthority>,
    metrics: &Metrics,
    tasks: &mut JoinSet<&'static str>,
) -> Result<(), StartError> {
    let addresses = grpc::serving_addresses(listener.local_addr().map_err(StartError::Addresses)?);
    let names = options.serving_names.clone();
    let (serving, not_after) =
        ServingCertificate::issue(authority, names, addresses, OffsetDateTime::now_utc())?;
    let webhooks = Arc::new(Webhooks {
        injection,
        mesh: pipeline::mesh_settings(options)?,
        metrics: Arc::clone(&metrics.webhooks),
    });
    tasks.spawn(async move {
        tokio::select! {
            () = Arc::clone(&serving).keep_fresh(not_after) => {}
            () = webhook::serve(listener, serving, webhooks) => {}
        }
        "the webhook server"
    });
    Ok(())
}

/// The file's settings. `outrigger inject` may read the same file, so it may name the domains.
pub(super) fn injection_settings(options: &Options) -> Result<InjectionSettings, StartError> {
    let Options { trust_domain, cluster_domain, .. } = options;
    let Some(path) = &options.injection_settings else {
        let (trust_domain, cluster_domain) = (trust_domain.clone(), cluster_domain.clone());
        return Ok(InjectionSettings { trust_domain, cluster_domain, ..InjectionSettings::default() });
    };
    let refuse = |reason: String| StartError::InjectionSettings { path: path.clone(), reason };
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    InjectionSettings::parse_for(&text, trust_domain, cluster_domain)
        .map_err(|Refusal { field, reason }| refuse(format!("{field}: {reason}")))
}
