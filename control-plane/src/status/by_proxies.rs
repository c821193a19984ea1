//! What proxies refuse, as findings about the user's objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use time::OffsetDateTime;

use crate::ads::proxies::Proxy;
use crate::model::{Concern, Finding};
use crate::snapshot::Snapshot;
use crate::source::ObjectKey;

/// One thing that proxies refuse about one object, for all that refuse it alike.
#[derive(Debug, Clone)]
pub struct RefusedByProxies {
    /// The object with its field and the proxies' reason. Without an object when it cannot be told whose the resource is.
    pub finding: Finding,
    /// Type of the resource that was made of it.
    pub of: ResourceType,
    /// Name of the resource.
    pub resource: String,
    /// Path of the field in the resource.
    pub resource_field: String,
    /// Node ids of the proxies.
    pub proxies: BTreeSet<String>,
    /// When the first of them refused it.
    pub since: OffsetDateTime,
}

/// What makes two refusals the same.
type Key = (Option<(ObjectKey, String)>, ResourceType, String, String, String);

/// All that connected proxies refuse now, sorted by object.
pub fn refused_by_proxies(snapshot: &Snapshot, proxies: &[Arc<Proxy>]) -> Vec<RefusedByProxies> {
    let mut all: BTreeMap<Key, (BTreeSet<String>, OffsetDateTime)> = BTreeMap::new();
    for proxy in proxies {
        for (of, status) in proxy.types() {
            for refusal in status.refusals {
                let nobody = refusal.objects.is_empty().then_some(None);
                for object in refusal.objects.into_iter().map(Some).chain(nobody) {
                    let (resource, field, reason) = (&refusal.resource, &refusal.field, &refusal.reason);
                    let key = (object, of, resource.clone(), field.clone(), reason.clone());
                    let (proxies, since) = all.entry(key).or_insert_with(|| (BTreeSet::new(), refusal.at));
                    proxies.insert(proxy.node_id.clone());
                    *since = refusal.at.min(*since);
                }
            }
        }
    }
    let refused = |(key, (proxies, since)): (Key, _)| {
        let (object, of, resource, resource_field, reason) = key;
        let finding = finding(snapshot, object, reason);
        RefusedByProxies { finding, of, resource, resource_field, proxies, since }
    };
    all.into_iter().map(refused).collect()
}

/// A finding about an object of the source.
pub(crate) fn finding(snapshot: &Snapshot, object: Option<(ObjectKey, String)>, reason: String) -> Finding {
    let (object, field) = object.map_or((None, String::new()), |(object, field)| (Some(object), field));
    match object.as_ref().and_then(|object| snapshot.origins().get(object)) {
        Some(origin) => Finding::at(origin, field, reason),
        None => Finding { object, file: None, position: None, field, reason, concern: Concern::default() },
    }
}
