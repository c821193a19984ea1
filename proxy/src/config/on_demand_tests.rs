//! What requests ask for: subscriptions, answers, and what becomes of both.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use outrigger_xds_api::ResourceType::{
    self, Cluster, ClusterLoadAssignment, RouteConfiguration, VirtualHost,
};
use tokio::sync::oneshot::{Receiver, channel};
use tokio::time::Instant;

use super::*;
use crate::config::compile::Fetch;
use crate::config::testing::{apply, configuration, published_routes, remove, resource};

/// Takes clusters from ADS, those of the wildcard too.
fn world() -> (Configuration, Instant) {
    let (mut configuration, now) = (configuration(), Instant::now());
    let fetch = Fetch { source: SourceId::ADS, timeout: Duration::MAX };
    configuration.take_all(Cluster, fetch, now);
    configuration.take_watch_changes();
    (configuration, now)
}

fn ask(configuration: &mut Configuration, kind: Kind, name: &str, now: Instant) -> Receiver<Answer> {
    let (answer, answered) = channel();
    configuration.ask(Ask { kind, source: SourceId::ADS, name: name.to_owned(), answer }, now);
    answered
}

/// What the source is told, as `+name` and `-name`.
fn told(configuration: &mut Configuration) -> Vec<String> {
    let changes = configuration.take_watch_changes().into_iter();
    changes.map(|change| format!("{}{}", if change.is_wanted { '+' } else { '-' }, change.key.name)).collect()
}

fn names(configuration: &Configuration) -> i64 {
    configuration.inputs().stats.server().on_demand_names.get()
}

const EDS: &str = "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}";

#[test]
fn a_cluster_is_asked_for_once_and_used_when_its_endpoints_are_there() {
    let (mut configuration, now) = world();
    let mut waiting = [(); 3].map(|()| ask(&mut configuration, Kind::Cluster, "c", now));
    assert_eq!(told(&mut configuration), ["+c"]);
    assert!(apply(&mut configuration, Cluster, "c", EDS, now).is_empty());
    assert!(waiting[0].try_recv().is_err(), "it has no endpoints yet");
    assert!(apply(&mut configuration, ClusterLoadAssignment, "c", "{cluster_name: c}", now).is_empty());
    for waiting in &mut waiting {
        assert_eq!(waiting.try_recv(), Ok(Answer::Ready));
    }
    assert_eq!(ask(&mut configuration, Kind::Cluster, "c", now).try_recv(), Ok(Answer::Ready));
    assert_eq!(
        (told(&mut configuration), names(&configuration)),
        (vec!["+c".to_owned()], 1),
        "its endpoints"
    );
}

#[test]
fn a_name_that_does_not_exist_is_asked_for_again_by_the_next_request() {
    let (mut configuration, now) = world();
    for _ in 0..2 {
        let mut waiting = ask(&mut configuration, Kind::Cluster, "c", now);
        assert_eq!(told(&mut configuration), ["+c"]);
        remove(&mut configuration, Cluster, "c", now);
        assert_eq!(waiting.try_recv(), Ok(Answer::Missing));
        assert_eq!((told(&mut configuration), names(&configuration)), (vec!["-c".to_owned()], 0));
    }
}

#[test]
fn a_cluster_that_was_removed_is_asked_for_again() {
    let (mut configuration, now) = world();
    let _waiting = ask(&mut configuration, Kind::Cluster, "c", now);
    apply(&mut configuration, Cluster, "c", "{name: c}", now);
    // A request under way has it.
    let held = configuration.inputs().registry.cluster_names.find("c").unwrap();
    remove(&mut configuration, Cluster, "c", now);
    assert_eq!(told(&mut configuration), ["+c"]);
    assert_eq!(ask(&mut configuration, Kind::Cluster, "c", now).try_recv(), Ok(Answer::Ready));
    drop(held);
    configuration.settle(now);
    assert!(configuration.inputs().registry.cluster_names.find("c").is_none());
    assert_eq!((told(&mut configuration), names(&configuration)), (vec!["-c".to_owned()], 0));
    assert!(ask(&mut configuration, Kind::Cluster, "c", now).try_recv().is_err());
    assert_eq!(told(&mut configuration), ["+c"]);
}

#[test]
fn a_cluster_that_is_no_good_is_as_good_as_missing_until_it_is_mended() {
    let (mut configuration, now) = world();
    let mut waiting = ask(&mut configuration, Kind::Cluster, "c", now);
    assert_eq!(apply(&mut configuration, Cluster, "c", "{name: c, connect_timeout: -1s}", now).len(), 1);
    assert_eq!(waiting.try_recv(), Ok(Answer::Missing));
    assert_eq!(ask(&mut configuration, Kind::Cluster, "c", now).try_recv(), Ok(Answer::Missing));
    assert_eq!(told(&mut configuration), ["+c"], "its source can still mend it");
    apply(&mut configuration, Cluster, "c", "{name: c}", now);
    assert_eq!(ask(&mut configuration, Kind::Cluster, "c", now).try_recv(), Ok(Answer::Ready));
}

#[test]
fn strangers_cannot_ask_for_everything() {
    let (mut configuration, now) = world();
    configuration.on_demand.limit = 3;
    let refused = |c: &Configuration| c.inputs().stats.server().on_demand_refused_total.get();
    let found = ask(&mut configuration, Kind::Cluster, "found", now);
    apply(&mut configuration, Cluster, "found", "{name: found}", now);
    let waiting = ask(&mut configuration, Kind::Cluster, "waiting", now);
    let given_up = ask(&mut configuration, Kind::Cluster, "given up", now);
    assert_eq!(ask(&mut configuration, Kind::Cluster, "more", now).try_recv(), Ok(Answer::TooMany));
    assert_eq!((refused(&configuration), names(&configuration)), (1, 3));
    // Nobody waits for it any more, so it makes room: after a while, for looking costs.
    drop(given_up);
    assert_eq!(ask(&mut configuration, Kind::Cluster, "more", now).try_recv(), Ok(Answer::TooMany));
    let later = now + LOOK_AGAIN;
    let more = ask(&mut configuration, Kind::Cluster, "more", later);
    assert_eq!((refused(&configuration), names(&configuration)), (2, 3));
    let mut all = told(&mut configuration);
    all.sort();
    assert_eq!(all, ["+found", "+more", "+waiting"]);
    drop((found, waiting, more));
}

#[test]
fn routes_do_not_wait_for_what_requests_ask_for() {
    let (mut configuration, now) = world();
    let odcds = "{'@type': type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.PerRouteConfig, odcds: {source: {ads: {}}}}";
    let routes = |said: &str| {
        format!(
            "{{name: r, virtual_hosts: [{{name: v, domains: ['*'], typed_per_filter_config: {said}, routes: [{{match: {{prefix: /}}, \
             route: {{cluster: c}}}}]}}]}}"
        )
    };
    let _watch = configuration.inputs.watches.watch(SourceId::ADS, RouteConfiguration, "r");
    assert!(apply(&mut configuration, RouteConfiguration, "r", &routes("{}"), now).is_empty());
    assert!(published_routes(&configuration, "r").is_none(), "it waits for its cluster");
    let said = routes(&format!("{{on_demand: {odcds}}}"));
    assert!(apply(&mut configuration, RouteConfiguration, "r", &said, now).is_empty());
    assert!(published_routes(&configuration, "r").is_some());
    // A cluster that is on its way is waited for.
    apply(
        &mut configuration,
        Cluster,
        "d",
        "{name: d, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}",
        now,
    );
    let said = said.replace("cluster: c", "cluster: d");
    apply(&mut configuration, RouteConfiguration, "r", &said, now);
    let goes_to = |c: &Configuration| {
        format!("{:?}", published_routes(c, "r").unwrap().virtual_hosts[0].routes[0].action)
    };
    assert!(goes_to(&configuration).contains("\"c\""));
    apply(&mut configuration, ClusterLoadAssignment, "d", "{cluster_name: d}", now);
    assert!(goes_to(&configuration).contains("\"d\""));
}

#[test]
fn a_listener_says_that_the_clusters_of_its_routes_are_asked_for() {
    let (mut configuration, now) = world();
    let fetch = Fetch { source: SourceId::ADS, timeout: Duration::MAX };
    configuration.take_all(ResourceType::Listener, fetch, now);
    let listener = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: \
         [{name: h, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
         HttpConnectionManager, stat_prefix: s, rds: {route_config_name: r, config_source: {ads: {}}}, http_filters: [\
         {name: d, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand, odcds: \
         {source: {ads: {}}}}}, {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.\
         router.v3.Router}}]}}]}]}";
    assert_eq!(apply(&mut configuration, ResourceType::Listener, "l", listener, now), []);
    let routes = "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}";
    assert!(apply(&mut configuration, RouteConfiguration, "r", routes, now).is_empty());
    assert!(published_routes(&configuration, "r").is_some());
    // A cluster that is on its way is waited for.
    assert!(apply(&mut configuration, Cluster, "c", EDS, now).is_empty());
    let again = routes.replace("name: v", "name: w");
    apply(&mut configuration, RouteConfiguration, "r", &again, now);
    assert_eq!(hosts(&configuration), ["v"]);
    apply(&mut configuration, ClusterLoadAssignment, "c", "{cluster_name: c}", now);
    assert_eq!(hosts(&configuration), ["w"]);
}

#[test]
fn a_source_that_says_nothing_is_waited_for_once() {
    let (mut configuration, now) = world();
    let _watch = configuration.inputs.watches.watch(SourceId::ADS, RouteConfiguration, "r");
    let routes = |more: &str| format!("{{name: r, vhds: {{config_source: {{ads: {{}}}}}}, {more}}}");
    apply(&mut configuration, RouteConfiguration, "r", &routes(""), now);
    let late = now + crate::config::warming::WARMING_TIMEOUT;
    configuration.settle(late);
    assert!(published_routes(&configuration, "r").is_some());
    let more = routes("ignore_port_in_host_matching: true");
    apply(&mut configuration, RouteConfiguration, "r", &more, late);
    assert!(published_routes(&configuration, "r").unwrap().ignore_port);
}

/// A route configuration `r` with VHDS, as its listener wants it.
fn with_hosts() -> (Configuration, Instant, Watch) {
    let (mut configuration, now) = world();
    let watch = configuration.inputs.watches.watch(SourceId::ADS, RouteConfiguration, "r");
    let routes = "{name: r, vhds: {config_source: {ads: {}}}, virtual_hosts: [{name: own, domains: [own], routes: \
         [{match: {prefix: /}, redirect: {host_redirect: x}}]}]}";
    assert!(apply(&mut configuration, RouteConfiguration, "r", routes, now).is_empty());
    assert!(
        published_routes(&configuration, "r").is_none(),
        "it waits for what comes without being asked for"
    );
    configuration.apply(SourceId::ADS, VirtualHost, &[], &[], now);
    assert!(published_routes(&configuration, "r").is_some());
    assert_eq!(told(&mut configuration), ["+r", "+*"]);
    (configuration, now, watch)
}

fn host(name: &str, domain: &str, to: &str) -> String {
    format!("{{name: {name}, domains: [{domain}], routes: [{{match: {{prefix: /}}, {to}}}]}}")
}

fn hosts(configuration: &Configuration) -> Vec<String> {
    let routes = published_routes(configuration, "r").unwrap();
    routes.virtual_hosts.iter().map(|host| host.name.to_string()).collect()
}

#[test]
fn a_virtual_host_is_added_to_its_routes_when_its_clusters_are_there() {
    let (mut configuration, now, _watch) = with_hosts();
    let mut waiting = ask(&mut configuration, Kind::VirtualHost, "r/a.example", now);
    assert_eq!(told(&mut configuration), ["+r/a.example"]);
    let to = host("a", "a.example", "route: {cluster: c}");
    assert!(apply(&mut configuration, VirtualHost, "r/a.example", &to, now).is_empty());
    assert_eq!((waiting.try_recv().is_err(), hosts(&configuration)), (true, vec!["own".to_owned()]));
    apply(&mut configuration, Cluster, "c", "{name: c}", now);
    assert_eq!(
        (waiting.try_recv(), hosts(&configuration)),
        (Ok(Answer::Ready), vec!["own".to_owned(), "a".to_owned()])
    );
    // Taken away, it is asked for again.
    remove(&mut configuration, VirtualHost, "r/a.example", now);
    assert_eq!(
        (told(&mut configuration), hosts(&configuration)),
        (vec!["-r/a.example".to_owned()], vec!["own".to_owned()])
    );
}

#[test]
fn a_virtual_host_answers_to_its_aliases_if_it_is_for_them() {
    let (mut configuration, now, _watch) = with_hosts();
    let mut asked =
        ["r/a.example", "r/b.example"].map(|name| ask(&mut configuration, Kind::VirtualHost, name, now));
    let resource = resource(VirtualHost, &host("h", "a.example", "redirect: {}"));
    let aliases = ["r/a.example", "r/b.example"].map(str::to_owned);
    let update =
        crate::config::apply::Update { name: "r/h", version: "1", resource: &resource, aliases: &aliases };
    assert_eq!(configuration.apply(SourceId::ADS, VirtualHost, &[update], &[], now), []);
    assert_eq!(asked[0].try_recv(), Ok(Answer::Ready));
    assert_eq!(asked[1].try_recv(), Ok(Answer::Missing));
}

#[test]
fn a_virtual_host_that_is_no_good_is_refused_and_one_whose_domain_is_taken_left_out() {
    let (mut configuration, now, _watch) = with_hosts();
    let mut waiting = ask(&mut configuration, Kind::VirtualHost, "r/a", now);
    let bad = apply(
        &mut configuration,
        VirtualHost,
        "r/a",
        "{name: a, domains: [a], routes: [{match: {prefix: /}}]}",
        now,
    );
    assert_eq!(bad[0].problems[0].path, "routes[0].action");
    assert_eq!(waiting.try_recv(), Ok(Answer::Missing));
    assert_eq!(
        apply(&mut configuration, VirtualHost, "r/own", &host("again", "OWN", "redirect: {}"), now),
        []
    );
    assert_eq!(hosts(&configuration), ["own"]);
    let early = apply(&mut configuration, VirtualHost, "s/a", &host("a", "a", "redirect: {}"), now);
    assert_eq!(early, []);
    let _watch = configuration.inputs.watches.watch(SourceId::ADS, RouteConfiguration, "s");
    apply(&mut configuration, RouteConfiguration, "s", "{name: s, vhds: {config_source: {ads: {}}}}", now);
    let routes = published_routes(&configuration, "s").unwrap();
    assert_eq!(routes.virtual_hosts.len(), 1, "what came before its route configuration");
}

#[test]
fn virtual_hosts_follow_what_they_inherit_and_go_with_their_routes() {
    let (mut configuration, now, watch) = with_hosts();
    apply(&mut configuration, VirtualHost, "r/a", &host("a", "a", "redirect: {}"), now);
    let _waiting = ask(&mut configuration, Kind::VirtualHost, "r/b", now);
    let route = |c: &Configuration| {
        let routes = published_routes(c, "r").unwrap();
        routes.virtual_host("a").unwrap().routes[0].clone()
    };
    assert!(route(&configuration).request_headers.is_empty());
    let routes =
        "{name: r, vhds: {config_source: {ads: {}}}, request_headers_to_add: [{header: {key: x, value: z}}]}";
    assert!(apply(&mut configuration, RouteConfiguration, "r", routes, now).is_empty());
    assert!(!route(&configuration).request_headers.is_empty());
    assert_eq!(hosts(&configuration), ["a"]);
    let dump = crate::config::dump::config_dump(&configuration, false).to_string();
    assert!(dump.contains("\"domains\":[\"a\"]"), "{dump}");

    told(&mut configuration);
    drop(watch);
    let mut all = told(&mut configuration);
    all.sort();
    assert_eq!(all, ["-*", "-r", "-r/b"]);
    assert_eq!(names(&configuration), 0);
}

#[tokio::test]
async fn what_nobody_answers_is_missing() {
    let (asks, main) = crate::on_demand::channel();
    drop(main);
    assert_eq!(asks.of(Kind::Cluster, SourceId::ADS).ask("c".to_owned()).await, Answer::Missing);
}
