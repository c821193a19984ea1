//! The push queue of one proxy: what to send next, of which type, and when to hold back.
//!
//! A pure state machine over the delta sessions of all types of one stream; no I/O, no clock. The rules:
//!
//! * At most one response of a type waits for its answer; changes that come meanwhile merge into the next.
//! * Updates go out in the order CDS, EDS, LDS, RDS, SDS. Listeners and routes wait while clusters have changes
//!   that cannot go out yet. Endpoints and secrets never wait for another type: they break nothing.
//! * Removals come after the updates, users before what they use: a listener, a route, a cluster, its endpoints, a
//!   secret. Clusters and what is below them stay until every update of a listener or route has been accepted, for a
//!   proxy that rejected the new routes still runs by the old ones, which may need the old clusters.
//! * Nothing is compared while the sets are the same ones as before (two pointer comparisons a type).

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{self, ClientFeatures, InvalidRequest, Outcome, Part, delta};
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::scope::ScopeKey;
use crate::snapshot::{Resource, ResourceSet, Snapshot};

/// Users before what they use.
const REMOVAL_ORDER: [ResourceType; 5] = [
    ResourceType::Listener,
    ResourceType::RouteConfiguration,
    ResourceType::Cluster,
    ResourceType::ClusterLoadAssignment,
    ResourceType::Secret,
];

/// Everything that one proxy gets at one moment.
#[derive(Clone, Default)]
pub(crate) struct Resources([ResourceSet; ResourceType::ALL.len()]);

impl Resources {
    /// What the proxy of `scope` gets by `snapshot`.
    pub(crate) fn of(snapshot: &Snapshot, scope: &ScopeKey) -> Self {
        Self(ResourceType::ALL.map(|of| snapshot.resources(scope, of)))
    }

    /// What it gets of one type.
    pub(super) fn get(&self, of: ResourceType) -> &ResourceSet {
        &self.0[of as usize]
    }

    #[cfg(test)]
    pub(crate) fn set(&mut self, of: ResourceType, set: ResourceSet) {
        self.0[of as usize] = set;
    }
}

struct View<'a>(&'a ResourceSet);

impl session::View for View<'_> {
    fn get(&self, name: &str) -> Option<session::Resource<'_>> {
        let resource = self.0.get(name)?;
        Some(session::Resource { version: &resource.version, content: &resource.content, ttl: None })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|resource| &*resource.name)
    }
}

/// The sessions of one stream.
pub(crate) struct PushQueue {
    types: [TypeQueue; ResourceType::ALL.len()],
}

struct TypeQueue {
    session: delta::Server,
    requested: bool,
    /// The set that updates, and the one that removals, were last computed from.
    updates_from: Option<ResourceSet>,
    removals_from: Option<ResourceSet>,
}

impl TypeQueue {
    fn has_updates_from(&self, set: &ResourceSet) -> bool {
        !self.requested || self.updates_from.as_ref().is_some_and(|last| last.same_as(set))
    }

    fn has_removals_from(&self, set: &ResourceSet) -> bool {
        !self.requested || self.removals_from.as_ref().is_some_and(|last| last.same_as(set))
    }
}

impl PushQueue {
    /// The queue of a new stream.
    pub(crate) fn new() -> Self {
        Self {
            types: ResourceType::ALL.map(|of| TypeQueue {
                session: delta::Server::new(of, ClientFeatures::default()),
                requested: false,
                updates_from: None,
                removals_from: None,
            }),
        }
    }

    /// Takes in a request; ask for [`PushQueue::next`] afterwards.
    pub(crate) fn on_request(
        &mut self,
        of: ResourceType,
        request: &DeltaDiscoveryRequest,
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

    /// The responses to send now, in this order.
    pub(crate) fn next(&mut self, resources: &Resources) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = self.next_updates(resources);
        responses.extend(self.next_removals(resources));
        responses
    }

    /// Whether the proxy has been sent everything of type `of` and has answered.
    pub(crate) fn is_settled(&self, of: ResourceType, resources: &Resources) -> bool {
        let (queue, set) = (&self.types[of as usize], resources.get(of));
        queue.has_updates_from(set) && queue.has_removals_from(set) && !queue.session.is_waiting()
    }

    /// Whether everything of every type is settled.
    pub(crate) fn is_all_settled(&self, resources: &Resources) -> bool {
        ResourceType::ALL.into_iter().all(|of| self.is_settled(of, resources))
    }

    /// How many resources of type `of` the proxy accepted, and the names of those that it rejected.
    pub(crate) fn counts(&self, of: ResourceType) -> (usize, Vec<String>) {
        let session = &self.types[of as usize].session;
        (session.held().count(), session.rejected().map(|(name, _)| name.to_owned()).collect())
    }

    /// Whether the proxy rejected this very version of a resource.
    pub(crate) fn has_rejected(&self, of: ResourceType, resource: &Resource) -> bool {
        let mut rejected = self.types[of as usize].session.rejected();
        rejected.any(|(name, version)| *name == *resource.name && *version == *resource.version)
    }

    fn next_updates(&mut self, resources: &Resources) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        let mut clusters_are_late = false;
        for of in ResourceType::ALL {
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
            responses.extend(queue.session.next_response(&View(set), Part::Updates));
            queue.updates_from = Some(set.clone());
        }
        responses
    }

    fn next_removals(&mut self, resources: &Resources) -> Vec<DeltaDiscoveryResponse> {
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
            if !may_remove && queue.session.has_removals(&View(set)) {
                continue;
            }
            responses.extend(queue.session.next_response(&View(set), Part::Removals));
            queue.removals_from = Some(set.clone());
        }
        responses
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use ResourceType::{Cluster, ClusterLoadAssignment as Endpoints, Listener, RouteConfiguration as Route};
    use outrigger_xds_api::wire::rpc::Status;
    use std::sync::Arc;

    fn set(resources: &[(&str, &str)]) -> ResourceSet {
        let own = resources
            .iter()
            // The session looks at names and versions only, so one type does for all.
            .map(|(name, body)| Arc::new(Resource::new(Cluster, name, body.as_bytes().to_vec())))
            .map(|resource| (Arc::clone(&resource.name), resource))
            .collect();
        ResourceSet { shared: Arc::default(), own: Arc::new(own) }
    }

    fn resources(sets: &[(ResourceType, &[(&str, &str)])]) -> Resources {
        let mut all = Resources::default();
        for (of, content) in sets {
            all.set(*of, set(content));
        }
        all
    }

    fn request(of: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: of.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn answer(queue: &mut PushQueue, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let of = ResourceType::from_type_url(&response.type_url).unwrap();
        let mut answer = request(of, &[]);
        answer.response_nonce.clone_from(&response.nonce);
        answer.error_detail =
            error.map(|message| Status { code: 3, message: message.to_owned(), details: vec![] });
        queue.on_request(of, &answer).unwrap();
    }

    /// `type +updated -removed` of each response.
    fn shown(responses: &[DeltaDiscoveryResponse]) -> Vec<String> {
        responses
            .iter()
            .map(|response| {
                let of = ResourceType::from_type_url(&response.type_url).unwrap();
                let updated = response.resources.iter().map(|resource| format!(" +{}", resource.name));
                let removed = response.removed_resources.iter().map(|name| format!(" -{name}"));
                format!("{of}{}", updated.chain(removed).collect::<String>())
            })
            .collect()
    }

    /// A proxy that subscribed to everything and accepted `first`.
    fn settled(first: &Resources, endpoints: &[&str], routes: &[&str]) -> PushQueue {
        let mut queue = PushQueue::new();
        queue.on_request(Cluster, &request(Cluster, &[])).unwrap();
        queue.on_request(Listener, &request(Listener, &[])).unwrap();
        queue.on_request(Endpoints, &request(Endpoints, endpoints)).unwrap();
        queue.on_request(Route, &request(Route, routes)).unwrap();
        for response in queue.next(first) {
            answer(&mut queue, &response, None);
        }
        assert!(shown(&queue.next(first)).is_empty() && queue.is_all_settled(first));
        queue
    }

    const OLD: &[(ResourceType, &[(&str, &str)])] = &[
        (Cluster, &[("a", "1"), ("b", "1")]),
        (Endpoints, &[("a", "1"), ("b", "1")]),
        (Listener, &[("l", "1"), ("m", "1")]),
        (Route, &[("r", "to b")]),
    ];
    /// Cluster `b` gives way to `c`, listener `m` goes, the route follows.
    const NEW: &[(ResourceType, &[(&str, &str)])] = &[
        (Cluster, &[("a", "1"), ("c", "1")]),
        (Endpoints, &[("a", "2")]),
        (Listener, &[("l", "2")]),
        (Route, &[("r", "to c")]),
    ];

    #[test]
    fn first_push_follows_the_order_of_types() {
        let mut queue = PushQueue::new();
        for of in [Route, Listener, Endpoints, Cluster] {
            let names: &[&str] = match of {
                Route => &["r"],
                Endpoints => &["a"],
                _ => &[],
            };
            queue.on_request(of, &request(of, names)).unwrap();
        }
        assert_eq!(shown(&queue.next(&resources(OLD))), ["cds +a +b", "eds +a", "lds +l +m", "rds +r"]);
    }

    #[test]
    fn removals_come_last_and_users_go_before_what_they_use() {
        let (old, new) = (resources(OLD), resources(NEW));
        let mut queue = settled(&old, &["a", "b"], &["r"]);
        let updates = queue.next(&new);
        assert_eq!(shown(&updates), ["cds +c", "eds +a", "lds +l", "rds +r"]);
        // Until the listener and the route are accepted, the old cluster stays.
        answer(&mut queue, &updates[0], None);
        answer(&mut queue, &updates[1], None);
        assert!(shown(&queue.next(&new)).is_empty());
        answer(&mut queue, &updates[2], None);
        assert_eq!(shown(&queue.next(&new)), ["lds -m"]);
        answer(&mut queue, &updates[3], None);
        assert!(shown(&queue.next(&new)).is_empty(), "the listener's removal is not answered yet");
        let mut removal = request(Listener, &[]);
        removal.response_nonce = "3".to_owned();
        queue.on_request(Listener, &removal).unwrap();
        assert_eq!(shown(&queue.next(&new)), ["cds -b", "eds -b"]);
        assert!(!queue.is_all_settled(&new));
    }

    #[test]
    fn a_rejected_route_keeps_its_clusters() {
        let (old, new) = (resources(OLD), resources(NEW));
        let mut queue = settled(&old, &["a", "b"], &["r"]);
        for response in queue.next(&new) {
            let error = (response.type_url == Route.type_url()).then_some("no");
            answer(&mut queue, &response, error);
        }
        let removals = queue.next(&new);
        assert_eq!(shown(&removals), ["lds -m"]);
        answer(&mut queue, &removals[0], None);
        assert!(shown(&queue.next(&new)).is_empty(), "cluster b is still in use");
        assert_eq!(queue.counts(Route), (1, vec!["r".to_owned()]));
        assert!(!queue.is_settled(Cluster, &new), "what has to go is not gone yet");
        let mut fixed = new.clone();
        fixed.set(Route, set(&[("r", "to c, well")]));
        let update = queue.next(&fixed);
        assert_eq!(shown(&update), ["rds +r"]);
        answer(&mut queue, &update[0], None);
        assert_eq!(shown(&queue.next(&fixed)), ["cds -b", "eds -b"]);
    }

    #[test]
    fn a_rejected_route_holds_nobody_up_who_loses_nothing() {
        let old = resources(OLD);
        let mut queue = settled(&old, &["a", "b"], &["r"]);
        let mut new = old.clone();
        new.set(Cluster, set(&[("a", "2"), ("b", "1")]));
        new.set(Route, set(&[("r", "broken")]));
        for response in queue.next(&new) {
            let error = (response.type_url == Route.type_url()).then_some("no");
            answer(&mut queue, &response, error);
        }
        assert!(shown(&queue.next(&new)).is_empty());
        assert!(queue.is_all_settled(&new));
    }

    #[test]
    fn changes_merge_behind_an_unanswered_response_and_endpoints_overtake() {
        let old = resources(OLD);
        let mut queue = settled(&old, &["a", "b"], &["r"]);
        let mut second = old.clone();
        second.set(Cluster, set(&[("a", "2"), ("b", "1")]));
        let first = queue.next(&second);
        assert_eq!(shown(&first), ["cds +a"]);
        let mut third = second.clone();
        third.set(Cluster, set(&[("a", "3"), ("b", "3")]));
        third.set(Endpoints, set(&[("a", "3"), ("b", "1")]));
        third.set(Route, set(&[("r", "3")]));
        assert_eq!(shown(&queue.next(&third)), ["eds +a"], "the route waits for the clusters");
        assert!(!queue.is_settled(Route, &third));
        answer(&mut queue, &first[0], None);
        assert_eq!(shown(&queue.next(&third)), ["cds +a +b", "rds +r"]);
    }
}
