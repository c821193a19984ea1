//! Subsets: which hosts routes get by `metadata_match`, and what is counted. Every host of a set is asked in turn, so what each gets is
//! exact; parts by chance are compared as elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use outrigger_tests::RawClient;
use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    Bootstrap, any_host, cluster, file_access_log, http_connection_manager, listener, overlay,
    socket_address, tcp_proxy, type_url,
};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::{Launch, Proxy};
use outrigger_tests::wait::until;
use serde_json::{Value, json};

use crate::hashed_hosts::host;

/// Requests for each route: each of one, two, three or four hosts gets as many.
const REQUESTS: usize = 12;

/// A cluster with subsets, and what is asked of it: a name, and what is laid over the route's action.
struct Subsets {
    name: &'static str,
    hosts: Vec<Value>,
    config: Value,
    /// The config is that of the policy `Subset`.
    is_policy: bool,
    asks: Vec<(&'static str, Value)>,
}

/// An endpoint with these values.
fn endpoint(number: u8, values: Value) -> Value {
    json!({
        "endpoint": {"address": socket_address(host(number))},
        "metadata": {"filter_metadata": {"envoy.lb": values}},
    })
}

/// Two hosts of version 1, in two stages; one of version 2; one of none.
fn versions() -> Vec<Value> {
    vec![
        endpoint(1, json!({"version": "1", "stage": "prod"})),
        endpoint(2, json!({"version": "1", "stage": "dev"})),
        endpoint(3, json!({"version": "2", "stage": "prod"})),
        endpoint(4, json!({"other": "x"})),
    ]
}

fn by(keys: &[&str], more: Value) -> Value {
    let mut selector = json!({"keys": keys});
    overlay(&mut selector, more);
    selector
}

fn matching(values: Value) -> Value {
    json!({"metadata_match": {"filter_metadata": {"envoy.lb": values}}})
}

impl Subsets {
    fn of(name: &'static str, selectors: Vec<Value>, more: Value) -> Self {
        let mut config = json!({"subset_selectors": selectors});
        overlay(&mut config, more);
        Self { name, hosts: versions(), config, is_policy: false, asks: Vec::new() }
    }

    fn hosts(mut self, hosts: Vec<Value>) -> Self {
        self.hosts = hosts;
        self
    }

    /// A route that asks for these values.
    fn ask(self, name: &'static str, values: Value) -> Self {
        self.route(name, matching(values))
    }

    fn route(mut self, name: &'static str, action: Value) -> Self {
        self.asks.push((name, action));
        self
    }

    fn cluster(&self) -> Value {
        let assignment = json!({"cluster_name": self.name, "endpoints": [{"lb_endpoints": self.hosts}]});
        let mut more = json!({"load_assignment": assignment});
        if self.is_policy {
            let typed = |name: &str, mut config: Value| {
                config["@type"] = type_url(&format!("extensions.load_balancing_policies.{name}")).into();
                json!({"policies": [{"typed_extension_config": {"name": name, "typed_config": config}}]})
            };
            let mut config = self.config.clone();
            config["subset_lb_policy"] = typed("round_robin.v3.RoundRobin", json!({}));
            more["load_balancing_policy"] = typed("subset.v3.Subset", config);
        } else {
            more["lb_subset_config"] = self.config.clone();
        }
        cluster(self.name, &[], more)
    }

    fn routes(&self) -> impl Iterator<Item = Value> + '_ {
        self.asks.iter().map(|(ask, action)| {
            let mut route = json!({
                "match": {"path": format!("/{}/{ask}", self.name)},
                "route": {},
                "response_headers_to_add": [{"header": {"key": "x-host", "value": "%UPSTREAM_HOST%"}}],
            });
            if action.get("weighted_clusters").is_none() {
                route["route"]["cluster"] = self.name.into();
            }
            overlay(&mut route["route"], action.clone());
            route
        })
    }

    fn look(&self, proxy: &Proxy, client: &mut RawClient) -> String {
        let mut text = String::new();
        for (ask, _) in &self.asks {
            let _ = writeln!(text, "{ask}: {:?}", hosts_of(client, &format!("/{}/{ask}", self.name)));
        }
        text + &counted(proxy, self.name)
    }
}

/// How many requests each host gets; without a host: the status.
fn hosts_of(client: &mut RawClient, path: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..REQUESTS {
        let response = client.get("h", path).unwrap();
        let address = response.headers.get("x-host").and_then(|host| host.parse::<SocketAddr>().ok());
        let name = match address {
            Some(address) => address.ip().to_string(),
            None => response.status.to_string(),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

/// What is counted of subsets. Each thread of an Envoy makes its own and counts them: `one` has a single one.
fn counted(proxy: &Proxy, cluster: &str) -> String {
    let stat = |cluster: &str, name: &str| proxy.stat(&format!("cluster.{cluster}.{name}")).unwrap_or(0);
    let threads = stat("one", "lb_subsets_created").max(1);
    let mut text = String::new();
    for name in ["lb_subsets_active", "lb_subsets_created", "lb_subsets_removed"] {
        let _ = writeln!(text, "{name}: {}", stat(cluster, name) / threads);
    }
    for name in ["lb_subsets_selected", "lb_subsets_fallback", "lb_subsets_fallback_panic"] {
        let _ = writeln!(text, "{name}: {}", stat(cluster, name));
    }
    let duplicates = stat(cluster, "lb_subsets_single_host_per_subset_duplicate") > 0;
    let panic = stat(cluster, "lb_healthy_panic") > 0;
    let _ = writeln!(text, "duplicates: {duplicates}, panic: {panic}");
    text
}

/// A cluster with one subset, by which threads are counted.
fn one() -> Subsets {
    Subsets::of("one", vec![by(&["other"], json!({}))], json!({})).ask("one", json!({"other": "x"}))
}

#[track_caller]
fn compare_subsets(cases: Vec<Subsets>) {
    let cases: Vec<Subsets> = std::iter::once(one()).chain(cases).collect();
    let (bootstrap, addr) = (Bootstrap::new(), free_addr());
    let routes: Vec<Value> = cases.iter().flat_map(Subsets::routes).collect();
    let filter = http_connection_manager(any_host(json!(routes)), json!({}));
    let clusters: Vec<Value> = cases.iter().map(Subsets::cluster).collect();
    bootstrap.write(&[listener("in", addr, filter)], &clusters);
    compare(|engine| {
        let proxy = Launch::new(engine).workers(1).arg("-l").arg("error").start(&bootstrap)?;
        let mut client = RawClient::connect(addr).unwrap();
        let mut view = View::default();
        for case in &cases {
            view.add(case.name, case.look(&proxy, &mut client));
        }
        proxy.stop();
        Some(view)
    });
}

#[test]
fn matches_and_fallbacks() {
    let asks = |case: Subsets| {
        case.ask("one-key", json!({"version": "1"}))
            .ask("another-value", json!({"version": "2"}))
            .ask("two-keys", json!({"version": "1", "stage": "dev"}))
            .ask("no-such-value", json!({"version": "3"}))
            .ask("no-such-values", json!({"version": "2", "stage": "dev"}))
            .ask("no-selector", json!({"stage": "prod"}))
            .ask("too-many-keys", json!({"version": "1", "stage": "dev", "other": "x"}))
            .ask("number", json!({"version": 1}))
            .ask("nothing", json!({}))
            .route("no-metadata", json!({}))
            .route(
                "another-namespace",
                json!({"metadata_match": {"filter_metadata": {"x": {"version": "1"}}}}),
            )
    };
    let of = |name, more: Value| {
        asks(Subsets::of(name, vec![by(&["version"], json!({})), by(&["stage", "version"], json!({}))], more))
    };
    let default = |values: Value| json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": values});
    let mut panics = default(json!({"stage": "test"}));
    overlay(&mut panics, json!({"panic_mode_any": true}));
    compare_subsets(vec![
        of("no-fallback", json!({})),
        of("any-endpoint", json!({"fallback_policy": "ANY_ENDPOINT"})),
        of("default-subset", default(json!({"stage": "prod"}))),
        of("default-of-all", default(json!({}))),
        of("empty-default", default(json!({"stage": "test"}))),
        of("panic-mode-any", panics),
        // Without selectors there are no subsets, whatever the rest says.
        asks(Subsets::of("no-selectors", vec![], json!({"fallback_policy": "NO_FALLBACK"}))),
    ]);
}

#[test]
fn fallbacks_of_selectors() {
    let of = |name, policy: Value| {
        let selectors = vec![by(&["stage", "version"], policy), by(&["stage"], json!({}))];
        let default = json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"stage": "dev"}});
        Subsets::of(name, selectors, default)
            .ask("there", json!({"stage": "prod", "version": "1"}))
            .ask("not-there", json!({"stage": "prod", "version": "3"}))
            .ask("neither", json!({"stage": "test", "version": "3"}))
            .ask("other-keys", json!({"version": "3"}))
    };
    compare_subsets(vec![
        of("not-defined", json!({})),
        of("no-fallback", json!({"fallback_policy": "NO_FALLBACK"})),
        of("any-endpoint", json!({"fallback_policy": "ANY_ENDPOINT"})),
        of("default-subset", json!({"fallback_policy": "DEFAULT_SUBSET"})),
        of("keys-subset", json!({"fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["stage"]})),
        // The fewer keys are those of no selector.
        of("keys-of-none", json!({"fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["version"]})),
        Subsets::of(
            "list",
            vec![by(&["stage", "version"], json!({}))],
            json!({"metadata_fallback_policy": "FALLBACK_LIST"}),
        )
        .ask("first", json!({"stage": "prod", "fallback_list": [{"version": "2"}, {"version": "1"}]}))
        .ask("second", json!({"stage": "dev", "fallback_list": [{"version": "2"}, {"version": "1"}]}))
        .ask(
            "other-stage",
            json!({"fallback_list": [{"version": "2", "stage": "dev"},
            {"version": "2", "stage": "prod"}]}),
        )
        .ask("none", json!({"stage": "dev", "fallback_list": [{"version": "2"}]}))
        .ask("empty", json!({"stage": "dev", "version": "1", "fallback_list": []})),
    ]);
}

#[test]
fn values_of_all_types() {
    let hosts = || {
        vec![
            endpoint(1, json!({"v": 1, "s": "a"})),
            endpoint(2, json!({"v": "1", "s": "a"})),
            endpoint(3, json!({"v": true, "s": "b"})),
            endpoint(4, json!({"v": ["x", "y", 7], "s": ["a", "b"]})),
            endpoint(5, json!({"v": {"k": 1}})),
            endpoint(6, json!({"v": 1.5, "s": "b"})),
        ]
    };
    let of = |name, more: Value| {
        let mut case =
            Subsets::of(name, vec![by(&["v"], json!({})), by(&["s", "v"], json!({}))], more).hosts(hosts());
        let values = [
            ("whole", json!(1)),
            ("text", json!("1")),
            ("bool", json!(true)),
            ("no-bool", json!(false)),
            ("fraction", json!(1.5)),
            ("list", json!(["x", "y", 7])),
            ("other-order", json!(["y", "x", 7])),
            ("element", json!("x")),
            ("number-in-list", json!(7)),
            ("struct", json!({"k": 1})),
        ];
        for (name, value) in values {
            case = case.ask(name, json!({"v": value}));
        }
        case.ask("both", json!({"v": "y", "s": "b"})).route("without", json!({}))
    };
    compare_subsets(vec![
        of("exact", json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"s": "b"}})),
        of(
            "any-of-list",
            json!({"list_as_any": true, "fallback_policy": "DEFAULT_SUBSET", "default_subset": {"s": "b"}}),
        ),
    ]);
}

#[test]
fn single_hosts_health_and_policies() {
    let ill = |number, values: Value, health: &str| {
        let mut endpoint = endpoint(number, values);
        endpoint["health_status"] = health.into();
        endpoint
    };
    let version = |version: &str| json!({"version": version});
    let mixed = || {
        vec![
            ill(1, version("1"), "UNHEALTHY"),
            ill(2, version("1"), "UNHEALTHY"),
            ill(3, version("1"), "HEALTHY"),
            ill(4, version("2"), "UNHEALTHY"),
            ill(5, version("2"), "HEALTHY"),
            ill(6, version("3"), "UNHEALTHY"),
        ]
    };
    let of = |name, selector: Value, more: Value| {
        Subsets::of(name, vec![selector], more)
            .hosts(mixed())
            .ask("third-well", version("1"))
            .ask("half-well", version("2"))
            .ask("ill", version("3"))
            .ask("none", version("4"))
    };
    compare_subsets(vec![
        of("panic", by(&["version"], json!({})), json!({"fallback_policy": "ANY_ENDPOINT"})),
        of("single", by(&["version"], json!({"single_host_per_subset": true})), json!({})),
    ]);
}

#[test]
fn the_policy_with_redundant_keys() {
    let of = |name, redundant: bool| {
        let selectors = vec![by(&["stage", "version"], json!({})), by(&["version"], json!({}))];
        let config = json!({"allow_redundant_keys": redundant, "fallback_policy": "ANY_ENDPOINT"});
        let case = Subsets { is_policy: true, ..Subsets::of(name, selectors, config) };
        case.ask("version", json!({"version": "1"}))
            .ask("both", json!({"version": "1", "stage": "dev"}))
            .ask("one-too-many", json!({"version": "2", "other": "x"}))
            .ask("both-and-more", json!({"version": "1", "stage": "prod", "other": "x"}))
            .ask("no-selector", json!({"stage": "prod", "other": "x"}))
            .ask("no-such-value", json!({"version": "3", "other": "x"}))
    };
    compare_subsets(vec![of("redundant", true), of("exact", false)]);
}

/// What a weighted cluster asks for is laid over what its route asks for.
#[test]
fn weighted_clusters() {
    let weighted = |route: Value, parts: &[(u32, Value)]| {
        let clusters: Vec<Value> = parts
            .iter()
            .map(|(weight, values)| {
                let mut part = json!({"name": "weighted", "weight": weight});
                overlay(&mut part, values.clone());
                part
            })
            .collect();
        let mut action = json!({"weighted_clusters": {"clusters": clusters}});
        overlay(&mut action, route);
        action
    };
    let none = json!({});
    let selectors = vec![by(&["version"], json!({})), by(&["stage", "version"], json!({}))];
    compare_subsets(vec![
        Subsets::of("weighted", selectors, json!({}))
            .route("of-route", weighted(matching(json!({"version": "2"})), &[(1, none.clone())]))
            .route("own", weighted(none.clone(), &[(1, matching(json!({"version": "2"})))]))
            .route(
                "merged",
                weighted(matching(json!({"version": "1"})), &[(1, matching(json!({"stage": "dev"})))]),
            )
            .route(
                "replaced",
                weighted(matching(json!({"version": "1"})), &[(1, matching(json!({"version": "2"})))]),
            )
            .route(
                "another-namespace",
                weighted(
                    matching(json!({"version": "2"})),
                    &[(1, json!({"metadata_match": {"filter_metadata": {"x": {"stage": "dev"}}}}))],
                ),
            )
            .route(
                "only-one-is-drawn",
                weighted(
                    none.clone(),
                    &[(0, matching(json!({"version": "1"}))), (1, matching(json!({"version": "2"})))],
                ),
            ),
    ]);
}

/// Endpoints come from a file: a value that is new makes a subset, one that nobody has any more removes it.
#[test]
fn an_update_of_endpoints() {
    let (bootstrap, addr) = (Bootstrap::new(), free_addr());
    let write = |hosts: Vec<Value>| {
        let assignment = json!({
            "@type": type_url("config.endpoint.v3.ClusterLoadAssignment"),
            "cluster_name": "moving",
            "endpoints": [{"lb_endpoints": hosts}],
        });
        let file = bootstrap.path("moving.json");
        std::fs::write(file.with_extension("new"), json!({"resources": [assignment]}).to_string()).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    };
    let case = Subsets::of("moving", vec![by(&["version"], json!({}))], json!({}))
        .ask("1", json!({"version": "1"}))
        .ask("2", json!({"version": "2"}))
        .ask("3", json!({"version": "3"}));
    let moving = json!({"name": "moving", "type": "EDS", "connect_timeout": "1s",
        "lb_subset_config": case.config,
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": bootstrap.path("moving.json")}}}});
    let one = one();
    let routes: Vec<Value> = one.routes().chain(case.routes()).collect();
    let filter = http_connection_manager(any_host(json!(routes)), json!({}));
    bootstrap.write_value(&json!({
        "node": {"id": "node", "cluster": "service"},
        "static_resources": {"listeners": [listener("in", addr, filter)], "clusters": [one.cluster(), moving]},
    }));
    compare(|engine| {
        write(versions());
        let proxy = Launch::new(engine).workers(1).arg("-l").arg("error").start(&bootstrap)?;
        let mut client = RawClient::connect(addr).unwrap();
        let mut view = View::default();
        view.add("before", case.look(&proxy, &mut client));
        // The third host has another version; the second one is gone, a fifth comes.
        let version = |version: &str| json!({"version": version});
        write(vec![
            endpoint(1, version("1")),
            endpoint(3, version("3")),
            endpoint(5, version("1")),
            endpoint(6, version("3")),
            endpoint(7, json!({})),
        ]);
        until("the endpoints", || proxy.stat("cluster.moving.membership_total") == Some(5));
        until("the new subset", || {
            client.get("h", "/moving/3").unwrap().status == 200 && {
                let stats = counted(&proxy, "moving");
                stats.contains("lb_subsets_removed: 1")
            }
        });
        let mut after = String::new();
        for (ask, _) in &case.asks {
            let _ = writeln!(after, "{ask}: {:?}", hosts_of(&mut client, &format!("/moving/{ask}")));
        }
        for line in counted(&proxy, "moving").lines().take(3) {
            let _ = writeln!(after, "{line}");
        }
        view.add("after", after);
        proxy.stop();
        Some(view)
    });
}

#[test]
fn tcp_connections() {
    let bootstrap = Bootstrap::new();
    let log = |row: &str| format!("{row}.log");
    let weighted = |own: Value| {
        let mut part = json!({"name": "one", "weight": 1});
        overlay(&mut part, own);
        json!({"weighted_clusters": {"clusters": [part]}})
    };
    let with = |mut action: Value, more: Value| {
        overlay(&mut action, more);
        action
    };
    let selectors = vec![by(&["version"], json!({})), by(&["stage", "version"], json!({}))];
    let case = Subsets::of("one", selectors, json!({}));
    let single = json!({"cluster": "one"});
    let (first, second) = (matching(json!({"version": "1"})), matching(json!({"version": "2"})));
    let rows = [
        ("none", single.clone()),
        ("version", with(single.clone(), second.clone())),
        ("another", with(single, first.clone())),
        ("own", weighted(second.clone())),
        ("of-all", with(weighted(json!({})), second.clone())),
        ("merged", with(weighted(matching(json!({"stage": "dev"}))), first.clone())),
        ("replaced", with(weighted(second), first)),
    ];
    let addrs: Vec<SocketAddr> = rows.iter().map(|_| free_addr()).collect();
    let listeners: Vec<Value> = rows
        .iter()
        .zip(&addrs)
        .map(|((name, action), addr)| {
            let access_log =
                file_access_log(&bootstrap.path(&log(name)), Some("%UPSTREAM_HOST% %RESPONSE_FLAGS%\n"));
            let mut more = json!({"access_log": [access_log]});
            overlay(&mut more, action.clone());
            let mut filter = tcp_proxy("one", more);
            if action.get("cluster").is_none() {
                filter["typed_config"].as_object_mut().unwrap().remove("cluster");
            }
            listener(name, *addr, filter)
        })
        .collect();
    bootstrap.write(&listeners, &[case.cluster()]);
    compare(|engine| {
        let proxy = Launch::new(engine).workers(1).arg("-l").arg("error").start(&bootstrap)?;
        for addr in addrs.iter().flat_map(|addr| [addr; 4]) {
            let mut client = RawClient::connect(*addr).unwrap();
            client.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
            let _ = client.read_to_end();
        }
        proxy.stop();
        let port = host(1).port().to_string();
        let mut view = View::default();
        for (name, _) in &rows {
            let lines = bootstrap.take_log(&log(name));
            let seen: BTreeSet<String> = lines.iter().map(|line| line.replace(&port, "PORT")).collect();
            view.add(*name, format!("{} lines: {seen:?}\n", lines.len()));
        }
        Some(view)
    });
}
