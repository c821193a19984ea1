//! Istio's certificate service: `IstioCertificateService.CreateCertificate`.
//!
//! The caller is the pod that its bearer token proves; a client certificate is not enough, so that a stolen
//! certificate cannot renew itself. Refusals are logged and counted, never with the token.

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::istio_ca::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
};
use outrigger_xds_api::wire::protobuf::{Struct, value::Kind};
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{CertificateAuthority, SignError, to_pem};
use crate::auth::{Authenticator, Identity, Peer, PodIdentity, Refusal};
use crate::metrics::Metrics;
use crate::server::Lifecycle;
use crate::snapshot::Snapshot;

/// The certificate service over a CA.
pub struct CertificateService {
    authority: Arc<CertificateAuthority>,
    authenticator: Arc<Authenticator>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
}

impl CertificateService {
    /// A service that signs for the pods that `authenticator` knows, once the source is read; `snapshots` tells which workload a
    /// pod belongs to.
    pub fn new(
        authority: Arc<CertificateAuthority>,
        authenticator: Arc<Authenticator>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Self {
        Self { authority, authenticator, snapshots, metrics, lifecycle }
    }

    fn refuse(&self, who: &str, reason: &str, status: Status) -> Status {
        self.metrics.certificates_refused.with_label_values(&[reason]).inc();
        tracing::warn!(who, reason, error = status.message(), "certificate request refused");
        status
    }

    fn sign(&self, pod: &PodIdentity, request: &IstioCertificateRequest) -> Result<Vec<String>, Refused> {
        let invalid =
            |text: String| Refused { reason: "invalid_argument", status: Status::invalid_argument(text) };
        let identity = Identity::new(self.authority.trust_domain(), &pod.namespace, &pod.service_account)
            .map_err(|error| invalid(error.to_string()))?;
        check_metadata(request.metadata.as_ref()).map_err(invalid)?;
        let requested = match u64::try_from(request.validity_duration) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => return Err(invalid("validity_duration: must not be negative".to_owned())),
        };
        let description = self.snapshots.borrow().description_of(&pod.namespace, &pod.pod);
        let now = OffsetDateTime::now_utc();
        let issued =
            self.authority.sign_workload(&identity, description.as_deref(), &request.csr, requested, now)?;
        tracing::info!(%identity, pod = pod.pod, not_after = %issued.not_after, "certificate signed");
        // The last element is what to trust, as in Istio; there may be several roots in it.
        let issuers = issued.chain.split_last().map(|(_, issued)| issued).unwrap_or_default();
        Ok(issuers.iter().map(to_pem).chain([self.authority.bundle().pem()]).collect())
    }
}

struct Refused {
    reason: &'static str,
    status: Status,
}

impl From<SignError> for Refused {
    fn from(error: SignError) -> Self {
        let text = error.to_string();
        match error {
            SignError::Csr(_) => Self { reason: "csr", status: Status::invalid_argument(text) },
            SignError::OtherIdentity { .. } => {
                Self { reason: "other_identity", status: Status::permission_denied(text) }
            }
            SignError::RootExpired(_) => {
                Self { reason: "root_expired", status: Status::failed_precondition(text) }
            }
            SignError::Signing(_) | SignError::Random => {
                Self { reason: "internal", status: Status::internal(text) }
            }
        }
    }
}

/// Istio's agents send `CertSigner` with an empty value; anything that asks for something is refused, because it
/// would be ignored.
fn check_metadata(metadata: Option<&Struct>) -> Result<(), String> {
    let fields = metadata.into_iter().flat_map(|metadata| &metadata.fields);
    for (name, value) in fields {
        let asks_nothing = match &value.kind {
            None | Some(Kind::NullValue(_)) => true,
            Some(Kind::StringValue(text)) => text.is_empty(),
            Some(_) => false,
        };
        if !asks_nothing {
            return Err(format!("metadata.{name}: is not supported"));
        }
    }
    Ok(())
}

impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.lifecycle.serving().await?;
        let peer = Peer::of(request.extensions())?;
        let authenticated = self.authenticator.authenticate(peer, request.metadata()).await;
        let pod = authenticated.and_then(|proof| proof.pod().cloned()).map_err(|refusal: Refusal| {
            self.refuse(&peer.address.to_string(), refusal.reason(), refusal.into())
        })?;
        match self.sign(&pod, request.get_ref()) {
            Ok(cert_chain) => {
                self.metrics.certificates_signed.inc();
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(Refused { reason, status }) => {
                Err(self.refuse(&format!("pod {}/{}", pod.namespace, pod.pod), reason, status))
            }
        }
    }
}
