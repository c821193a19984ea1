//! The admission webhooks: HTTPS for the API server.
//!
//! `POST /inject` mutates Pods, `POST /validate` refuses broken rule objects; both take and give an `AdmissionReview` of
//! `admission.k8s.io/v1`. Whatever cannot be understood is answered with an HTTP error, which an API server with
//! `failurePolicy: Fail` takes as a no. The certificate is the mesh CA's and is replaced while connections are open.
//!
//! Runs on the main runtime. Every connection and every request has a deadline, a body has a limit, and so has the number
//! of connections; the work itself is pure and takes well under a millisecond.

pub(crate) mod inject;
pub(crate) mod review;
mod server;
pub(crate) mod validate;

mod metrics;

use std::sync::Arc;

use crate::ca::{CertificateAuthority, to_pem};
use crate::inject::settings::InjectionSettings;
use crate::model::MeshSettings;

pub use metrics::WebhookMetrics;
pub use server::serve;

/// What the webhooks need to answer.
pub struct Webhooks {
    /// What is put into Pods.
    pub injection: InjectionSettings,
    /// What decoding rule objects depends on.
    pub mesh: MeshSettings,
    /// Counts of what was asked and answered.
    pub metrics: Arc<WebhookMetrics>,
}

/// The PEM text that `clientConfig.caBundle` of the webhook configurations has to hold (there in base64, as every
/// `bytes` field of Kubernetes): the root that the serving certificate leads to.
pub fn ca_bundle(authority: &CertificateAuthority) -> String {
    to_pem(authority.root_certificate())
}

#[cfg(test)]
mod tests;
