//! The order of what is pushed, in both variants of the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use ResourceType::{Cluster, ClusterLoadAssignment as Endpoints, Listener, RouteConfiguration as Route};
use outrigger_xds_api::resource::name_of;
use outrigger_xds_api::session::{delta, sotw};
use outrigger_xds_api::wire::cluster::v3 as wire;
use outrigger_xds_api::wire::cluster::v3::cluster::EdsClusterConfig;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::rpc::Status;
use prost::Message as _;

use super::*;

/// What a proxy says in one of the variants.
trait Dialect: Variant {
    /// A request for `names`, which answers `response`, if there is one.
    fn request(
        of: ResourceType,
        names: &[&str],
        response: Option<(&Self::Response, Option<&str>)>,
    ) -> Self::Request;
    /// What is in a response.
    fn shown(response: &Self::Response) -> String;
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn status(message: &str) -> Status {
    Status { code: 3, message: message.to_owned(), details: vec![] }
}

impl Dialect for delta::Server {
    fn request(
        of: ResourceType,
        names: &[&str],
        response: Option<(&DeltaDiscoveryResponse, Option<&str>)>,
    ) -> DeltaDiscoveryRequest {
        let type_url = of.type_url().to_owned();
        let Some((response, error)) = response else {
            let resource_names_subscribe = owned(names);
            return DeltaDiscoveryRequest { type_url, resource_names_subscribe, ..Default::default() };
        };
        let response_nonce = response.nonce.clone();
        DeltaDiscoveryRequest {
            type_url,
            response_nonce,
            error_detail: error.map(status),
            ..Default::default()
        }
    }

    /// ` +updated -removed`
    fn shown(response: &DeltaDiscoveryResponse) -> String {
        let updated = response.resources.iter().map(|resource| format!(" +{}", resource.name));
        updated.chain(response.removed_resources.iter().map(|name| format!(" -{name}"))).collect()
    }
}

impl Dialect for sotw::Server {
    fn request(
        of: ResourceType,
        names: &[&str],
        response: Option<(&DiscoveryResponse, Option<&str>)>,
    ) -> DiscoveryRequest {
        let (type_url, resource_names) = (of.type_url().to_owned(), owned(names));
        let Some((response, error)) = response else {
            return DiscoveryRequest { type_url, resource_names, ..Default::default() };
        };
        let (response_nonce, error_detail) = (response.nonce.clone(), error.map(status));
        DiscoveryRequest { type_url, resource_names, response_nonce, error_detail, ..Default::default() }
    }

    /// ` name` of each resource
    fn shown(response: &DiscoveryResponse) -> String {
        response.resources.iter().map(|any| format!(" {}", name_of(any).unwrap())).collect()
    }
}

/// A proxy that asks for all clusters and listeners, the endpoints `a` and `b` and the route `r`.
struct Proxy<V: Variant> {
    queue: PushQueue<V>,
}

type Pushed<V> = (ResourceType, <V as Variant>::Response);

impl<V: Dialect> Proxy<V> {
    fn new() -> Self {
        Self::with(ClientFeatures::default())
    }

    fn with(features: ClientFeatures) -> Self {
        let mut proxy = Self { queue: PushQueue::new(features) };
        for of in [Route, Listener, Endpoints, Cluster] {
            proxy.ask(of);
        }
        proxy
    }

    fn ask(&mut self, of: ResourceType) {
        self.queue.on_request(of, &V::request(of, Self::names(of), None)).unwrap();
    }

    /// One that accepted `first`.
    fn settled(first: &Resources) -> Self {
        Self::new().settle(first)
    }

    fn settle(self, first: &Resources) -> Self {
        let mut proxy = self;
        for response in proxy.queue.next(first) {
            proxy.answer(&response, None);
        }
        assert!(proxy.queue.next(first).is_empty() && proxy.queue.is_all_settled(first));
        proxy
    }

    fn names(of: ResourceType) -> &'static [&'static str] {
        match of {
            Route => &["r"],
            Endpoints => &["a", "b"],
            _ => &[],
        }
    }

    /// `type resources` of each response.
    fn shown(pushed: &[Pushed<V>]) -> Vec<String> {
        pushed.iter().map(|(of, response)| format!("{of}{}", V::shown(response))).collect()
    }

    fn answer(&mut self, (of, response): &Pushed<V>, error: Option<&str>) {
        let request = V::request(*of, Self::names(*of), Some((response, error)));
        self.queue.on_request(*of, &request).unwrap();
    }
}

/// Clusters for all types: the sessions look at names and versions only.
fn set(resources: &[(&str, &str)]) -> ResourceSet {
    let cluster = |name: &str, body: &str| {
        let (name, alt_stat_name) = (name.to_owned(), body.to_owned());
        let eds_cluster_config = Some(EdsClusterConfig::default());
        wire::Cluster { name, alt_stat_name, eds_cluster_config, ..Default::default() }.encode_to_vec()
    };
    let own = resources
        .iter()
        .map(|(name, body)| Arc::new(Resource::new(Cluster, name, cluster(name, body))))
        .map(|resource| (Arc::clone(&resource.name), resource))
        .collect();
    ResourceSet::of(Arc::default(), Arc::new(own))
}

fn resources(sets: &[(ResourceType, &[(&str, &str)])]) -> Resources {
    let mut all = Resources::default();
    for (of, content) in sets {
        all.set(*of, set(content));
    }
    all
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
    let old = resources(OLD);
    let pushed = Proxy::<delta::Server>::new().queue.next(&old);
    assert_eq!(Proxy::<delta::Server>::shown(&pushed), ["cds +a +b", "eds +a +b", "lds +l +m", "rds +r"]);
    let pushed = Proxy::<sotw::Server>::new().queue.next(&old);
    assert_eq!(Proxy::<sotw::Server>::shown(&pushed), ["cds a b", "eds a b", "lds l m", "rds r"]);
}

/// Updates first; then `listener`'s removal, and that of the rest.
fn removals_come_last<V: Dialect>(updates: [&str; 4], listener: &str, rest: &[&str]) {
    let (old, new) = (resources(OLD), resources(NEW));
    let mut proxy = Proxy::<V>::settled(&old);
    let pushed = proxy.queue.next(&new);
    assert_eq!(Proxy::<V>::shown(&pushed), updates);
    // Until the listener and the route are accepted, the old cluster stays.
    proxy.answer(&pushed[0], None);
    proxy.answer(&pushed[1], None);
    assert!(proxy.queue.next(&new).is_empty());
    proxy.answer(&pushed[2], None);
    let removal = proxy.queue.next(&new);
    assert_eq!(Proxy::<V>::shown(&removal), [listener]);
    proxy.answer(&pushed[3], None);
    assert!(proxy.queue.next(&new).is_empty(), "the listener's removal is not answered yet");
    proxy.answer(&removal[0], None);
    let removals = proxy.queue.next(&new);
    assert_eq!(Proxy::<V>::shown(&removals), rest);
    assert!(!proxy.queue.is_all_settled(&new));
    removals.iter().for_each(|removal| proxy.answer(removal, None));
    assert!(proxy.queue.next(&new).is_empty() && proxy.queue.is_all_settled(&new));
}

#[test]
fn removals_come_last_and_users_go_before_what_they_use() {
    removals_come_last::<delta::Server>(
        ["cds +c", "eds +a", "lds +l", "rds +r"],
        "lds -m",
        &["cds -b", "eds -b"],
    );
    // An update repeats what is to go. For other types than clusters and listeners nothing says that it is gone.
    removals_come_last::<sotw::Server>(["cds a b c", "eds a", "lds l m", "rds r"], "lds l", &["cds a c"]);
}

fn a_rejected_route_keeps_its_clusters<V: Dialect>(listener: &str, rest: &[&str]) {
    let (old, new) = (resources(OLD), resources(NEW));
    let mut proxy = Proxy::<V>::settled(&old);
    for response in proxy.queue.next(&new) {
        let error = (response.0 == Route).then_some("no");
        proxy.answer(&response, error);
    }
    let removals = proxy.queue.next(&new);
    assert_eq!(Proxy::<V>::shown(&removals), [listener]);
    proxy.answer(&removals[0], None);
    assert!(proxy.queue.next(&new).is_empty(), "cluster b is still in use");
    assert_eq!(proxy.queue.counts(Route), (1, vec!["r".to_owned()]));
    assert!(!proxy.queue.is_settled(Cluster, &new), "what has to go is not gone yet");
    let mut fixed = new.clone();
    fixed.set(Route, set(&[("r", "to c, well")]));
    let update = proxy.queue.next(&fixed);
    assert_eq!(update.len(), 1);
    proxy.answer(&update[0], None);
    assert_eq!(Proxy::<V>::shown(&proxy.queue.next(&fixed)), rest);
}

#[test]
fn a_rejected_route_keeps_its_clusters_in_both_variants() {
    a_rejected_route_keeps_its_clusters::<delta::Server>("lds -m", &["cds -b", "eds -b"]);
    a_rejected_route_keeps_its_clusters::<sotw::Server>("lds l", &["cds a c"]);
}

fn a_rejected_route_holds_nobody_up<V: Dialect>() {
    let old = resources(OLD);
    let mut proxy = Proxy::<V>::settled(&old);
    let mut new = old.clone();
    new.set(Cluster, set(&[("a", "2"), ("b", "1")]));
    new.set(Route, set(&[("r", "broken")]));
    for response in proxy.queue.next(&new) {
        let error = (response.0 == Route).then_some("no");
        proxy.answer(&response, error);
    }
    assert!(proxy.queue.next(&new).is_empty());
    assert!(proxy.queue.is_all_settled(&new));
}

#[test]
fn a_rejected_route_holds_nobody_up_who_loses_nothing() {
    a_rejected_route_holds_nobody_up::<delta::Server>();
    a_rejected_route_holds_nobody_up::<sotw::Server>();
}

fn changes_merge<V: Dialect>(first: &str, overtakes: &str, later: [&str; 2]) {
    let old = resources(OLD);
    let mut proxy = Proxy::<V>::settled(&old);
    let mut second = old.clone();
    second.set(Cluster, set(&[("a", "2"), ("b", "1")]));
    let pushed = proxy.queue.next(&second);
    assert_eq!(Proxy::<V>::shown(&pushed), [first]);
    let mut third = second.clone();
    third.set(Cluster, set(&[("a", "3"), ("b", "3")]));
    third.set(Endpoints, set(&[("a", "3"), ("b", "1")]));
    third.set(Route, set(&[("r", "3")]));
    assert_eq!(Proxy::<V>::shown(&proxy.queue.next(&third)), [overtakes], "the route waits for the clusters");
    assert!(!proxy.queue.is_settled(Route, &third));
    proxy.answer(&pushed[0], None);
    assert_eq!(Proxy::<V>::shown(&proxy.queue.next(&third)), later);
}

#[test]
fn changes_merge_behind_an_unanswered_response_and_endpoints_overtake() {
    changes_merge::<delta::Server>("cds +a", "eds +a", ["cds +a +b", "rds +r"]);
    changes_merge::<sotw::Server>("cds a b", "eds a", ["cds a b", "rds r"]);
}

/// An Envoy waits for the endpoints of a changed cluster; it would wait in vain.
#[test]
fn endpoints_follow_a_changed_cluster_to_an_envoy() {
    let envoy = || ClientFeatures { needs_endpoints_again: true, ..ClientFeatures::default() };
    let old = resources(OLD);
    let mut new = old.clone();
    new.set(Cluster, set(&[("a", "2"), ("b", "1"), ("c", "1")]));
    let mut proxy = Proxy::<delta::Server>::with(envoy()).settle(&old);
    let pushed = proxy.queue.next(&new);
    assert_eq!(Proxy::<delta::Server>::shown(&pushed), ["cds +a +c", "eds +a"], "`c` is not asked for yet");
    pushed.iter().for_each(|response| proxy.answer(response, None));
    assert!(proxy.queue.next(&new).is_empty() && proxy.queue.is_all_settled(&new));

    // In the state of the world it asks, and others need nothing.
    let pushed = Proxy::<sotw::Server>::with(envoy()).settle(&old).queue.next(&new);
    assert_eq!(Proxy::<sotw::Server>::shown(&pushed), ["cds a b c"]);
    let pushed = Proxy::<delta::Server>::settled(&old).queue.next(&new);
    assert_eq!(Proxy::<delta::Server>::shown(&pushed), ["cds +a +c"]);
}

/// After a reconnect an Envoy tells the endpoints that it has, perhaps after the changed cluster went out.
#[test]
fn endpoints_follow_a_changed_cluster_after_a_reconnect() {
    let mut new = resources(OLD);
    new.set(Cluster, set(&[("a", "2"), ("b", "1")]));
    let features = ClientFeatures { needs_endpoints_again: true, ..ClientFeatures::default() };
    let mut proxy = Proxy::<delta::Server> { queue: PushQueue::new(features) };
    let held = |of: ResourceType| {
        let old = resources(OLD);
        let versions = old.get(of).iter().map(|held| (held.name.to_string(), held.version.to_string()));
        let initial_resource_versions = versions.collect();
        let names = Proxy::<delta::Server>::names(of);
        DeltaDiscoveryRequest { initial_resource_versions, ..delta::Server::request(of, names, None) }
    };
    proxy.queue.on_request(Cluster, &held(Cluster)).unwrap();
    assert_eq!(Proxy::<delta::Server>::shown(&proxy.queue.next(&new)), ["cds +a"]);
    proxy.queue.on_request(Endpoints, &held(Endpoints)).unwrap();
    assert_eq!(Proxy::<delta::Server>::shown(&proxy.queue.next(&new)), ["eds +a"]);
}

/// What left in one change stays through further changes until removals are sent, and what comes back is not removed.
#[test]
fn the_state_of_the_world_keeps_what_leaves_until_removals_are_sent() {
    let mut proxy = Proxy::<sotw::Server>::settled(&resources(OLD));
    let change = |clusters: &[(&str, &str)], route| {
        let mut changed = resources(OLD);
        changed.set(Cluster, set(clusters));
        changed.set(Route, set(&[("r", route)]));
        changed
    };
    let second = change(&[("a", "1"), ("c", "1")], "to c");
    let pushed = proxy.queue.next(&second);
    assert_eq!(Proxy::<sotw::Server>::shown(&pushed), ["cds a b c", "rds r"]);
    proxy.answer(&pushed[0], None);
    let third = change(&[("d", "1")], "to d");
    let late = proxy.queue.next(&third);
    assert_eq!(Proxy::<sotw::Server>::shown(&late), ["cds a b c d"], "the route's answer is not here");
    proxy.answer(&late[0], None);
    proxy.answer(&pushed[1], None);
    let fourth = change(&[("b", "1"), ("d", "1")], "to d");
    let route = proxy.queue.next(&fourth);
    assert_eq!(Proxy::<sotw::Server>::shown(&route), ["rds r"], "`b` is there already");
    proxy.answer(&route[0], None);
    assert_eq!(Proxy::<sotw::Server>::shown(&proxy.queue.next(&fourth)), ["cds b d"]);
    assert!(proxy.queue.types.iter().all(|queue| queue.leaving.is_empty()), "nothing is kept for longer");
}
