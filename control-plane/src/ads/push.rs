//! The push queue of one proxy: what to send next, of which type, and when to hold back.
//!
//! A pure state machine over the sessions of all types of one stream, of either variant; no I/O, no clock. The rules:
//!
//! * At most one response of a type waits for its answer; changes that come meanwhile merge into the next.
//! * Updates go out in the order CDS, EDS, LDS, RDS, SDS. Listeners and routes wait while clusters have changes
//!   that cannot go out yet. Endpoints and secrets never wait for another type: they break nothing.
//! * Removals come after the updates, users before what they use: a listener, a route, a cluster, its endpoints, a
//!   secret. Clusters and what is below them stay until every update of a listener or route has been accepted, for a
//!   proxy that rejected the new routes still runs by the old ones, which may need the old clusters.
//! * An Envoy does not use a changed cluster before it has its endpoints, and in the incremental variant it does not ask for
//!   them: they follow each cluster that it is sent. Other clients do not pay for that.
//! * In the state of the world an update of listeners or clusters repeats what is to be removed, until that comes.
//! * Nothing is compared while the sets are the same ones as before (two pointer comparisons a type).

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::resource::load_assignment_of;
use outrigger_xds_api::session::{self, ClientFeatures, InvalidRequest, Outcome, Part};

use super::variant::Variant;
use crate::scope::ScopeKey;
use crate::snapshot::{Resource, ResourceMap, ResourceSet, Snapshot};

/// Users before what they use.
const REMOVAL_ORDER: [ResourceType; ResourceType::ALL.len()] = [
    ResourceType::Listener,
    ResourceType::RouteConfiguration,
    ResourceType::Cluster,
    ResourceType::ClusterLoadAssignment,
    ResourceType::Secret,
];

/// Everything that one proxy gets at one moment.
#[derive(Clone, Default)]
pub(super) struct Resources([ResourceSet; ResourceType::ALL.len()]);

impl Resources {
    /// What the proxy of `scope` gets by `snapshot`.
    pub(super) fn of(snapshot: &Snapshot, scope: &ScopeKey) -> Self {
        Self(ResourceType::ALL.map(|of| snapshot.resources(scope, of)))
    }

    /// What it gets of one type.
    pub(super) fn get(&self, of: ResourceType) -> &ResourceSet {
        &self.0[of as usize]
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, of: ResourceType, set: ResourceSet) {
        self.0[of as usize] = set;
    }
}

struct View<'a> {
    set: &'a ResourceSet,
    leaving: &'a ResourceMap,
}

impl session::View for View<'_> {
    fn get(&self, name: &str) -> Option<session::Resource<'_>> {
        self.set.get(name).map(|resource| served(resource))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.set.iter().map(|resource| &*resource.name)
    }

    fn leaving(&self) -> impl Iterator<Item = (&str, session::Resource<'_>)> {
        self.leaving.values().map(|resource| (&*resource.name, served(resource)))
    }
}

/// The last good state serves on without us: nothing has a TTL.
fn served(resource: &Resource) -> session::Resource<'_> {
    session::Resource { version: &resource.version, content: &resource.content, ttl: None }
}

/// The sessions of one stream.
pub(super) struct PushQueue<V> {
    types: [TypeQueue<V>; ResourceType::ALL.len()],
    /// Whether endpoints follow each cluster that is sent.
    resends_endpoints: bool,
    /// The load assignments of clusters that were sent since endpoints had their turn.
    endpoints_due: BTreeSet<String>,
}

struct TypeQueue<V> {
    session: V,
    requested: bool,
    /// The set that updates, and the one that removals, were last computed from.
    updates_from: Option<ResourceSet>,
    removals_from: Option<ResourceSet>,
    /// Where updates repeat the state: the set that the session saw last, and what has left since the last removals.
    seen: ResourceSet,
    leaving: ResourceMap,
}

impl<V: Variant> TypeQueue<V> {
    fn has_updates_from(&self, set: &ResourceSet) -> bool {
        !self.requested || self.updates_from.as_ref().is_some_and(|last| last.same_as(set))
    }

    fn has_removals_from(&self, set: &ResourceSet) -> bool {
        !self.requested || self.removals_from.as_ref().is_some_and(|last| last.same_as(set))
    }

    fn next_updates(&mut self, of: ResourceType, set: &ResourceSet) -> Option<V::Response> {
        let repeats_state = V::REPEATS_STATE && of.has_complete_responses();
        if repeats_state && !self.seen.same_as(set) {
            let seen = std::mem::replace(&mut self.seen, set.clone());
            let left = seen.iter().filter(|resource| set.get(&resource.name).is_none());
            self.leaving.extend(left.map(|resource| (Arc::clone(&resource.name), Arc::clone(resource))));
        }
        self.updates_from = Some(set.clone());
        self.session.next_response(&View { set, leaving: &self.leaving }, Part::Updates)
    }

    fn has_removals(&self, set: &ResourceSet) -> bool {
        self.session.has_removals(&View { set, leaving: &ResourceMap::default() })
    }

    fn next_removals(&mut self, set: &ResourceSet) -> Option<V::Response> {
        self.leaving.clear();
        self.removals_from = Some(set.clone());
        self.session.next_response(&View { set, leaving: &self.leaving }, Part::Removals)
    }
}

impl<V: Variant> PushQueue<V> {
    /// The queue of a new stream, of a proxy with `features`.
    pub(super) fn new(features: ClientFeatures) -> Self {
        Self {
            types: ResourceType::ALL.map(|of| TypeQueue {
                session: V::new(of, features),
                requested: false,
                updates_from: None,
                removals_from: None,
                seen: ResourceSet::default(),
                leaving: ResourceMap::default(),
            }),
            resends_endpoints: features.needs_endpoints_again && !V::CAN_ASK_AGAIN,
            endpoints_due: BTreeSet::new(),
        }
    }

    /// Takes in a request; ask for [`PushQueue::next`] afterwards.
    pub(super) fn on_request(
        &mut self,
        of: ResourceType,
        request: &V::Request,
    ) -> Result<Outcome, InvalidRequest> {
        let queue = &mut self.types[of as usize];
        let outcome = queue.session.on_request(request)?;
        if outcome.subscription_changed || !queue.requested {
            queue.updates_from = None;
            queue.removals_from = None;
        }
        queue.requested = true;
        Ok(outcome)
    }

    /// The responses to send now, in this order, each with its type.
    pub(super) fn next(&mut self, resources: &Resources) -> Vec<(ResourceType, V::Response)> {
        let mut responses = self.next_updates(resources);
        responses.extend(self.next_removals(resources));
        responses
    }

    /// Whether the proxy asked for type `of`.
    pub(super) fn is_requested(&self, of: ResourceType) -> bool {
        self.types[of as usize].requested
    }

    /// Whether the proxy has been sent everything of type `of` and has answered.
    pub(super) fn is_settled(&self, of: ResourceType, resources: &Resources) -> bool {
        let (queue, set) = (&self.types[of as usize], resources.get(of));
        queue.has_updates_from(set) && queue.has_removals_from(set) && !queue.session.is_waiting()
    }

    /// Whether everything of every type is settled.
    pub(super) fn is_all_settled(&self, resources: &Resources) -> bool {
        ResourceType::ALL.into_iter().all(|of| self.is_settled(of, resources))
    }

    /// How many resources of type `of` the proxy accepted, and the names of those that it rejected.
    pub(super) fn counts(&self, of: ResourceType) -> (usize, Vec<String>) {
        let session = &self.types[of as usize].session;
        (session.accepted(), session.rejected().map(|(name, _)| name.to_owned()).collect())
    }

    /// Whether the proxy rejected this very version of a resource.
    pub(super) fn has_rejected(&self, of: ResourceType, resource: &Resource) -> bool {
        let mut rejected = self.types[of as usize].session.rejected();
        rejected.any(|(name, version)| *name == *resource.name && *version == *resource.version)
    }

    fn next_updates(&mut self, resources: &Resources) -> Vec<(ResourceType, V::Response)> {
        let mut responses = Vec::new();
        let mut clusters_are_late = false;
        for of in ResourceType::ALL {
            if of == ResourceType::ClusterLoadAssignment {
                self.resend_endpoints();
            }
            let (queue, set) = (&mut self.types[of as usize], resources.get(of));
            if queue.has_updates_from(set) {
                continue;
            }
            if queue.session.is_waiting() {
                clusters_are_late |= of == ResourceType::Cluster;
                continue;
            }
            let uses_clusters = matches!(of, ResourceType::Listener | ResourceType::RouteConfiguration);
            if uses_clusters && clusters_are_late {
                continue;
            }
            let response = queue.next_updates(of, set);
            if of == ResourceType::Cluster && self.resends_endpoints {
                let clusters = response.iter().flat_map(V::contents);
                self.endpoints_due.extend(clusters.filter_map(load_assignment_of));
            }
            responses.extend(response.map(|response| (of, response)));
        }
        responses
    }

    /// Has the endpoints of the clusters that were sent follow them. They wait for the proxy to ask for endpoints at all: after a
    /// reconnect it says what it holds, and counts on what comes for the changed clusters.
    fn resend_endpoints(&mut self) {
        let queue = &mut self.types[ResourceType::ClusterLoadAssignment as usize];
        if !queue.requested {
            return;
        }
        for name in std::mem::take(&mut self.endpoints_due) {
            if queue.session.resend(&name) {
                queue.updates_from = None;
            }
        }
    }

    fn next_removals(&mut self, resources: &Resources) -> Vec<(ResourceType, V::Response)> {
        let mut responses = Vec::new();
        let users = [ResourceType::Listener, ResourceType::RouteConfiguration];
        let users_are_current = users.into_iter().all(|of| {
            let queue = &self.types[of as usize];
            queue.has_updates_from(resources.get(of))
                && !queue.session.is_waiting()
                && queue.session.rejected().next().is_none()
        });
        for of in REMOVAL_ORDER {
            let (queue, set) = (&mut self.types[of as usize], resources.get(of));
            let is_ready = queue.has_updates_from(set) && !queue.session.is_waiting();
            if queue.has_removals_from(set) || !is_ready {
                continue;
            }
            let may_remove = users_are_current || users.contains(&of);
            if !may_remove && queue.has_removals(set) {
                continue;
            }
            responses.extend(queue.next_removals(set).map(|response| (of, response)));
        }
        responses
    }
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
