//! Plays a scenario: hosts that answer as each phase wants it, a proxy that gets its endpoints from a file, and clients.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{any_host, http_connection_manager, listener, overlay, type_url};
use outrigger_tests::upstream::Reply;
use outrigger_tests::{Bootstrap, Proxy, RawClient, Upstream, wait};
use serde_json::{Value, json};

use crate::scenario::{Act, Host, Scenario};

const CLIENTS: usize = 8;
const SLOW: Duration = Duration::from_millis(20);

/// What came of one phase.
pub(crate) struct Phase {
    pub(crate) title: &'static str,
    /// Of each host.
    pub(crate) requests: Vec<usize>,
    /// Hosts that something is wrong with.
    pub(crate) marked: Vec<usize>,
}

impl Phase {
    /// Of each host.
    pub(crate) fn percent(&self) -> Vec<f64> {
        let all: usize = self.requests.iter().sum();
        self.requests.iter().map(|&requests| 100.0 * requests as f64 / all.max(1) as f64).collect()
    }
}

/// A host and how it answers now: bit 0 fails, bit 1 is slow.
struct Player {
    upstream: Upstream,
    mood: Arc<AtomicU64>,
}

impl Player {
    fn start() -> Self {
        let (upstream, mood) = (Upstream::start(), Arc::new(AtomicU64::new(0)));
        let now = mood.clone();
        upstream.answer_with(move |_| {
            let mood = now.load(Ordering::Acquire);
            if mood & 2 != 0 {
                thread::sleep(SLOW);
            }
            Reply::status(if mood & 1 != 0 { 500 } else { 200 }, "")
        });
        Self { upstream, mood }
    }
}

/// Plays all phases.
pub(crate) fn play(scenario: &Scenario) -> Vec<Phase> {
    let players: Vec<Player> = scenario.hosts.iter().map(|_| Player::start()).collect();
    let (addr, bootstrap) = (free_addr(), Bootstrap::new());
    let file = bootstrap.path("endpoints.json");
    let publish = |act: &Act| {
        let assignment = assignment(&scenario.hosts, &players, act);
        fs::write(file.with_extension("new"), json!({"resources": [assignment]}).to_string()).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
    };
    publish(&scenario.acts[0]);
    let mut cluster = json!({"name": "c", "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": file}}}});
    overlay(&mut cluster, scenario.cluster.clone());
    let route = json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "hash_policy": [{"header": {"header_name": "x-key"}}]}}]);
    let manager = http_connection_manager(any_host(route), json!({}));
    bootstrap.write(&[listener("in", addr, manager)], &[cluster]);
    let proxy = Proxy::outrigger(&bootstrap);
    let updates = || proxy.stat("cluster.c.update_success").unwrap_or_default();
    wait::until("endpoints", || updates() >= 1);
    let mut phases = Vec::new();
    for (number, act) in scenario.acts.iter().enumerate() {
        for (host, player) in players.iter().enumerate() {
            let mood = u64::from(act.failing.contains(&host)) | u64::from(act.slow.contains(&host)) << 1;
            player.mood.store(mood, Ordering::Release);
        }
        let places = |act: &Act| (act.absent, act.ill);
        if number > 0 && places(act) != places(&scenario.acts[number - 1]) {
            let before = updates();
            publish(act);
            wait::until("other endpoints", || updates() > before);
        }
        let settled = Instant::now() + Duration::from_millis(act.settles);
        while Instant::now() < settled {
            ask(addr, 20);
        }
        let counts = || players.iter().map(|player| player.upstream.recorded()).collect::<Vec<usize>>();
        let before = counts();
        ask(addr, scenario.requests);
        let requests = counts().iter().zip(before).map(|(now, before)| now - before).collect();
        let marked = [act.absent, act.ill, act.failing, act.slow].concat();
        phases.push(Phase { title: act.title, requests, marked });
    }
    phases
}

fn assignment(hosts: &[Host], players: &[Player], act: &Act) -> Value {
    let mut groups: Vec<(&Host, Vec<Value>)> = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        if act.absent.contains(&number) {
            continue;
        }
        let addr = players[number].upstream.addr();
        let endpoint = json!({
            "endpoint": {"address": {"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}}},
            "load_balancing_weight": host.weight,
            "health_status": if act.ill.contains(&number) { "UNHEALTHY" } else { "HEALTHY" },
        });
        match groups.iter_mut().find(|(of, _)| (of.zone, of.priority) == (host.zone, host.priority)) {
            Some((_, group)) => group.push(endpoint),
            None => groups.push((host, vec![endpoint])),
        }
    }
    let groups = groups.into_iter().map(|(of, endpoints)| {
        let mut group =
            json!({"locality": {"zone": of.zone}, "priority": of.priority, "lb_endpoints": endpoints});
        if let Some(weight) = of.zone_weight {
            group["load_balancing_weight"] = weight.into();
        }
        group
    });
    let groups: Vec<Value> = groups.collect();
    json!({
        "@type": type_url("config.endpoint.v3.ClusterLoadAssignment"),
        "cluster_name": "c",
        "endpoints": groups,
    })
}

/// Sends so many requests, each with a key of its own.
fn ask(addr: SocketAddr, requests: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = RawClient::connect(addr).unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    client.send(format!("GET / HTTP/1.1\r\nhost: h\r\nx-key: {number}\r\n\r\n").as_bytes());
                    client.response().unwrap();
                }
            });
        }
    });
}
