#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::time::Duration;

use outrigger_xds_api::ResourceType::Cluster;
use tokio::time::{Instant, sleep};

use super::*;
use crate::cluster::Host;
use crate::config::compile::Discovery;
use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::config::testing::{self, apply, problems};

const STRICT: &str = "{name: c, type: STRICT_DNS, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [\
    {endpoint: {hostname: h, address: {socket_address: {address: a.test, port_value: 80}}}, load_balancing_weight: 3}]}, \
    {priority: 1, lb_endpoints: [{endpoint: {address: {socket_address: {address: b.test, port_value: 81}}}}]}]}";

fn strict(more: &str) -> String {
    format!("{STRICT}{more}}}")
}

/// What the newest version of the cluster has its hosts from.
fn names(configuration: &Configuration) -> Arc<DnsDiscovery> {
    match &configuration.clusters().get("c").unwrap().newest().unwrap().compiled.discovery {
        Discovery::Dns(dns) => dns.clone(),
        other => panic!("{other:?}"),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What a look-up of the endpoint found; `None`: it failed.
fn answer(configuration: &mut Configuration, endpoint: usize, addresses: Option<&[&str]>) {
    let dns = names(configuration);
    let addresses = addresses.map(ips);
    if dns.take(endpoint, addresses.as_deref()) {
        configuration.publish_names("c", &dns, Instant::now());
    }
}

fn published(configuration: &Configuration) -> Vec<(usize, Arc<Host>)> {
    configuration.inputs().registry.clusters.get("c").map(|cluster| cluster.hosts()).unwrap_or_default()
}

fn addresses(configuration: &Configuration) -> Vec<String> {
    let hosts = published(configuration);
    hosts.iter().map(|(priority, host)| format!("{priority} {} {}", host.address, host.hostname)).collect()
}

fn put(configuration: &mut Configuration, yaml: &str) {
    assert_eq!(apply(configuration, Cluster, "c", yaml, Instant::now()), []);
}

#[test]
fn a_cluster_waits_for_its_first_answer_and_has_all_addresses_of_all_names() {
    let mut configuration = testing::configuration();
    put(&mut configuration, &strict(""));
    assert!(configuration.clusters().active("c").is_none());
    answer(&mut configuration, 0, Some(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(addresses(&configuration), ["0 10.0.0.1:80 h", "0 10.0.0.2:80 h"]);
    answer(&mut configuration, 1, Some(&["::1"]));
    assert_eq!(addresses(&configuration), ["0 10.0.0.1:80 h", "0 10.0.0.2:80 h", "1 [::1]:81 b.test"]);
    let weight =
        |at: usize| published(&configuration)[at].1.weight.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((weight(0), weight(2)), (3, 1));
}

#[test]
fn a_failure_makes_a_cluster_warm_and_keeps_hosts_and_an_empty_answer_takes_them() {
    let mut configuration = testing::configuration();
    put(&mut configuration, &strict(""));
    answer(&mut configuration, 0, None);
    assert!(configuration.clusters().active("c").is_some());
    assert!(addresses(&configuration).is_empty());
    answer(&mut configuration, 0, Some(&["10.0.0.1"]));
    answer(&mut configuration, 0, None);
    assert_eq!(addresses(&configuration).len(), 1);
    answer(&mut configuration, 0, Some(&[]));
    assert!(addresses(&configuration).is_empty());
    let stats = names(&configuration).stats.clone();
    assert_eq!(
        (stats.update_success.get(), stats.update_failure.get(), stats.update_no_rebuild.get()),
        (2, 2, 0)
    );
}

#[test]
fn hosts_that_an_answer_keeps_are_the_same_in_whatever_order() {
    let mut configuration = testing::configuration();
    put(&mut configuration, &strict(""));
    answer(&mut configuration, 0, Some(&["10.0.0.1", "10.0.0.2"]));
    let ids = |c: &Configuration| published(c).iter().map(|(_, host)| host.id).collect::<Vec<_>>();
    let before = ids(&configuration);
    answer(&mut configuration, 0, Some(&["10.0.0.2", "10.0.0.1"]));
    assert_eq!(ids(&configuration), before);
    assert_eq!(names(&configuration).stats.update_no_rebuild.get(), 1);
    answer(&mut configuration, 0, Some(&["10.0.0.2", "10.0.0.3"]));
    assert_eq!(ids(&configuration)[0], before[1]);
}

#[test]
fn a_logical_cluster_has_the_newest_first_address_and_no_empty_answer() {
    let mut configuration = testing::configuration();
    let yaml = "{name: c, type: LOGICAL_DNS, load_assignment: {cluster_name: c, endpoints: [{priority: 2, lb_endpoints: [\
        {endpoint: {address: {socket_address: {address: a.test, port_value: 80}}}}]}]}}";
    put(&mut configuration, yaml);
    answer(&mut configuration, 0, Some(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(addresses(&configuration), ["0 10.0.0.1:80 a.test"]);
    answer(&mut configuration, 0, Some(&["10.0.0.2", "10.0.0.1"]));
    assert_eq!(addresses(&configuration), ["0 10.0.0.2:80 a.test"]);
    let others = |configuration: &Configuration| {
        let hosts = names(configuration).assignment().hosts.clone();
        hosts[0].more_addresses.as_deref().cloned().unwrap_or_default()
    };
    assert_eq!(others(&configuration), ["10.0.0.1:80".parse().unwrap()]);
    answer(&mut configuration, 0, Some(&["10.0.0.2"]));
    assert_eq!(others(&configuration), []);
    answer(&mut configuration, 0, Some(&[]));
    assert_eq!(addresses(&configuration), ["0 10.0.0.2:80 a.test"]);
    assert_eq!(names(&configuration).stats.update_failure.get(), 1);
}

#[test]
fn an_update_that_leaves_the_names_looks_nothing_up_and_a_new_name_waits() {
    let mut configuration = testing::configuration();
    put(&mut configuration, &strict(""));
    answer(&mut configuration, 0, Some(&["10.0.0.1"]));
    let dns = names(&configuration);
    put(&mut configuration, &strict(", connect_timeout: 1s"));
    assert!(Arc::ptr_eq(&dns, &names(&configuration)));
    assert!(configuration.clusters().get("c").unwrap().waiting().is_none());

    put(&mut configuration, &strict("").replace("b.test", "d.test"));
    assert!(!Arc::ptr_eq(&dns, &names(&configuration)));
    assert!(configuration.clusters().get("c").unwrap().waiting().is_some());
    // What was known of the other name still is.
    answer(&mut configuration, 1, Some(&["10.0.0.9"]));
    assert_eq!(addresses(&configuration), ["0 10.0.0.1:80 h", "1 10.0.0.9:81 d.test"]);
}

#[test]
fn a_cluster_may_not_wait() {
    let mut configuration = testing::configuration();
    put(&mut configuration, &strict(", wait_for_warm_on_init: false"));
    assert!(configuration.clusters().active("c").is_some());
    let mut configuration = testing::configuration();
    put(&mut configuration, "{name: c, type: STRICT_DNS}");
    assert!(configuration.clusters().active("c").is_some(), "there is no name to wait for");
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_again_as_long_as_their_cluster_has_them() {
    let mut configuration = testing::configuration();
    let (started, wanted) = channel();
    configuration.inputs_mut().names = started;
    let (watches, _changes) = tokio::sync::mpsc::unbounded_channel();
    let handle = Arc::new(ConfigurationHandle::new(configuration, Box::new(|_| ()), watches));
    let following = tokio::spawn(follow(handle.clone(), wanted));
    // An address is a name that needs no server.
    let yaml = strict("").replace("a.test", "10.0.0.1").replace("b.test", "10.0.0.2");
    handle.update(|c| put(c, &yaml));
    sleep(Duration::from_secs(12)).await;
    assert_eq!(handle.read(addresses), ["0 10.0.0.1:80 h", "1 10.0.0.2:81 10.0.0.2"]);
    let stats = handle.read(|c| names(c).stats.clone());
    assert_eq!((stats.update_attempt.get(), stats.update_no_rebuild.get()), (6, 4));
    handle.update(|c| testing::remove(c, Cluster, "c", Instant::now()));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(stats.update_attempt.get(), 6);
    following.abort();
}

#[test]
fn what_is_wrong_is_refused_with_its_path() {
    let endpoint = |host: &str| {
        format!(
            "{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: 80}}}}}}}}]}}"
        )
    };
    let address = "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address";
    for (yaml, problem) in [
        (
            format!("{{name: c, type: STRICT_DNS, load_assignment: {{cluster_name: c, endpoints: [{}]}}}}", endpoint("'a b'")),
            format!("{address}.socket_address.address: 'a b' is neither a DNS name nor an IP address"),
        ),
        (
            "{name: c, type: STRICT_DNS, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /x}}}}]}]}}".to_owned(),
            format!("{address}: a socket address is required"),
        ),
        (
            format!("{{name: c, type: LOGICAL_DNS, load_assignment: {{cluster_name: c, endpoints: [{0}, {0}]}}}}", endpoint("a.test")),
            "load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint".to_owned(),
        ),
        (
            "{name: c, type: STRICT_DNS, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}}".to_owned(),
            "dns_failure_refresh_rate.max_interval: must be greater than or equal to the base_interval".to_owned(),
        ),
        (
            "{name: c, type: STRICT_DNS, dns_resolvers: [{pipe: {path: /x}}]}".to_owned(),
            "dns_resolvers[0]: a DNS server must have an IP address".to_owned(),
        ),
        (
            "{name: c, type: STRICT_DNS, typed_dns_resolver_config: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig}}}".to_owned(),
            "typed_dns_resolver_config.typed_config: the DNS resolver 'x' is not supported".to_owned(),
        ),
        (
            "{name: c, cluster_type: {name: envoy.cluster.dns, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, typed_dns_resolver_config: {name: envoy.network.dns_resolver.cares, typed_config: {'@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, filter_unroutable_families: true}}}}}".to_owned(),
            "cluster_type.typed_config.typed_dns_resolver_config.typed_config.filter_unroutable_families: not supported".to_owned(),
        ),
        (
            "{name: c, cluster_type: {name: envoy.clusters.redis}}".to_owned(),
            "cluster_type.name: the cluster type 'envoy.clusters.redis' is not supported".to_owned(),
        ),
    ] {
        assert_eq!(problems(Cluster, &yaml), [problem], "{yaml}");
    }
    let typed = "{name: c, cluster_type: {name: envoy.cluster.dns, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_jitter: 1s, typed_dns_resolver_config: {name: g, typed_config: {'@type': type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig}}}}}";
    assert!(problems(Cluster, typed).is_empty());
}
