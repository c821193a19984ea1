//! Ring and Maglev tables of all sizes and sets of hosts: the same user reaches the same host as through an Envoy.

use outrigger_tests::RawClient;
use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    Bootstrap, any_host, http_connection_manager, listener, load_assignment, overlay,
};
use outrigger_tests::differential::{Case, View, compare, compare_cases};
use outrigger_tests::proxy::Launch;
use outrigger_tests::wait::until;
use serde_json::{Value, json};

use crate::hashed_hosts::{by, by_user, hashed, hashed_endpoints, host, hosts, stalled, users};

fn user_case(name: &'static str) -> Case {
    users(by(name, name, by_user()))
}

#[test]
fn rings() {
    compare_cases(&[
        user_case("ring").clusters(|_| vec![hashed("ring", 10, json!({"lb_policy": "RING_HASH"}))]),
        user_case("tiny ring").clusters(|_| {
            let sizes = json!({"minimum_ring_size": 3, "maximum_ring_size": 7});
            vec![hashed("tiny ring", 10, json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": sizes}))]
        }),
        user_case("murmur").clusters(|_| {
            let config = json!({"minimum_ring_size": 100, "hash_function": "MURMUR_HASH_2"});
            vec![hashed("murmur", 7, json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": config}))]
        }),
        user_case("one host").clusters(|_| vec![hashed("one host", 1, json!({"lb_policy": "RING_HASH"}))]),
        user_case("no host").clusters(|_| vec![hashed("no host", 0, json!({"lb_policy": "RING_HASH"}))]),
        user_case("no point").clusters(|_| {
            let sizes = json!({"minimum_ring_size": 0, "maximum_ring_size": 0});
            vec![hashed("no point", 3, json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": sizes}))]
        }),
    ]);
}

#[test]
fn maglev_tables() {
    compare_cases(&[
        user_case("maglev").clusters(|_| vec![hashed("maglev", 10, json!({"lb_policy": "MAGLEV"}))]),
        user_case("small").clusters(|_| {
            let config = json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 13}});
            vec![hashed("small", 10, config)]
        }),
        // More hosts than entries: some get nothing.
        user_case("too small").clusters(|_| {
            let config = json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 5}});
            vec![hashed("too small", 10, config)]
        }),
        user_case("large").clusters(|_| {
            let config = json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 1_000_003}});
            vec![hashed("large", 10, config)]
        }),
        user_case("no host").clusters(|_| vec![hashed("no host", 0, json!({"lb_policy": "MAGLEV"}))]),
    ]);
}

/// Hosts with weights, keys of their own and states of health.
fn unequal(name: &str, policy: Value) -> Value {
    let key = |key: Value| json!({"filter_metadata": {"envoy.lb": {"hash_key": key}}});
    let endpoints = [
        (9, json!({"load_balancing_weight": 1})),
        (3, json!({"load_balancing_weight": 7, "metadata": key(json!("first"))})),
        (5, json!({"load_balancing_weight": 20, "metadata": key(json!(""))})),
        (1, json!({"load_balancing_weight": 3, "metadata": key(json!("second"))})),
        (7, json!({"load_balancing_weight": 5, "health_status": "UNHEALTHY"})),
        (2, json!({"load_balancing_weight": 4, "metadata": key(json!(17))})),
    ];
    hashed_endpoints(name, &endpoints, policy)
}

#[test]
fn weights_keys_and_health() {
    compare_cases(&[
        user_case("ring").clusters(|_| vec![unequal("ring", json!({"lb_policy": "RING_HASH"}))]),
        user_case("tight ring").clusters(|_| {
            let sizes = json!({"minimum_ring_size": 10, "maximum_ring_size": 11});
            vec![unequal("tight ring", json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": sizes}))]
        }),
        user_case("maglev").clusters(|_| vec![unequal("maglev", json!({"lb_policy": "MAGLEV"}))]),
        user_case("small maglev").clusters(|_| {
            let config = json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 31}});
            vec![unequal("small maglev", config)]
        }),
    ]);
}

/// Three hosts of ten are healthy: all take part.
#[test]
fn panic() {
    fn cluster(name: &str, policy: &str) -> Value {
        let health = |number: u8| if number <= 3 { "HEALTHY" } else { "UNHEALTHY" };
        let endpoints: Vec<(u8, Value)> =
            (1..=10).map(|number| (number, json!({"health_status": health(number)}))).collect();
        hashed_endpoints(name, &endpoints, json!({"lb_policy": policy}))
    }
    compare_cases(&[
        user_case("ring").clusters(|_| vec![cluster("ring", "RING_HASH")]),
        user_case("maglev").clusters(|_| vec![cluster("maglev", "MAGLEV")]),
    ]);
}

/// The first priority keeps a part of the hashes, the second one gets the others.
#[test]
fn priorities() {
    fn cluster(name: &str, policy: &str) -> Value {
        let locality = |priority: u32, numbers: &[u8], ill: u8| {
            let endpoints: Vec<Value> = numbers
                .iter()
                .map(|number| {
                    let health = if *number <= ill { "UNHEALTHY" } else { "HEALTHY" };
                    let address = outrigger_tests::bootstrap::socket_address(host(*number));
                    json!({"endpoint": {"address": address}, "health_status": health})
                })
                .collect();
            json!({"priority": priority, "locality": {"zone": format!("z{priority}")}, "lb_endpoints": endpoints})
        };
        let endpoints = [locality(0, &[1, 2, 3, 4, 5], 3), locality(1, &[11, 12, 13], 0)];
        let assignment = json!({"cluster_name": name, "endpoints": endpoints});
        hashed_endpoints(name, &[], json!({"lb_policy": policy, "load_assignment": assignment}))
    }
    compare_cases(&[
        user_case("ring").clusters(|_| vec![cluster("ring", "RING_HASH")]),
        user_case("maglev").clusters(|_| vec![cluster("maglev", "MAGLEV")]),
    ]);
}

/// What a retry takes when it must not go where the request was before.
#[test]
fn retries_elsewhere() {
    fn case(name: &'static str, retries: u32, redraws: u32) -> Case {
        let action = json!({"cluster": name, "hash_policy": by_user(), "retry_policy": {
            "retry_on": "5xx",
            "num_retries": retries,
            "retry_back_off": {"base_interval": "0.001s"},
            "host_selection_retry_max_attempts": redraws,
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": outrigger_tests::bootstrap::type_url(
                    "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")},
            }],
        }});
        let mut case = Case::routes(name, json!([{"match": {"prefix": "/"}, "route": action}]));
        for user in 0..12 {
            let request = format!("GET /503 HTTP/1.1\r\nhost: h\r\nx-user: user-{user}\r\n\r\n");
            case = case.send(&format!("user {user}"), &request);
        }
        case
    }
    fn ring(name: &str) -> Vec<Value> {
        let config = json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 12}});
        vec![hashed(name, 5, config)]
    }
    fn maglev(name: &str) -> Vec<Value> {
        vec![hashed(name, 5, json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 31}}))]
    }
    compare_cases(&[
        case("ring, first", 1, 1).clusters(|_| ring("ring, first")),
        case("ring, second", 2, 4).clusters(|_| ring("ring, second")),
        case("ring, third", 3, 8).clusters(|_| ring("ring, third")),
        case("maglev, first", 1, 1).clusters(|_| maglev("maglev, first")),
        case("maglev, second", 2, 4).clusters(|_| maglev("maglev, second")),
        case("maglev, third", 3, 8).clusters(|_| maglev("maglev, third")),
    ]);
}

/// Requests of one user that are not answered: its host takes its part of them, then others in an order that the hash says.
#[test]
fn bounded_loads() {
    fn cluster(name: &str, percent: u32) -> Value {
        let bounded = json!({"consistent_hashing_lb_config": {"hash_balance_factor": percent}});
        unequal(name, json!({"lb_policy": "MAGLEV", "common_lb_config": bounded}))
    }
    fn case(name: &'static str) -> Case {
        by(name, name, by_user()).drive(|target, _| {
            let active = |count: usize| {
                let found = format!("upstream_rq_active: {count}");
                until("so many requests in flight", || {
                    let stats = target.world.admin("GET", "/stats?filter=upstream_rq_active").text();
                    // One of the cases is driven at a time.
                    stats.lines().filter(|line| !line.ends_with(": 0")).all(|line| line.ends_with(&found))
                        && (count == 0 || stats.contains(&found))
                });
            };
            let mut waiting = Vec::new();
            for _ in 0..16 {
                let mut client = RawClient::connect(target.addr).unwrap();
                let before = stalled();
                client.send(b"GET /stall HTTP/1.1\r\nhost: h\r\nx-user: a\r\n\r\n");
                waiting.push(client);
                active(waiting.len());
                // It counts before it has a connection, whose addresses are in the log.
                until("a host has the request", || stalled() > before);
            }
            // One after the other, for the order of the log.
            while let Some(client) = waiting.pop() {
                client.reset();
                active(waiting.len());
            }
        })
    }
    compare_cases(&[
        case("tight").clusters(|_| vec![cluster("tight", 100)]),
        case("loose").clusters(|_| vec![cluster("loose", 150)]),
        case("as good as none").clusters(|_| vec![cluster("as good as none", 100_000)]),
    ]);
}

/// Endpoints come and go: after each change all users are where Envoy has them.
#[test]
fn hosts_come_and_go() {
    let bootstrap = Bootstrap::new();
    let clusters = [
        ("ring", json!({"lb_policy": "RING_HASH"})),
        ("maglev", json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 13}})),
    ];
    let write = |name: &str, numbers: &[u8]| {
        let addrs: Vec<_> = numbers.iter().map(|number| host(*number)).collect();
        let mut assignment = load_assignment(name, &addrs);
        assignment["@type"] =
            outrigger_tests::bootstrap::type_url("config.endpoint.v3.ClusterLoadAssignment").into();
        let text = json!({"resources": [assignment]}).to_string();
        let file = bootstrap.path(&format!("{name}.json"));
        std::fs::write(file.with_extension("new"), text).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    };
    let sets: [&[u8]; 5] =
        [&[1, 2, 3, 4, 5, 6], &[6, 2, 4], &[6, 2, 4, 9, 1, 3, 5], &[7], &[1, 2, 3, 4, 5, 6]];
    let addrs = clusters.clone().map(|_| free_addr());
    let listeners: Vec<Value> = (clusters.iter().zip(addrs))
        .map(|((name, _), addr)| {
            let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": name, "hash_policy": by_user()},
                "response_headers_to_add": [{"header": {"key": "x-host", "value": "%UPSTREAM_HOST%"}}]}]);
            listener(name, addr, http_connection_manager(any_host(routes), json!({})))
        })
        .collect();
    let defined = clusters.clone().map(|(name, policy)| {
        let mut cluster = json!({"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config":
            {"eds_config": {"path_config_source": {"path": bootstrap.path(&format!("{name}.json"))}}}});
        overlay(&mut cluster, policy);
        cluster
    });
    clusters.iter().for_each(|(name, _)| write(name, sets[0]));
    bootstrap.write_value(&json!({
        "node": {"id": "node", "cluster": "service"},
        "static_resources": {"listeners": listeners, "clusters": defined},
    }));
    // The upstream has to listen by now.
    assert_eq!(hosts(1).len(), 1);

    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut view = View::default();
        for (change, numbers) in sets.iter().enumerate() {
            for ((name, _), addr) in clusters.iter().zip(addrs) {
                write(name, numbers);
                let members = format!("cluster.{name}.membership_total: {}", numbers.len());
                until("the endpoints", || {
                    proxy.admin("/stats?filter=membership_total").text().contains(&members)
                });
                let mut picked = String::new();
                for user in 0..24 {
                    let mut client = RawClient::connect(addr).unwrap();
                    client.send(format!("GET / HTTP/1.1\r\nhost: h\r\nx-user: {user}\r\n\r\n").as_bytes());
                    let response = client.response().unwrap();
                    picked += &format!("{user}: {:?}\n", response.headers.get("x-host"));
                }
                view.add(format!("{name}, set {change}"), picked);
            }
        }
        proxy.stop();
        Some(view)
    });
}
