//! Clusters by DNS name: the same server's answers, which change, fail and go, make the same hosts of a real Envoy's clusters and of ours,
//! and are counted the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use outrigger_tests::addr::{free_addr, pod_ip};
use outrigger_tests::bootstrap::{
    any_host, cluster, http_connection_manager, listener, overlay, socket_address, type_url,
};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::dns::FakeDns;
use outrigger_tests::upstream::Reply;
use outrigger_tests::wait::{self, until};
use outrigger_tests::{Bootstrap, Engine, Proxy, Upstream, client};
use serde_json::{Value, json};

/// Short enough for a test to wait for a few, long enough for a look-up.
const REFRESH: &str = "0.1s";

/// So many look-ups of a cluster are one of each of its names, at least, that began after the count did.
const ENOUGH: u64 = 5;

/// Cluster and name of its one endpoint.
const NAMES: [(&str, &str); 14] = [
    ("strict", "strict.test"),
    ("logical", "logical.test"),
    ("typed", "strict.test"),
    ("typed_logical", "logical.test"),
    ("auto", "both.test"),
    ("v4", "both.test"),
    ("v6", "both.test"),
    ("v4_preferred", "both.test"),
    ("all", "both.test"),
    ("old_fields", "strict.test"),
    ("older_fields", "strict.test"),
    ("failing", "failing.test"),
    ("nobody", "nobody.test"),
    ("hostname", "strict.test"),
];

/// A DNS server, and two upstreams on one port of different addresses.
struct World {
    dns: FakeDns,
    upstreams: [Upstream; 2],
    port: u16,
}

impl World {
    fn start() -> Self {
        let first = free_addr();
        let second = SocketAddr::new(pod_ip().into(), first.port());
        let upstreams = [first, second].map(Upstream::start_at);
        for (upstream, name) in upstreams.iter().zip(["first", "second"]) {
            upstream.answer_with(move |request| {
                Reply::status(200, &format!("{name} {}", request.headers.get("host").unwrap_or("-")))
            });
        }
        let world = World { dns: FakeDns::start(), upstreams, port: first.port() };
        world.reset();
        world
    }

    fn ip(&self, number: usize) -> IpAddr {
        self.upstreams[number].addr().ip()
    }

    /// What the names stand for in the beginning.
    fn reset(&self) {
        let both = [self.ip(0), self.ip(1)];
        self.dns.set("strict.test", &both);
        self.dns.set("logical.test", &both);
        self.dns.set("both.test", &[self.ip(0), Ipv6Addr::LOCALHOST.into()]);
        self.dns.fail("failing.test");
        self.dns.unset("nobody.test");
    }

    fn resolver(&self) -> Value {
        json!({"name": "envoy.network.dns_resolver.cares", "typed_config": {
            "@type": type_url("extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"),
            "resolvers": [socket_address(self.dns.addr())],
            "dns_resolver_options": {"no_default_search_domain": true},
        }})
    }

    /// A cluster of that name with the endpoint of `NAMES`.
    fn cluster(&self, name: &str, host: &str) -> Value {
        let at = json!({"socket_address": {"address": host, "port_value": self.port}});
        let more = |more: Value| {
            let mut base = json!({
                "type": "STRICT_DNS",
                "dns_refresh_rate": REFRESH,
                "typed_dns_resolver_config": self.resolver(),
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at}}]}]},
            });
            overlay(&mut base, more);
            let mut whole = cluster(name, &[], base);
            if let Some(fields) = whole.as_object_mut() {
                fields.retain(|_, value| !value.is_null());
            }
            whole
        };
        let typed = |is_logical: bool| {
            json!({"type": null, "dns_refresh_rate": null, "typed_dns_resolver_config": null, "cluster_type": {
                "name": "envoy.cluster.dns",
                "typed_config": {
                    "@type": type_url("extensions.clusters.dns.v3.DnsCluster"),
                    "dns_refresh_rate": REFRESH,
                    "typed_dns_resolver_config": self.resolver(),
                    "all_addresses_in_single_endpoint": is_logical,
                },
            }})
        };
        match name {
            "logical" => more(json!({"type": "LOGICAL_DNS"})),
            "typed" => more(typed(false)),
            "typed_logical" => more(typed(true)),
            "v4" => more(json!({"dns_lookup_family": "V4_ONLY"})),
            "v6" => more(json!({"dns_lookup_family": "V6_ONLY"})),
            "v4_preferred" => more(json!({"dns_lookup_family": "V4_PREFERRED"})),
            "all" => more(json!({"dns_lookup_family": "ALL"})),
            "old_fields" => more(json!({"typed_dns_resolver_config": null, "dns_resolution_config": {
                "resolvers": [socket_address(self.dns.addr())],
                "dns_resolver_options": {"no_default_search_domain": true},
            }})),
            "older_fields" => {
                more(json!({"typed_dns_resolver_config": null, "use_tcp_for_dns_lookups": true,
                "dns_resolvers": [socket_address(self.dns.addr())]}))
            }
            "hostname" => more(json!({"load_assignment": {"cluster_name": name, "endpoints": [
                {"priority": 1, "lb_endpoints": [{"endpoint": {"address": at, "hostname": "other.example"},
                    "load_balancing_weight": 7}]},
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "nobody.test", "port_value": 1}}}}]},
            ]}})),
            _ => more(json!({})),
        }
    }

    fn bootstrap(&self) -> (Bootstrap, SocketAddr) {
        let (bootstrap, at) = (Bootstrap::new(), free_addr());
        let route = |(name, _): &(&str, &str)| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "auto_host_rewrite": true}});
        let routes: Vec<Value> = NAMES.iter().map(route).collect();
        let clusters: Vec<Value> = NAMES.iter().map(|(name, host)| self.cluster(name, host)).collect();
        let manager = http_connection_manager(any_host(json!(routes)), json!({}));
        bootstrap.write(&[listener("ingress", at, manager)], &clusters);
        (bootstrap, at)
    }
}

/// A running proxy, and what is seen of it.
struct Seen {
    proxy: Proxy,
    at: SocketAddr,
    view: View,
}

impl Seen {
    /// Address, host name, weight and priority of each host, by cluster.
    fn hosts(&self) -> BTreeMap<String, Vec<String>> {
        let text = self.proxy.admin("/clusters?format=json").text();
        let all: Value = serde_json::from_str(&text).unwrap();
        let host = |host: &Value| {
            let socket = &host["address"]["socket_address"];
            let number = |field: &str| host[field].as_u64().unwrap_or_default();
            format!(
                "{}:{} {} weight {} priority {}",
                socket["address"].as_str().unwrap(),
                socket["port_value"],
                host["hostname"].as_str().unwrap_or_default(),
                number("weight"),
                number("priority"),
            )
        };
        let clusters = all["cluster_statuses"].as_array().unwrap().iter().map(|cluster| {
            let mut hosts: Vec<String> =
                cluster["host_statuses"].as_array().into_iter().flatten().map(host).collect();
            hosts.sort_unstable();
            (cluster["name"].as_str().unwrap().to_owned(), hosts)
        });
        clusters.collect()
    }

    fn stat(&self, cluster: &str, name: &str) -> u64 {
        self.proxy.stat(&format!("cluster.{cluster}.{name}")).unwrap_or_default()
    }

    /// Look-ups that have ended, well or not.
    fn counts(&self, cluster: &str) -> [u64; 2] {
        ["update_success", "update_failure"].map(|name| self.stat(cluster, name))
    }

    fn ended(&self, cluster: &str) -> u64 {
        self.counts(cluster).iter().sum()
    }

    /// Waits until every name has been asked for anew: what is seen then is what the present answers make.
    fn settle(&self) {
        let before: Vec<u64> = NAMES.iter().map(|(name, _)| self.ended(name)).collect();
        until("every name is looked up again", || {
            NAMES.iter().zip(&before).all(|((name, _), before)| self.ended(name) >= before + ENOUGH)
        });
    }

    /// Notes hosts and answers of all clusters, and whether the last answers were good ones.
    fn note(&mut self, what: &str) {
        self.settle();
        let hosts = self.hosts();
        for (cluster, hosts) in &hosts {
            self.view.add(format!("{what}: hosts of {cluster}"), hosts.join("\n") + "\n");
        }
        for (cluster, _) in NAMES {
            // Which of two hosts answers is chance; nobody is at the IPv6 address.
            if hosts[cluster].len() == 1 && !hosts[cluster][0].starts_with(':') {
                let answer = client::get(self.at, "h", &format!("/{cluster}"));
                self.view
                    .add(format!("{what}: GET /{cluster}"), format!("{} {}\n", answer.status, answer.text()));
            }
        }
        let before = NAMES.map(|(cluster, _)| self.counts(cluster));
        self.settle();
        for ((cluster, _), before) in NAMES.into_iter().zip(before) {
            let after = self.counts(cluster);
            let counted = [0, 1].map(|at| after[at] > before[at]);
            let change = self.stat(cluster, "membership_change");
            self.view.add(
                format!("{what}: counted of {cluster}"),
                format!(
                    "successes {} failures {} changes {change} empty {}\n",
                    counted[0],
                    counted[1],
                    self.stat(cluster, "update_empty")
                ),
            );
        }
    }
}

#[test]
fn answers_become_hosts() {
    let world = World::start();
    compare(|engine| {
        world.reset();
        let over_tcp = world.dns.over_tcp();
        let (bootstrap, at) = world.bootstrap();
        let proxy = Proxy::start(engine, &bootstrap)?;
        let mut seen = Seen { proxy, at, view: View::default() };
        let (dns, first, second) = (&world.dns, world.ip(0), world.ip(1));
        seen.note("in the beginning");

        dns.set("logical.test", &[second, first]);
        dns.set("strict.test", &[second]);
        dns.set("both.test", &[first]);
        dns.set("failing.test", &[first]);
        dns.set("nobody.test", &[first]);
        seen.note("other answers");

        dns.fail("strict.test");
        dns.fail("logical.test");
        dns.set("both.test", &[]);
        seen.note("the server fails");

        for name in ["strict.test", "logical.test", "failing.test"] {
            dns.unset(name);
        }
        dns.set("nobody.test", &[]);
        seen.note("there is no such name");

        // One type of record after the other: no look-up of both may see half of a change.
        dns.set("both.test", &[first]);
        seen.settle();
        dns.set("both.test", &[first, Ipv6Addr::LOCALHOST.into()]);
        dns.set("strict.test", &[first]);
        dns.set("logical.test", &[first, second]);
        dns.fail("failing.test");
        dns.unset("nobody.test");
        seen.note("it is back");
        seen.view.add("over TCP", format!("{}\n", dns.over_tcp() > over_tcp));
        seen.proxy.stop();
        Some(seen.view)
    });
}

#[test]
fn a_time_to_live_counts_where_it_is_respected() {
    let world = World::start();
    world.dns.set_ttl("strict.test", 1);
    world.dns.set_ttl("logical.test", 3600);
    compare(|engine| {
        let bootstrap = Bootstrap::new();
        let more = |refresh: &str| json!({"respect_dns_ttl": true, "dns_refresh_rate": refresh, "dns_lookup_family": "V4_ONLY"});
        let named = |name: &str, host: &str, refresh: &str| {
            let mut cluster = world.cluster(name, host);
            overlay(&mut cluster, more(refresh));
            cluster
        };
        bootstrap
            .write(&[], &[named("short", "strict.test", "3600s"), named("long", "logical.test", "0.05s")]);
        let before = world.dns.questions("logical.test");
        let proxy = Proxy::start(engine, &bootstrap)?;
        let asked =
            |cluster: &str| proxy.stat(&format!("cluster.{cluster}.update_success")).unwrap_or_default();
        until("a short life ends", || asked("short") >= 3);
        let mut view = View::default();
        view.add("a long life", format!("{} questions\n", world.dns.questions("logical.test") - before));
        proxy.stop();
        Some(view)
    });
}

/// Hosts that a new answer keeps keep their connections too; so does a stream to a host that has gone.
#[test]
fn hosts_that_stay_keep_their_connections() {
    let world = World::start();
    compare(|engine| {
        world.reset();
        world.dns.set("strict.test", &[world.ip(0)]);
        let (bootstrap, at) = world.bootstrap();
        let proxy = Proxy::start(engine, &bootstrap)?;
        let seen = Seen { proxy, at, view: View::default() };
        seen.settle();
        let answers = || client::get(at, "h", "/strict").text();
        let mut view = View::default();
        view.add("before", answers());
        world.dns.set("strict.test", &[world.ip(1), world.ip(0)]);
        seen.settle();
        until("both answer", || answers().starts_with("second"));
        until("both answer", || answers().starts_with("first"));
        view.add("connections", format!("{}\n", seen.stat("strict", "upstream_cx_total")));
        seen.proxy.stop();
        Some(view)
    });
}

/// Not compared: an Envoy gives a resolver that is silent 20 s, which a suite does not wait for.
#[test]
fn a_cluster_without_an_answer_is_not_waited_for() {
    let world = World::start();
    let (bootstrap, at) = (Bootstrap::new(), free_addr());
    world.dns.silent(true);
    let mut silent = world.cluster("strict", "strict.test");
    overlay(&mut silent, json!({"wait_for_warm_on_init": false}));
    let manager = http_connection_manager(
        any_host(json!([{"match": {"prefix": "/"}, "route": {"cluster": "strict"}}])),
        json!({}),
    );
    bootstrap.write(&[listener("ingress", at, manager)], &[silent]);
    let proxy = Proxy::start(Engine::Outrigger, &bootstrap).unwrap();
    assert_eq!(client::get(at, "h", "/").status, 503);
    world.dns.silent(false);
    let answered = wait::within(wait::PATIENCE, || (client::get(at, "h", "/").status == 200).then_some(()));
    assert!(answered.is_some(), "{}", proxy.stderr());
}
