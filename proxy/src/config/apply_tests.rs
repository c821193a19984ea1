//! Warming as a whole: any order of arrival ends in the same state, and no state on the way is half-applied.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outrigger_xds_api::ResourceType::{
    self, Cluster, ClusterLoadAssignment, Listener, RouteConfiguration, Secret,
};
use tokio::time::Instant;

use super::configuration::Configuration;
use super::listeners::Change;
use super::sources::SourceId;
use super::testing::{apply, configuration, published_routes, remove};
use super::warming::WARMING_TIMEOUT;
use super::watch::Watch;
use crate::cluster::lb;
use crate::http::RouteSource;
use crate::listener::NetworkFilter;

const CLUSTER: &str = "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, transport_socket: {name: tls, typed_config: \
     {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: \
     {validation_context_sds_secret_config: {name: roots, sds_config: {ads: {}}}}}}}";
const ENDPOINTS: &str = "{cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: \
     {address: 127.0.0.1, port_value: 80}}}}]}]}";
const ROUTES: &str = "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}";
const LISTENER: &str = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: \
     [{name: f, filters: [{name: hcm, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.\
     http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, rds: {route_config_name: r, config_source: {ads: {}}}, \
     http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.\
     Router}}]}}]}]}";
const SECRET: &str = "{name: roots, validation_context: {verify_certificate_hash: \
     df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a}}";

const ORIGINAL_DST: &str = "{name: o, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, cleanup_interval: 1s, original_dst_lb_config: \
     {upstream_port_override: 15006}}";
const VIRTUAL: &str = "{name: v, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, use_original_dst: true, bind_to_port: \
     false, listener_filters: [{name: h, filter_disabled: {or_match: {rules: [{destination_port_range: {start: 25, end: 26}}, \
     {not_match: {any_match: true}}]}}, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.\
     http_inspector.v3.HttpInspector}}], filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.\
     extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: o}}]}]}";

const ALL: [(ResourceType, &str, &str); 5] = [
    (Cluster, "c", CLUSTER),
    (ClusterLoadAssignment, "c", ENDPOINTS),
    (RouteConfiguration, "r", ROUTES),
    (Listener, "l", LISTENER),
    (Secret, "roots", SECRET),
];

/// Everything that is asked for by name is wanted, referred to or not: a source may answer late.
fn want_all(configuration: &mut Configuration) -> Vec<Watch> {
    let by_name = [(ClusterLoadAssignment, "c"), (RouteConfiguration, "r"), (Secret, "roots")];
    let watches = &mut configuration.inputs_mut().watches;
    by_name.map(|(resource_type, name)| watches.watch(SourceId::ADS, resource_type, name)).into()
}

/// What a request could see: published listeners lead to published routes, these to published clusters with endpoints.
fn check_complete(configuration: &Configuration) {
    let registry = &configuration.inputs().registry;
    for (_, listener) in registry.listeners.published() {
        for chain in listener.filter_chains.iter() {
            let NetworkFilter::Http(manager) = &chain.filter else { continue };
            let manager = manager.get();
            let RouteSource::Rds(routes) = &manager.routes else { continue };
            assert!(routes.peek().is_some(), "a listener without its routes");
        }
    }
    for (_, routes) in registry.routes.iter().flat_map(|(_, routes)| routes.published()) {
        for name in names(&routes) {
            let cluster = registry.clusters.get(&name).expect("a route without its cluster");
            assert!(cluster.endpoints.peek().is_some(), "a cluster without its endpoints");
        }
    }
}

fn names(routes: &crate::route::RouteConfiguration) -> Vec<Arc<str>> {
    use crate::route::{Action, ClusterSource, Clusters};
    let all = routes.virtual_hosts.iter().flat_map(|v| &v.routes);
    all.flat_map(|route| match &route.action {
        Action::Route(action) => match &action.clusters {
            Clusters::Single(cluster) => vec![cluster.name().clone()],
            Clusters::Weighted { clusters, .. } => {
                let named = |c: &crate::route::WeightedCluster| match &c.cluster {
                    ClusterSource::Named(cluster) => Some(cluster.name().clone()),
                    ClusterSource::Header(_) => None,
                };
                clusters.iter().filter_map(named).collect()
            }
            Clusters::Header(_) => Vec::new(),
        },
        _ => Vec::new(),
    })
    .collect()
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(n - 1) {
        for at in 0..n {
            let mut longer = shorter.clone();
            longer.insert(at, n - 1);
            all.push(longer);
        }
    }
    all
}

#[test]
fn every_order_of_arrival_ends_in_the_same_state() {
    let orders = permutations(ALL.len());
    assert_eq!(orders.len(), 120);
    for order in orders {
        let mut configuration = configuration();
        let _wanted = want_all(&mut configuration);
        let now = Instant::now();
        for (step, i) in order.iter().enumerate() {
            let (resource_type, name, yaml) = ALL[*i];
            assert_eq!(apply(&mut configuration, resource_type, name, yaml, now), []);
            check_complete(&configuration);
            let done = configuration.inputs().registry.listeners.get("l").is_some();
            assert_eq!(done, step + 1 == ALL.len(), "{order:?}: the listener needs all of them");
        }
        assert!(configuration.is_initialized(), "{order:?}");
    }
}

#[test]
fn what_is_wanted_follows_references() {
    let mut configuration = configuration();
    let now = Instant::now();
    let changes = |configuration: &mut Configuration| {
        let mut changes: Vec<_> = configuration
            .take_watch_changes()
            .into_iter()
            .map(|change| (change.key.resource_type, change.key.name.to_string(), change.is_wanted))
            .collect();
        changes.sort();
        changes
    };
    let change = |resource_type, name: &str, is_wanted| (resource_type, name.to_owned(), is_wanted);
    apply(&mut configuration, Cluster, "c", CLUSTER, now);
    apply(&mut configuration, Listener, "l", LISTENER, now);
    let by_name = [(ClusterLoadAssignment, "c"), (RouteConfiguration, "r"), (Secret, "roots")];
    assert_eq!(changes(&mut configuration), by_name.map(|(kind, name)| change(kind, name, true)));
    // The chain is kept, and with it what it refers to.
    let changed = LISTENER.replace("filter_chains: [", "listener_filters_timeout: 1s, filter_chains: [");
    apply(&mut configuration, Listener, "l", &changed, now);
    assert_eq!(changes(&mut configuration), []);
    apply(&mut configuration, RouteConfiguration, "r", ROUTES, now);
    remove(&mut configuration, Listener, "l", now);
    assert_eq!(changes(&mut configuration), [change(RouteConfiguration, "r", false)]);
    assert!(published_routes(&configuration, "r").is_none());
    // Nobody asked for it: it is not kept.
    apply(&mut configuration, RouteConfiguration, "r", ROUTES, now);
    assert!(configuration.routes().of(SourceId::ADS).unwrap().get("r").is_none());
    remove(&mut configuration, Cluster, "c", now);
    assert_eq!(
        changes(&mut configuration),
        [change(ClusterLoadAssignment, "c", false), change(Secret, "roots", false)]
    );
}

#[test]
fn sources_are_kept_apart() {
    let (mut configuration, now) = complete();
    let file =
        LISTENER.replace("config_source: {ads: {}}", "config_source: {path_config_source: {path: /empty/r}}");
    let file = file.replace("name: l,", "name: m,");
    assert_eq!(apply(&mut configuration, Listener, "m", &file, now), []);
    let is_there = |c: &Configuration| c.inputs().registry.listeners.get("m").is_some();
    assert!(!is_there(&configuration), "the routes of ADS are not those of the file");
    let [change] = configuration.take_watch_changes().try_into().unwrap_or_else(|all| panic!("{all:?}"));
    assert!(change.key.source != SourceId::ADS && change.is_wanted);
    let routes = super::testing::resource(RouteConfiguration, "{name: r}");
    let update = super::apply::Update { name: "r", version: "f", resource: &routes, aliases: &[] };
    assert_eq!(configuration.apply(change.key.source, RouteConfiguration, &[update], &[], now), []);
    assert!(is_there(&configuration));
    assert_eq!(super::testing::published_version(&configuration, "r").as_deref(), Some("1"));
}

#[test]
fn a_source_has_the_time_that_it_is_given() {
    let mut configuration = configuration();
    let now = Instant::now();
    let listener = |timeout: &str| {
        let source = format!("config_source: {{ads: {{}}, initial_fetch_timeout: {timeout}}}");
        LISTENER.replace("config_source: {ads: {}}", &source)
    };
    let is_there = |c: &Configuration| c.inputs().registry.listeners.get("l").is_some();
    apply(&mut configuration, Listener, "l", &listener("0s"), now);
    configuration.settle(now + 100 * WARMING_TIMEOUT);
    assert!(!is_there(&configuration) && !configuration.is_initialized());
    apply(&mut configuration, Listener, "l", &listener("2s"), now);
    configuration.settle(now + Duration::from_millis(1999));
    assert!(!is_there(&configuration));
    configuration.settle(now + Duration::from_secs(2));
    assert!(is_there(&configuration) && configuration.is_initialized());
}

/// Everything is there; `now` is the time of the next step.
fn complete() -> (Configuration, Instant) {
    let mut configuration = configuration();
    let _wanted = want_all(&mut configuration);
    let now = Instant::now();
    for (resource_type, name, yaml) in ALL {
        assert_eq!(apply(&mut configuration, resource_type, name, yaml, now), []);
    }
    configuration.take_changes();
    configuration.take_watch_changes();
    (configuration, now)
}

#[test]
fn a_route_to_a_new_cluster_waits_for_it_and_the_old_one_serves_on() {
    let (mut configuration, now) = complete();
    let routes = ROUTES.replace("cluster: c", "cluster: d");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &routes, now), []);
    let published = |c: &Configuration| names(&published_routes(c, "r").unwrap());
    assert_eq!(published(&configuration), [Arc::<str>::from("c")]);
    // The old cluster is removed first: it stays for the routes that are published.
    remove(&mut configuration, Cluster, "c", now);
    check_complete(&configuration);
    assert_eq!(published(&configuration), [Arc::<str>::from("c")]);
    // Not even the deadline shows the half-applied state.
    configuration.settle(now + WARMING_TIMEOUT);
    assert_eq!(published(&configuration), [Arc::<str>::from("c")]);
    let cluster = "{name: d, type: STATIC, load_assignment: {cluster_name: d}}";
    assert_eq!(apply(&mut configuration, Cluster, "d", cluster, now), []);
    assert_eq!(published(&configuration), [Arc::<str>::from("d")]);
    assert!(configuration.clusters().get("c").is_none(), "nothing names it any more");
    assert!(configuration.inputs().registry.clusters.get("c").is_none());
    assert_eq!(configuration.next_deadline(), None);
}

#[test]
fn a_removed_cluster_that_comes_back_or_is_named_again_stays() {
    let (mut configuration, now) = complete();
    let pinned = published_routes(&configuration, "r");
    let elsewhere = ROUTES.replace("route: {cluster: c}", "redirect: {path_redirect: /}");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &elsewhere, now), []);
    remove(&mut configuration, Cluster, "c", now);
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", ROUTES, now), []);
    drop(pinned);
    configuration.settle(now);
    assert!(configuration.inputs().registry.clusters.get("c").is_some(), "it is named again");
    let pinned = published_routes(&configuration, "r");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &elsewhere, now), []);
    assert_eq!(apply(&mut configuration, Cluster, "c", CLUSTER, now), []);
    drop(pinned);
    configuration.settle(now);
    assert!(configuration.inputs().registry.clusters.get("c").is_some(), "it has come back");
}

#[test]
fn a_health_check_follows_a_cluster_and_does_not_keep_it() {
    let mut configuration = configuration();
    let now = Instant::now();
    let static_cluster = "{name: judged}";
    apply(&mut configuration, Cluster, "judged", static_cluster, now);
    let cell = configuration.inputs_mut().registry.judged_cluster("judged");
    assert!(cell.get().is_some());
    remove(&mut configuration, Cluster, "judged", now);
    configuration.settle(now + Duration::from_secs(5));
    assert!(cell.get().is_none(), "it went although somebody judges it");
    apply(&mut configuration, Cluster, "judged", static_cluster, now + Duration::from_secs(6));
    assert!(cell.get().is_some(), "it has come back");
}

#[test]
fn first_routes_are_published_at_the_deadline_although_a_cluster_is_missing() {
    let mut configuration = configuration();
    let _wanted = want_all(&mut configuration);
    let now = Instant::now();
    apply(&mut configuration, RouteConfiguration, "r", ROUTES, now);
    configuration.settle(now + WARMING_TIMEOUT - Duration::from_millis(1));
    assert!(published_routes(&configuration, "r").is_none());
    configuration.settle(now + WARMING_TIMEOUT);
    assert!(published_routes(&configuration, "r").is_some());
}

#[test]
fn endpoints_touch_one_cluster_and_keep_its_hosts() {
    let (mut configuration, now) = complete();
    let cluster = configuration.inputs().registry.clusters.get("c").unwrap();
    let before: Vec<_> = cluster.endpoints.get().unwrap().hosts().cloned().collect();
    let two = ENDPOINTS.replace(
        "lb_endpoints: [",
        "lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.2, port_value: 80}}}}, ",
    );
    assert_eq!(apply(&mut configuration, ClusterLoadAssignment, "c", &two, now), []);
    let after: Vec<_> = cluster.endpoints.get().unwrap().hosts().cloned().collect();
    assert_eq!(after.len(), 2);
    assert!(after.iter().any(|host| Arc::ptr_eq(host, &before[0])), "a host that stays is the same host");
    let same = configuration.inputs().registry.clusters.get("c").unwrap();
    assert!(Arc::ptr_eq(&cluster, &same), "endpoints do not touch the cluster");
}

#[test]
fn what_is_unchanged_keeps_its_identity() {
    let (mut configuration, now) = complete();
    let registry = |c: &Configuration| {
        let r = &c.inputs().registry;
        (r.clusters.get("c").unwrap(), published_routes(c, "r").unwrap(), r.listeners.get("l").unwrap())
    };
    let (cluster, routes, listener) = registry(&configuration);
    for (resource_type, name, yaml) in ALL {
        apply(&mut configuration, resource_type, name, yaml, now);
    }
    let (same_cluster, same_routes, same_listener) = registry(&configuration);
    assert!(Arc::ptr_eq(&cluster, &same_cluster) && Arc::ptr_eq(&routes, &same_routes));
    assert!(Arc::ptr_eq(&listener, &same_listener));

    // Another load balancing policy: connections, hosts and breakers stay.
    let changed = CLUSTER.replace("type: EDS,", "type: EDS, lb_policy: LEAST_REQUEST,");
    assert_eq!(apply(&mut configuration, Cluster, "c", &changed, now), []);
    let (new_cluster, same_routes, _) = registry(&configuration);
    assert!(!Arc::ptr_eq(&cluster, &new_cluster) && Arc::ptr_eq(&routes, &same_routes));
    assert!(Arc::ptr_eq(&cluster.connection, &new_cluster.connection));
    assert!(Arc::ptr_eq(&cluster.endpoints, &new_cluster.endpoints));
    assert!(Arc::ptr_eq(&cluster.circuit_breakers, &new_cluster.circuit_breakers));

    // One more virtual host: the other one stays.
    let changed = ROUTES.replace("virtual_hosts: [", "virtual_hosts: [{name: w, domains: [w]}, ");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &changed, now), []);
    let (_, new_routes, _) = registry(&configuration);
    assert!(Arc::ptr_eq(&routes.virtual_hosts[0], &new_routes.virtual_hosts[1]));

    // Another chain: the first one stays and nothing drains.
    let changed = LISTENER.replace("filter_chains: [", "listener_filters_timeout: 1s, filter_chains: [");
    assert_eq!(apply(&mut configuration, Listener, "l", &changed, now), []);
    let (_, _, new_listener) = registry(&configuration);
    let chains = |l: &crate::listener::Listener| l.filter_chains.iter().cloned().collect::<Vec<_>>();
    assert!(Arc::ptr_eq(&chains(&listener)[0], &chains(&new_listener)[0]));
    assert!(configuration.take_changes().is_empty());

    // What serves the chain changes below it; opened in another way, it is another chain.
    let prefix = || {
        let NetworkFilter::Http(live) = &chains(&listener)[0].filter else { panic!("not HTTP") };
        live.get().stat_prefix.clone()
    };
    let changed = LISTENER.replace("stat_prefix: s", "stat_prefix: t");
    assert_eq!(apply(&mut configuration, Listener, "l", &changed, now), []);
    assert!(configuration.take_changes().is_empty());
    assert_eq!(&*prefix(), "t");
    let changed = LISTENER.replace("stat_prefix: s", "stat_prefix: u, codec_type: HTTP1");
    assert_eq!(apply(&mut configuration, Listener, "l", &changed, now), []);
    let changes = configuration.take_changes();
    let [Change::DrainChains { gone, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(*gone, [chains(&listener)[0].id]);
    assert_eq!(&*prefix(), "t", "its connections end with what they had");
}

#[test]
fn what_serves_a_chain_changes_with_its_listener_and_not_before() {
    let (mut configuration, now) = complete();
    let _wanted = configuration.inputs_mut().watches.watch(SourceId::ADS, RouteConfiguration, "s");
    let routes = |c: &Configuration| {
        let listener = c.inputs().registry.listeners.get("l").unwrap();
        let chain = listener.filter_chains.iter().next().unwrap().clone();
        let NetworkFilter::Http(live) = &chain.filter else { panic!("not HTTP") };
        let manager = live.get();
        let RouteSource::Rds(routes) = &manager.routes else { panic!("not RDS") };
        routes.name().to_string()
    };
    let changed = LISTENER.replace("route_config_name: r", "route_config_name: s");
    assert_eq!(apply(&mut configuration, Listener, "l", &changed, now), []);
    assert_eq!(routes(&configuration), "r", "the new routes are not there yet");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "s", "{name: s}", now), []);
    assert_eq!(routes(&configuration), "s");
    assert!(configuration.take_changes().is_empty());
}

#[test]
fn an_invalid_resource_keeps_its_last_good_version_and_valid_siblings_apply() {
    let (mut configuration, now) = complete();
    let _wanted = configuration.inputs_mut().watches.watch(SourceId::ADS, RouteConfiguration, "s");
    let invalid = super::testing::resource(
        RouteConfiguration,
        &ROUTES.replace("cluster: c", "cluster: c, hedge_policy: {}"),
    );
    let valid = super::testing::resource(RouteConfiguration, "{name: s}");
    let updates = [
        super::apply::Update { name: "r", version: "2", resource: &invalid, aliases: &[] },
        super::apply::Update { name: "s", version: "2", resource: &valid, aliases: &[] },
    ];
    let rejected = configuration.apply(SourceId::ADS, RouteConfiguration, &updates, &[], now);
    assert_eq!(rejected.len(), 1);
    assert_eq!(
        rejected[0].to_string(),
        "route configuration 'r': virtual_hosts[0].routes[0].route.hedge_policy: not supported"
    );
    assert_eq!(super::testing::published_version(&configuration, "r").as_deref(), Some("1"));
    assert_eq!(super::testing::published_version(&configuration, "s").as_deref(), Some("2"));
}

#[test]
fn what_was_refused_for_a_file_is_tried_again() {
    let reads = Arc::new(AtomicUsize::new(0));
    let mut inputs = super::testing::inputs();
    let counter = reads.clone();
    inputs.read_file = Box::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Err(std::io::ErrorKind::NotFound.into())
    });
    let mut configuration = Configuration::new(inputs, 0);
    let sds = "validation_context_sds_secret_config: {name: roots, sds_config: {ads: {}}}";
    let cluster = CLUSTER.replace(sds, "validation_context: {trusted_ca: {filename: a.pem}}");
    for round in 1..3 {
        assert_eq!(apply(&mut configuration, Cluster, "c", &cluster, Instant::now()).len(), 1);
        assert_eq!(reads.load(Ordering::Relaxed), round);
    }
}

#[test]
fn a_removed_cluster_stays_for_a_request_under_way() {
    let (mut configuration, now) = complete();
    let pinned = published_routes(&configuration, "r");
    let elsewhere = ROUTES.replace("route: {cluster: c}", "direct_response: {status: 200}");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &elsewhere, now), []);
    remove(&mut configuration, Cluster, "c", now);
    let is_there =
        |configuration: &Configuration| configuration.inputs().registry.clusters.get("c").is_some();
    configuration.settle(now);
    assert!(is_there(&configuration));
    let later = configuration.next_deadline().unwrap();
    drop(pinned);
    configuration.settle(later);
    assert!(!is_there(&configuration));
    assert_eq!(configuration.next_deadline(), None);
}

#[test]
fn a_virtual_host_stays_when_a_sibling_changes() {
    let (mut configuration, now) = complete();
    let filter = |name: &str, of: &str| {
        format!("{name}: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{of}}}")
    };
    let said = [
        filter("a", "cors.v3.CorsPolicy"),
        filter("b", "fault.v3.HTTPFault"),
        filter("c", "header_mutation.v3.HeaderMutationPerRoute"),
    ]
    .join(", ");
    let mut kept: Option<Arc<crate::route::VirtualHost>> = None;
    for round in 200..220 {
        let routes = format!(
            "{{name: r, typed_per_filter_config: {{{said}}}, virtual_hosts: [{{name: v, domains: ['*'], typed_per_filter_config: {{{said}}}, \
             routes: [{{match: {{prefix: /}}, typed_per_filter_config: {{{said}}}, route: {{cluster: c}}}}]}}, {{name: w, domains: [w], \
             routes: [{{match: {{prefix: /}}, direct_response: {{status: {round}}}}}]}}]}}"
        );
        assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &routes, now), []);
        let published = published_routes(&configuration, "r").unwrap();
        let host = published.virtual_hosts.iter().find(|host| &*host.name == "v").unwrap().clone();
        if let Some(kept) = &kept {
            assert!(Arc::ptr_eq(kept, &host), "{round}");
        }
        kept = Some(host);
    }
}

#[test]
fn a_removed_listener_goes_with_its_sockets() {
    let (mut configuration, now) = complete();
    remove(&mut configuration, Listener, "l", now);
    assert!(configuration.inputs().registry.listeners.get("l").is_none());
    let changes = configuration.take_changes();
    assert!(matches!(changes.as_slice(), [Change::Stop { gone, .. }] if gone.len() == 1), "{changes:?}");
}

#[test]
fn two_listeners_never_share_an_address() {
    let mut configuration = configuration();
    let now = Instant::now();
    let listener = LISTENER.replace("port_value: 0", "port_value: 19999");
    assert_eq!(apply(&mut configuration, Listener, "l", &listener, now), []);
    let other = listener.replace("name: l,", "name: m,");
    let rejected = apply(&mut configuration, Listener, "m", &other, now);
    assert_eq!(
        rejected[0].to_string(),
        "listener 'm': address: error adding listener: 'm' has duplicate address '127.0.0.1:19999' as existing listener 'l'"
    );
    remove(&mut configuration, Listener, "l", now);
    assert_eq!(apply(&mut configuration, Listener, "m", &other, now), []);
}

#[test]
fn a_listener_that_is_not_bound_has_no_socket_and_follows_the_rules_of_bound_ones() {
    let mut configuration = Configuration::new(super::testing::inputs(), 2);
    let now = Instant::now();
    apply(&mut configuration, Cluster, "c", "{name: c}", now);
    let _wanted = want_all(&mut configuration);
    apply(&mut configuration, RouteConfiguration, "r", ROUTES, now);
    let unbound = LISTENER.replace("port_value: 0", "port_value: 8080").replace("127.0.0.1", "10.9.8.7");
    let unbound = unbound.replace("name: l,", "name: l, bind_to_port: false,");
    assert_eq!(apply(&mut configuration, Listener, "l", &unbound, now), []);
    let changes = configuration.take_changes();
    let [Change::Listen { addresses, sockets, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(addresses.as_slice(), ["10.9.8.7:8080".parse().unwrap()]);
    assert!(sockets.len() == 2 && sockets.iter().all(Vec::is_empty), "each worker hears of it");

    // Another content: nobody has to be told.
    let changed = unbound.replace("filter_chains: [", "listener_filters_timeout: 1s, filter_chains: [");
    assert_eq!(apply(&mut configuration, Listener, "l", &changed, now), []);
    assert!(configuration.take_changes().is_empty());

    // Another address: the workers are, and nothing drains.
    let moved = changed.replace("10.9.8.7", "10.9.8.8");
    assert_eq!(apply(&mut configuration, Listener, "l", &moved, now), []);
    let changes = configuration.take_changes();
    let [Change::Listen { addresses, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(addresses.as_slice(), ["10.9.8.8:8080".parse().unwrap()]);

    // An address belongs to one listener, bound or not.
    let rejected = apply(&mut configuration, Listener, "m", &moved.replace("name: l,", "name: m,"), now);
    assert!(rejected[0].to_string().contains("duplicate address '10.9.8.8:8080'"), "{}", rejected[0]);
    remove(&mut configuration, Listener, "l", now);
    assert!(matches!(configuration.take_changes().as_slice(), [Change::Stop { .. }]));
}

#[test]
fn hosts_made_on_demand_survive_an_update_of_their_cluster_and_go_with_its_type() {
    let (inhabited, _main) = crate::cluster::original_dst::channel();
    let mut inputs = super::testing::inputs();
    inputs.inhabited = inhabited;
    let mut configuration = Configuration::new(inputs, 0);
    let now = Instant::now();
    let original = "{name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED}";
    let pick = |configuration: &Configuration| {
        let cluster = configuration.inputs().registry.clusters.get("c").unwrap();
        let original_destination = Some("10.0.0.1:80".parse().unwrap());
        lb::pick(&cluster, lb::Context { original_destination, ..Default::default() })
    };
    assert_eq!(apply(&mut configuration, Cluster, "c", original, now), []);
    let first = pick(&configuration).unwrap();
    assert_eq!(first.address.to_string(), "10.0.0.1:80");
    let changed = original.replace("name: c", "name: c, connect_timeout: 1s");
    assert_eq!(apply(&mut configuration, Cluster, "c", &changed, now), []);
    assert_eq!(pick(&configuration).unwrap().id, first.id);

    let elsewhere =
        original.replace("name: c", "name: c, original_dst_lb_config: {upstream_port_override: 15006}");
    assert_eq!(apply(&mut configuration, Cluster, "c", &elsewhere, now), []);
    assert_eq!(pick(&configuration).unwrap().address.to_string(), "10.0.0.1:15006");

    // Hosts of another workload are other hosts.
    let elsewhere_host = pick(&configuration).unwrap();
    let named = elsewhere
        .replace("name: c", "name: c, metadata: {filter_metadata: {istio: {workload: w;ns;w;v1;k}}}");
    assert_eq!(apply(&mut configuration, Cluster, "c", &named, now), []);
    assert!(elsewhere_host.removed.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(pick(&configuration).unwrap().workload.as_deref(), Some("w;ns;w;v1;k"));

    assert_eq!(apply(&mut configuration, Cluster, "c", "{name: c}", now), []);
    assert!(pick(&configuration).is_none());
    assert!(first.removed.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn the_bootstrap_stands_against_the_control_plane() {
    let mut configuration = configuration();
    let now = Instant::now();
    let own = super::testing::resource(Cluster, "{name: c, connect_timeout: 1s}");
    configuration.apply_static(Cluster, &own, now).unwrap();
    assert!(
        configuration
            .apply_static(Cluster, &own, now)
            .unwrap_err()
            .to_string()
            .contains("another cluster of this name")
    );
    configuration.settle(now);
    assert_eq!(apply(&mut configuration, Cluster, "c", CLUSTER, now), []);
    remove(&mut configuration, Cluster, "c", now);
    let cluster = configuration.inputs().registry.clusters.get("c").unwrap();
    assert_eq!(cluster.connection.connect_timeout, Duration::from_secs(1));
}

#[test]
fn a_renamed_listener_takes_over_its_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut configuration = Configuration::new(super::testing::inputs(), 1);
    let now = Instant::now();
    let listener = |name: &str| {
        let fixed = LISTENER.replace("port_value: 0", &format!("port_value: {free}"));
        super::testing::resource(Listener, &fixed.replace("name: l,", &format!("name: {name},")))
    };
    apply(&mut configuration, Cluster, "c", "{name: c}", now);
    let _wanted = want_all(&mut configuration);
    apply(&mut configuration, RouteConfiguration, "r", ROUTES, now);
    let (old, new) = (listener("l"), listener("m"));
    let add = |name, resource| [super::apply::Update { name, version: "1", resource, aliases: &[] }];
    assert_eq!(configuration.apply(SourceId::ADS, Listener, &add("l", &old), &[], now), []);
    // Somebody still has the sockets, as workers do until they have heard of the change.
    let held = configuration.listeners().get("l").unwrap().newest().unwrap().bound()[0].clone();
    assert_eq!(configuration.apply(SourceId::ADS, Listener, &add("m", &new), &["l"], now), []);
    let taken = configuration.listeners().get("m").unwrap().newest().unwrap().bound()[0].clone();
    assert!(Arc::ptr_eq(&held, &taken));
    // No moment without either: the new one listens before the old one stops.
    let changes = configuration.take_changes();
    assert!(matches!(changes.as_slice(), [.., Change::Listen { .. }, Change::Stop { .. }]), "{changes:?}");
    assert!(configuration.inputs().registry.listeners.get("l").is_none());
}

#[test]
fn a_static_proxy_does_not_wait_for_a_cluster_that_cannot_come() {
    let mut inputs = super::testing::inputs();
    inputs.has_cds = false;
    let mut configuration = Configuration::new(inputs, 0);
    let listener = super::testing::resource(
        Listener,
        "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: t, typed_config: \
         {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: never}}]}]}",
    );
    let now = Instant::now();
    configuration.apply_static(Listener, &listener, now).unwrap();
    configuration.settle(now);
    assert!(configuration.inputs().registry.listeners.get("l").is_some());
    assert!(configuration.is_initialized());
}

/// Resources that differ from good ones by a few bytes: whatever is in them, they are taken or refused.
#[test]
fn damaged_resources_never_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    let captured = [(Cluster, "o", ORIGINAL_DST), (Listener, "v", VIRTUAL)];
    let good: Vec<_> = ALL
        .iter()
        .chain(&captured)
        .map(|(t, name, yaml)| (*t, *name, super::testing::resource(*t, yaml)))
        .collect();
    let mut configuration = configuration();
    let _wanted = want_all(&mut configuration);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..3000 {
        let (resource_type, name, mut resource) = good[random.usize(..good.len())].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..resource.value.len());
            match random.u8(..3) {
                0 => resource.value[at] = random.u8(..),
                1 => resource.value[at] ^= 1 << random.u8(..8),
                _ => resource.value.truncate(at.max(1)),
            }
        }
        let update = super::apply::Update { name, version: "1", resource: &resource, aliases: &[] };
        match configuration.apply(SourceId::ADS, resource_type, &[update], &[], Instant::now()).as_slice() {
            [] => taken += 1,
            rejected => refused += rejected.len(),
        }
        check_complete(&configuration);
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused: both ways are to be tried");
}

#[test]
fn updates_are_counted_by_what_they_did() {
    let (mut configuration, now) = complete();
    let all = configuration.inputs().stats.clone();
    let cluster = configuration.inputs().registry.clusters.get("c").unwrap().stats.clone();
    let endpoints = || {
        let c = &cluster;
        [&c.update_attempt, &c.update_success, &c.update_rejected, &c.update_empty, &c.update_no_rebuild]
            .map(|counter| counter.get())
    };
    let members = || (cluster.membership_total.get(), cluster.membership_change.get());
    assert_eq!((endpoints(), members()), ([1, 1, 0, 0, 0], (1, 1)));
    apply(&mut configuration, ClusterLoadAssignment, "c", ENDPOINTS, now);
    assert_eq!((endpoints(), members()), ([2, 2, 0, 0, 1], (1, 1)));
    // Another weight is no other member.
    let heavier = ENDPOINTS.replace("{endpoint:", "{load_balancing_weight: 3, endpoint:");
    apply(&mut configuration, ClusterLoadAssignment, "c", &heavier, now);
    assert_eq!((endpoints(), members()), ([3, 3, 0, 0, 1], (1, 1)));
    let invalid = ENDPOINTS.replace("port_value: 80", "port_value: 0");
    assert_eq!(apply(&mut configuration, ClusterLoadAssignment, "c", &invalid, now).len(), 1);
    assert_eq!((endpoints(), members()), ([4, 3, 1, 0, 1], (1, 1)));
    apply(&mut configuration, ClusterLoadAssignment, "c", "{cluster_name: c}", now);
    assert_eq!((endpoints(), members()), ([5, 4, 1, 1, 1], (0, 2)));

    // Nobody else holds these.
    let routes = |c: &Configuration| {
        let r = c.inputs().stats.rds("r");
        [&r.update_attempt, &r.update_success, &r.update_rejected, &r.update_failure, &r.config_reload]
            .map(|counter| counter.get())
    };
    assert_eq!(routes(&configuration), [1, 1, 0, 0, 1]);
    let invalid = ROUTES.replace("cluster: c", "cluster: c, hedge_policy: {}");
    assert_eq!(apply(&mut configuration, RouteConfiguration, "r", &invalid, now).len(), 1);
    configuration.count_lost_control_plane();
    assert_eq!(routes(&configuration), [2, 1, 1, 1, 1]);
    assert_eq!((cluster.update_failure.get(), all.server().cds_update_failure.get()), (1, 1));
    remove(&mut configuration, Listener, "l", now);
    configuration.take_watch_changes();
    assert_eq!(routes(&configuration), [0; 5], "the series go with the route configuration");
}
