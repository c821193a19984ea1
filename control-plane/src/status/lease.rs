//! Who of several control planes leads: the one that a Lease names.
//!
//! It is renewed every [`RENEW`] and counts for [`DURATION`]. Whoever sees it unchanged for longer than it counts takes it;
//! clocks of different machines are never compared. Runs on the main runtime.

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::time::Instant;

use crate::model::Name;

/// How long a Lease counts.
const DURATION: Duration = Duration::from_secs(15);

/// How often it is renewed, and looked at by those who do not have it.
pub(super) const RENEW: Duration = Duration::from_secs(5);

/// A Lease, as one process sees it.
pub(super) struct Lease {
    api: Api<DynamicObject>,
    name: String,
    identity: String,
    /// The version that was seen last in another's hands, since when, and for how long it counts.
    seen: Option<(String, Instant, Duration)>,
}

impl Lease {
    /// The Lease `name`, for a process called `identity`.
    pub(super) fn new(client: Client, name: &Name, identity: String) -> Self {
        let kind = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
        let resource = ApiResource::from_gvk_with_plural(&kind, "leases");
        let api = Api::namespaced_with(client, &name.namespace, &resource);
        Self { api, name: name.name.clone(), identity, seen: None }
    }

    /// Renews it, or takes it if nobody has it; tells whether it is held now.
    pub(super) async fn hold(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = DynamicObject {
                types: None,
                metadata: kube::core::ObjectMeta { name: Some(self.name.clone()), ..Default::default() },
                data: json!({}),
            };
            self.sign(&mut lease, true);
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let holder = lease.data["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        if holder != self.identity && !holder.is_empty() && !self.is_expired(&lease) {
            return Ok(false);
        }
        self.sign(&mut lease, holder != self.identity);
        // With the version that was read: of two who take it one wins.
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether another's Lease was seen unchanged for longer than it counts.
    fn is_expired(&mut self, lease: &DynamicObject) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since, counts)) if *seen == version => since.elapsed() > *counts,
            _ => {
                let seconds = lease.data["spec"]["leaseDurationSeconds"].as_u64();
                let counts = seconds.map_or(DURATION, Duration::from_secs);
                self.seen = Some((version, Instant::now(), counts));
                false
            }
        }
    }

    fn sign(&self, lease: &mut DynamicObject, is_new: bool) {
        let now = micro_time(OffsetDateTime::now_utc());
        let spec = &mut lease.data["spec"];
        if is_new {
            let before = spec["leaseTransitions"].as_i64();
            spec["leaseTransitions"] = before.map_or(0, |count| count + 1).into();
            spec["acquireTime"] = now.clone();
            spec["holderIdentity"] = self.identity.as_str().into();
        }
        spec["leaseDurationSeconds"] = DURATION.as_secs().into();
        spec["renewTime"] = now;
    }
}

/// Somebody else was faster, or it is held.
fn won(written: Result<DynamicObject, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Kubernetes' `MicroTime`.
fn micro_time(at: OffsetDateTime) -> Value {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    at.format(&format).unwrap_or_default().into()
}
